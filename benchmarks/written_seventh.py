"""A seventh table, of six new networks, two in each framework, written with functions, own loops, matrix products and
dict outputs. Written before anything of the diagnosis, or any row of the six tables before, was read."""

# ruff: noqa: E501  # a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from written_faults import WrittenFault, rows

from triptych.spec import layers as spec


def _conv(name: str, channels: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> spec.Conv:
    pad = kernel // 2
    return spec.Conv(name, channels, (kernel, kernel), (stride, stride), (pad, pad), groups, bias)


def _norm(name: str) -> spec.BatchNorm:
    """As MXNet and Flax keep running variances."""
    return spec.BatchNorm(name, unbiased=False)


def _head(features: spec.Layer) -> tuple[spec.Layer, ...]:
    return (features, spec.Flatten("flatten"), spec.Dense("fc", 10))


def _made(name: str, layers: tuple[spec.Layer, ...]) -> spec.Architecture:
    return spec.Architecture(name, (3, 14, 18), 10, layers, spec.Initializer("kaiming_normal"))


def wide_network(framework: str) -> spec.Architecture:
    """What `wide.py` is a port of: of the second unit, norm and activation are before both of its branches."""

    def active(number: str) -> tuple[spec.Layer, ...]:
        return (spec.BatchNorm(f"bn{number}"), spec.ReLU(f"relu{number}"))

    def rest(channels: int, stride: int) -> tuple[spec.Layer, ...]:
        last = (spec.Dropout("dropout", 0.3), _conv("conv2", channels, 3))
        return (_conv("conv1", channels, 3, stride), *active("2"), *last)

    first = spec.Residual("unit1", spec.Block("body", (*active("1"), *rest(8, 1))))
    branches = spec.Residual(
        "branches",
        spec.Block("body", rest(12, 2)),
        spec.Block("proj", (spec.Conv("proj", 12, (1, 1), (2, 2), bias=False),)),
    )
    second = spec.Block("unit2", (*active("1"), branches))
    return _made("wide", (_conv("conv0", 8, 3), first, second, *active(""), *_head(spec.GlobalAvgPool("pool"))))


def mixer_network(framework: str) -> spec.Architecture:
    """What `mixer.py` is a port of."""

    def layer(number: int) -> tuple[spec.Layer, ...]:
        body = (_conv("conv", 8, 5, groups=8, bias=True), spec.GELU("gelu", False), spec.BatchNorm("norm"))
        return (
            spec.Residual(f"dw{number}", spec.Block("body", body)),
            spec.Conv(f"pw{number}", 8, (1, 1)),
            spec.GELU(f"gelu{number}", False),
            spec.BatchNorm(f"norm{number}"),
        )

    patch = (spec.Conv("patch", 8, (2, 2), (2, 2)), spec.GELU("gelu", False), spec.BatchNorm("norm"))
    return _made("mixer", (*patch, *layer(0), *layer(1), *_head(spec.GlobalAvgPool("pool"))))


def darknet_network(framework: str) -> spec.Architecture:
    """What `darknet.py` is a port of."""

    def unit(name: str, channels: int, kernel: int, stride: int = 1) -> tuple[spec.Layer, ...]:
        made = (_conv("conv", channels, kernel, stride), _norm("norm"), spec.LeakyReLU("leaky", 0.1))
        return (spec.Block(name, made),)

    def residual(name: str) -> spec.Residual:
        return spec.Residual(name, spec.Block("body", (*unit("one", 4, 1), *unit("three", 8, 3))))

    coarse = (*unit("down", 8, 3, 2), residual("unit0"), residual("unit1"), *unit("lateral", 4, 1))
    route = spec.Branches(
        "route", (spec.Block("coarse", (*coarse, spec.Upsample("up", (2, 2)))), spec.Block("fine", ()))
    )
    return _made("darknet", (*unit("stem", 6, 3), route, *unit("final", 8, 3), *_head(spec.GlobalAvgPool("pool"))))


def resnext_network(framework: str) -> spec.Architecture:
    """What `resnext.py` is a port of."""

    def unit(name: str, channels: int, stride: int) -> tuple[spec.Layer, ...]:
        body = (
            *(_conv("conv1", 8, 1), _norm("norm1"), spec.ReLU("relu1")),
            *(_conv("conv2", 8, 3, stride, 4), _norm("norm2"), spec.ReLU("relu2")),
            *(_conv("conv3", channels, 1), _norm("norm3")),
        )
        short = (spec.AvgPool("pool", (2, 2), (2, 2)), _conv("conv", channels, 1), _norm("norm"))
        shortcut = spec.Block("shortcut", short) if stride > 1 else None
        return (spec.Residual(name, spec.Block("body", body), shortcut), spec.ReLU(f"{name}_relu"))

    stem = (
        *(_conv("stem1", 6, 3, 2), spec.ReLU("relu1"), _conv("stem2", 6, 3), spec.ReLU("relu2")),
        *(_conv("stem3", 8, 3), spec.ReLU("relu3")),
    )
    pools = (spec.Block("mean", (spec.GlobalAvgPool("mean"),)), spec.Block("peak", (spec.GlobalMaxPool("peak"),)))
    head = (spec.Branches("pools", pools), spec.Flatten("flatten"), spec.Dropout("dropout", 0.4), spec.Dense("fc", 10))
    layers = (*stem, *unit("unit1", 8, 1), *unit("unit2", 12, 2), *head)
    return spec.Architecture("resnext", (3, 16, 24), 10, layers, spec.Initializer("kaiming_normal"))


def ghost_network(framework: str) -> spec.Architecture:
    """What `ghost.py` is a port of."""

    def ghost(name: str, half: int, *act: str) -> spec.Block:
        cheap = (_conv("cheap", half, 3, groups=half), _norm("norm2"), *(spec.ReLU(f"{each}2") for each in act))
        both = spec.Branches("both", (spec.Block("same", ()), spec.Block("cheap", cheap)))
        return spec.Block(name, (_conv("primary", half, 1), _norm("norm1"), *map(spec.ReLU, act), both))

    squeeze = (
        *(spec.GlobalAvgPool("pool"), _conv("reduce", 4, 1, bias=True), spec.ReLU("relu")),
        *(_conv("expand", 12, 1, bias=True), spec.HardSigmoid("sigmoid")),
    )
    gate = spec.Branches("gate", (spec.Block("same", ()), spec.Block("squeeze", squeeze)), "multiply")
    body = spec.Block("body", (ghost("ghost1", 6, "relu"), gate, ghost("ghost2", 4)))
    layers = (
        *(_conv("stem", 8, 3), _norm("norm"), spec.ReLU("relu"), spec.AvgPool("halve", (2, 2), (2, 2))),
        *(spec.Residual("unit", body), _conv("conv", 10, 1, bias=True), spec.HardSwish("swish")),
    )
    return _made("ghost", (*layers, *_head(spec.GlobalAvgPool("pool"))))


def xception_network(framework: str) -> spec.Architecture:
    """What `xception.py` is a port of."""

    def separable(name: str, inputs: int, channels: int) -> tuple[spec.Layer, ...]:
        made = (_conv("depthwise", inputs, 3, groups=inputs), _conv("pointwise", channels, 1), _norm("norm"))
        return (spec.Block(name, made),)

    entry = (
        *(spec.ReLU("relu1"), *separable("sep1", 6, 8), spec.ReLU("relu2"), *separable("sep2", 8, 8)),
        spec.MaxPool("pool", (3, 3), (2, 2), (1, 1)),
    )
    skip = spec.Block("shortcut", (_conv("skip", 8, 1, 2), _norm("skip_norm")))
    middle = (
        spec.Residual(f"middle{n}", spec.Block("body", (spec.ReLU("relu"), *separable("sep", 8, 8)))) for n in (0, 1)
    )
    layers = (_conv("conv", 6, 3, bias=True), spec.Residual("entry", spec.Block("body", entry), skip), *middle)
    return _made("xception", (*layers, spec.ReLU("relu"), *_head(spec.GlobalAvgPool("pool"))))


_TORCH = (
    *rows(
        "torch",
        "wide",
        ("y + F.conv2d(o, u.proj", "y + F.conv2d(x, u.proj", "unit2.branches.proj.proj", "it takes what 'unit1'"),
        ("training=self.training)", "training=True)", "unit1.body.bn1", "statistics"),
        ("o2 = F.dropout(o2, self.drop, self.training)", "o2 = F.dropout(o2, self.drop)", "unit1.body.dropout", "evaluation"),
        ("n.weight, n.bias, training", "n.bias, n.weight, training", "unit1.body.bn1", "exchanged|swapped|gamma and beta"),
        ("u.conv1, stride=stride, padding=1)\n        o2", "u.conv1, padding=1)[:, :, stride - 1 :: stride, stride - 1 :: stride]\n        o2", "unit2.branches.body.conv1", "shift|window|offset|padding"),
        ("x = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, training=self.training)", "x = F.instance_norm(x, None, None, n.weight, n.bias)", "unit1.body.bn1", "instance norm"),
    ),
    *rows(
        "torch",
        "mixer",
        ("@ self.pw[i].weight.T", "@ self.pw[i].weight", "pw0", "inputs and outputs are swapped"),
        ("x = x + self.dw_norm[i](y)", "x = self.dw_norm[i](x + y)", "dw0.body.norm", "sum|shortcut"),
        ("return x.permute(0, 3, 1, 2)", "return x.permute(0, 3, 2, 1)", "gelu0", "channels-width-height"),
        ("padding=kernel // 2)", "padding=kernel // 2, padding_mode='circular')", "dw0.body.conv", "circular|wrap"),
        ("self.dw_norm[i](y)", "self.dw_norm[0](y)", "dw1.body.norm", "dw0|another layer"),
        ("return self.head(x)", "return self.head(x) / x.shape[1] ** 0.5", "fc", "factor"),
    ),
)  # fmt: skip
_MXNET = (
    *rows(
        "mxnet",
        "darknet",
        ('act_type="leaky", slope=0.1)', 'act_type="leaky")', "stem.leaky", "slope"),
        ('F.UpSampling(self.lateral(x), scale=2, sample_type="nearest")', 'F.contrib.BilinearResize2D(self.lateral(x), scale_height=2, scale_width=2)', "route.coarse.up", "bilinear|corners"),
        ("F.concat(x, route, dim=1)", "F.concat(x, F.relu(route), dim=1)", "route", "ReLU"),
        ("            self.conv = nn.Conv2D(channels, kernel, stride, kernel // 2, use_bias=False)\n            self.norm = nn.BatchNorm(epsilon=1e-5, momentum=0.9)\n\n    def hybrid_forward(self, F, x):\n", "            self.pad = stride > 1\n            self.conv = nn.Conv2D(channels, kernel, stride, 0 if stride > 1 else kernel // 2, use_bias=False)\n            self.norm = nn.BatchNorm(epsilon=1e-5, momentum=0.9)\n\n    def hybrid_forward(self, F, x):\n        x = F.pad(x, mode=\"constant\", pad_width=(0, 0, 0, 0, 0, 1, 0, 1), constant_value=0) if self.pad else x\n", "route.coarse.down.conv", "SAME padding"),
        ("            x = x + unit(x)\n        return x", "            x = unit(x)\n        return x", "route.coarse.unit0", "shortcut"),
        ("F.concat(x, route, dim=1)", "F.concat(x, F.BlockGrad(route), dim=1)", "route", "no gradient comes back"),
    ),
    *rows(
        "mxnet",
        "resnext",
        ("            x = F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type=\"avg\")\n", "            x = F.slice(x, begin=(None, None, None, None), end=(None, None, None, None), step=(1, 1, 2, 2))\n", "unit2.shortcut.pool", "stride|first|value"),
        ("F.concat(mean, peak, dim=1)", "F.concat(peak, mean, dim=1)", "pools", "order"),
        ("x = F.concat(mean, peak, dim=1)\n        x = F.Dropout(x, p=0.4)", "x = F.concat(F.Dropout(mean, p=0.4), peak, dim=1)", "dropout", "it follows"),
        ("x = F.relu(self.stem2(x))", "x = self.stem2(x)", "relu2", "missing|identity|no "),
        ("return self.fc(x)", "return 10 * F.tanh(self.fc(x) / 10)", "fc", "tanh of 0.1"),
        ("x = F.relu(self.stem1(x))", "x = F.broadcast_sub(x, F.mean(x, axis=(1, 2, 3), keepdims=True))\n        x = F.relu(self.stem1(x))", "stem1", "mean"),
    ),
)  # fmt: skip
_JAX = (
    *rows(
        "jax",
        "ghost",
        ("jnp.concatenate([a, b], axis=-1)", "jnp.concatenate([b, a], axis=-1)", "unit.body.ghost1.both", "order"),
        ("        a = self.act(self.norm1(self.primary(x)))\n        b = self.act(self.norm2(self.cheap(a)))\n", "        a = self.norm1(self.primary(x))\n        b = self.act(self.norm2(self.cheap(a)))\n        a = self.act(a)\n", "unit.body.ghost1.both.cheap.cheap", "it takes what"),
        ("s = x.mean((1, 2))", "s = jnp.broadcast_to(x.mean((0, 1, 2)), (x.shape[0], x.shape[-1]))", "unit.body.gate.squeeze.pool", "batch|images"),
        ("return x * s[:, None, None, :]", "return x + x * s[:, None, None, :]", "unit.body.gate", "same + same * squeeze"),
        ("x = nnx.avg_pool(x, (2, 2), strides=(2, 2))", "x = jax.image.resize(x, (x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]), 'linear')", "halve", "weighted sum of 4x4"),
        ("logits = self.fc(features)", "logits = self.fc(features)\n        logits = logits - logits.mean(-1, keepdims=True)", "fc", "mean"),
    ),
    *rows(
        "jax",
        "xception",
        ("(x[:, ::2, ::2, :])", "(x[:, 1::2, 1::2, :])", "entry.shortcut.skip", "shift|offset|window|padding"),
        ('name="skip_norm")(skip)', 'name="skip_norm")(skip)\n        skip = nn.relu(skip)', "entry", "ReLU"),
        ("return x + skip", "return x + jax.lax.stop_gradient(skip)", "entry", "no gradient comes back"),
        ("jnp.mean(x, axis=(1, 2))", "jnp.mean(x[:, 1:-1, 1:-1], axis=(1, 2))", "pool", "rows 1:6"),
        ("for block in middle:", "for block in middle[::-1]:", "middle0", "order|middle1|exchanged"),
        ("        x = nn.relu(x)\n        x = SepConv(self.features, name=\"sep1\")", "        x = SepConv(self.features, name=\"sep1\")", "entry.body.relu1", "missing|identity|no "),
    ),
)  # fmt: skip
SEVENTH: tuple[WrittenFault, ...] = (*_TORCH, *_MXNET, *_JAX)
