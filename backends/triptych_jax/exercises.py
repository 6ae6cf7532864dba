"""The mistakes of `triptych exercise` in Flax's terms: what is right, and what is wrong about it."""

PLANTS: dict[str, tuple[str, str]] = {
    "padding": ("nnx.Conv(6, 8, (3, 3), padding=1,", "nnx.Conv(6, 8, (3, 3), padding=0,"),
    "window": (
        "window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1))",
        "window_shape=(2, 2), strides=(2, 2)",
    ),
    "ceil": (", padding=((0, 1), (0, 1))", ""),
    "counted": (", count_include_pad=False", ""),
    "eps": (", epsilon=0.001", ""),
    "alpha": ("alpha=0.02", "alpha=0.1"),
    "slope": ("slope=0.2", "slope=0.01"),
    "dilation": ("padding=2, kernel_dilation=2", "padding=1"),
    "scale": ("x + 0.3 * self.body(x)", "x + self.body(x)"),
    "order": ("[self.a(x), self.b(x)]", "[self.b(x), self.a(x)]"),
    "activation": ("nnx.sigmoid", "nnx.relu"),
    "stride": ("nnx.Conv(6, 8, (3, 3), strides=2, padding=1,", "nnx.Conv(6, 8, (3, 3), strides=2,"),
}
