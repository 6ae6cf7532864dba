"""The mistakes of `triptych exercise` in PyTorch's terms: what is right, and what is wrong about it."""

PLANTS: dict[str, tuple[str, str]] = {
    "padding": ("nn.Conv2d(6, 8, 3, padding=1)", "nn.Conv2d(6, 8, 3)"),
    "window": ("nn.MaxPool2d(3, stride=2, padding=1)", "nn.MaxPool2d(2, stride=2)"),
    "ceil": ("nn.MaxPool2d(3, stride=2, ceil_mode=True)", "nn.MaxPool2d(3, stride=2)"),
    "counted": (", count_include_pad=False", ""),
    "eps": ("eps=0.001, ", ""),
    "alpha": ("alpha=0.1", "alpha=0.02"),
    "slope": ("nn.LeakyReLU(0.2)", "nn.LeakyReLU()"),
    "dilation": ("padding=2, dilation=2", "padding=1"),
    "scale": ("x + 0.3 * self.body(x)", "x + self.body(x)"),
    "order": ("[self.a(x), self.b(x)]", "[self.b(x), self.a(x)]"),
    "activation": ("nn.Sigmoid()", "nn.ReLU()"),
    "stride": ("nn.Conv2d(6, 8, 3, stride=2, padding=1)", "nn.Conv2d(6, 8, 3, stride=2)"),
}
