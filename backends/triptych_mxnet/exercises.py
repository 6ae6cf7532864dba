"""The mistakes of `triptych exercise` in Gluon's terms: what is right, and what is wrong about it."""

PLANTS: dict[str, tuple[str, str]] = {
    "padding": ("nn.Conv2D(8, 3, padding=1)", "nn.Conv2D(8, 3)"),
    "window": ("nn.MaxPool2D(3, strides=2, padding=1)", "nn.MaxPool2D(2, strides=2)"),
    "ceil": ("nn.MaxPool2D(3, strides=2, ceil_mode=True)", "nn.MaxPool2D(3, strides=2)"),
    "counted": (", count_include_pad=False", ""),
    "eps": (", epsilon=0.001", ""),
    "alpha": ("alpha=0.1", "alpha=0.02"),
    "slope": ("LeakyReLU(0.2)", "LeakyReLU(0.01)"),
    "dilation": ("padding=2, dilation=2", "padding=1"),
    "scale": ("x + 0.3 * self.body(x)", "x + self.body(x)"),
    "order": ("self.a(x), self.b(x)", "self.b(x), self.a(x)"),
    "activation": ('nn.Activation("sigmoid")', 'nn.Activation("relu")'),
    "stride": ("nn.Conv2D(8, 3, strides=2, padding=1)", "nn.Conv2D(8, 3, strides=2)"),
}
