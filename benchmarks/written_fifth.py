"""A fifth table, of two new networks in each framework: an inverted residual with a gate, and a dense block with a
transposed convolution. Written before anything of the diagnosis was read, of kinds that the four before have not. Where
it told the same in other words, or by the layer before, the row has its words now."""

# ruff: noqa: E501  # a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from written_faults import UNBIASED, WrittenFault, rows

from triptych.spec import layers as spec


def mobile_network(framework: str) -> spec.Architecture:
    """What the ports `mobile.py` are ports of, with running variances as the framework has them."""

    def norm(name: str) -> spec.BatchNorm:
        return spec.BatchNorm(name, unbiased=framework in UNBIASED)

    squeeze = (
        *(spec.GlobalAvgPool("pool"), spec.Conv("reduce", 6, (1, 1)), spec.ReLU("relu")),
        *(spec.Conv("expand", 24, (1, 1)), spec.HardSigmoid("sigmoid")),
    )
    body = (
        *(spec.Conv("expand", 24, (1, 1), bias=False), norm("norm1"), spec.HardSwish("act1")),
        spec.Conv("dwconv", 24, (3, 3), padding=(1, 1), groups=24, bias=False),
        *(norm("norm2"), spec.HardSwish("act2")),
        spec.Branches("gate", (spec.Block("same", ()), spec.Block("squeeze", squeeze)), "multiply"),
        *(spec.Conv("project", 12, (1, 1), bias=False), norm("norm3")),
    )
    layers = (
        *(spec.Conv("stem", 12, (3, 3), (2, 2), (1, 1), bias=False), norm("norm1"), spec.HardSwish("act1")),
        spec.Residual("unit", spec.Block("body", body)),
        *(spec.Conv("down", 16, (3, 3), (2, 2), (1, 1), groups=4), norm("norm2"), spec.SiLU("act2")),
        *(spec.GlobalAvgPool("pool"), spec.Flatten("flatten"), spec.Dense("fc1", 20), spec.Tanh("tanh")),
        *(spec.Dropout("dropout", 0.2), spec.Dense("fc2", 10)),
    )
    return spec.Architecture("mobile", (3, 15, 18), 10, layers, spec.Initializer("kaiming_normal"))


def dense_network(framework: str) -> spec.Architecture:
    """What the ports `dense.py` are ports of, with running variances as the framework has them."""

    def norm(name: str) -> spec.BatchNorm:
        return spec.BatchNorm(name, unbiased=framework in UNBIASED)

    def dense(name: str) -> spec.Branches:
        new = (norm("norm"), spec.ReLU("relu"), spec.Conv("conv", 4, (3, 3), padding=(1, 1)))
        return spec.Branches(name, (spec.Block("same", ()), spec.Block("new", new)))

    layers = (
        *(spec.Conv("conv1", 8, (3, 3), padding=(1, 1)), spec.LeakyReLU("leaky", 0.1)),
        *(spec.MaxPool("pool1", (3, 3), (2, 2), (1, 1)), dense("layer1"), dense("layer2")),
        *(norm("norm"), spec.ReLU("relu"), spec.Conv("transition", 8, (1, 1)), spec.AvgPool("pool2", (2, 2), (2, 2))),
        spec.ConvTranspose("up", 6, (3, 3), (2, 2), (1, 1), (1, 1)),
        *(norm("norm2"), spec.ELU("elu", 1.0), spec.AvgPool("pool3", (2, 2), (2, 2))),
        *(spec.Flatten("flatten"), spec.Dense("fc", 10)),
    )
    return spec.Architecture("dense", (3, 14, 18), 10, layers, spec.Initializer("kaiming_normal"))


_GATE = "unit.body.gate"
_EPS_OUTSIDE = """        y = self.down(x)
        var, mean = torch.var_mean(y, (0, 2, 3), unbiased=False) if self.training else (self.bn.running_var, self.bn.running_mean)
        with torch.no_grad():
            self.training and self.bn(y.detach())
        shape = (1, -1, 1, 1)
        y = (y - mean.view(shape)) / (var.view(shape).sqrt() + 1e-2) * self.bn.weight.view(shape) + self.bn.bias.view(shape)
        x = F.silu(y)
"""
_LATE_RATE = """        optax.scale_by_learning_rate(schedule),
        optax.trace(decay=0.9, nesterov=True),
"""
_LATE = "".join(_LATE_RATE.splitlines(keepends=True)[::-1])
_TORCH = (
    *rows(
        *("torch", "mobile"),
        (
            "F.relu6(self.fc2(scale) + 3) / 6",
            "torch.sigmoid(self.fc2(scale))",
            f"{_GATE}.squeeze.sigmoid",
            "sigmoid is applied|a sigmoid",
        ),
        ("return scale * x", "return (1 + scale) * x", _GATE, "same + same * squeeze"),
        ("return scale * x", "return (1 - scale) * x", _GATE, "same - same * squeeze"),
        ("return scale * x", "return scale.detach() * x", _GATE, "no gradient comes back|gradient"),
        ("        return x + y\n", "        return torch.maximum(x, y)\n", "unit", "the larger of body and shortcut"),
        ("        return x + y\n", "        return (x + y) / 2\n", "unit", "multiplied by 0.5"),
        ("        x = F.silu(self.bn(self.down(x)))\n", _EPS_OUTSIDE, "norm2", "outside|added to the deviation|root"),
        ("x = x.mean((2, 3))", "x = x[:, :, 0, 0]", "pool", "first place|one place|corner|single|first value"),
        ("torch.tanh(self.fc1(x))", "torch.tanh(torch.tanh(self.fc1(x)))", "tanh", "behind it tanh is applied"),
        ("F.dropout(x, 0.2, self.training)", "F.dropout(x, 0.8, self.training)", "dropout", "0.8, not 0.2", True),
        ("self.stem(x)", "self.stem(torch.clamp(x, 0, 1))", "stem", "clipped|bounded|clamp"),
    ),
    *rows(
        *("torch", "dense"),
        ("F.leaky_relu(self.conv1(x), 0.1)", "F.leaky_relu(self.conv1(x), -0.1)", "leaky", "-0.1"),
        ("        x = self.pool(x)\n", "        x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)\n", "pool1", "zero"),
        (
            "        x = self.layer2(x)\n",
            "        x = self.layer2(torch.cat([x[:, 4:], x[:, :4]], 1))\n",
            "layer1",  # whose output is changed on the way
            "roll|order",
        ),
        ("F.elu(self.bn(self.up(x)))", "F.elu(self.bn(self.up(x)).round(decimals=1))", "norm2", "round"),
        ("self.transition(F.relu(self.norm(x)))", "self.transition(self.norm(F.relu(x)))", "norm", "comes before"),
        ("        x = x.flatten(1)\n", "        x = x.flip(3).flatten(1)\n", "pool3", "mirrored|flipped|reverse"),
        ("return self.fc(x)", "return self.fc(x) / 72**0.5", "fc", "factor 0.11"),
    ),
    *rows(
        *("torch", "trained"),
        ('group["weight_decay"] * p\n', 'group["weight_decay"] * p * (p.dim() > 1)\n', "conv1", "bias"),
        (
            "F.nll_loss(F.log_softmax(outputs, dim=1), labels)",
            "F.cross_entropy(outputs, labels, label_smoothing=0.1)",
            "dense3",
            "smooth",
        ),
        (
            'g = p.grad + group["weight_decay"] * p',
            'g = p.grad.clamp(-0.01, 0.01) + group["weight_decay"] * p',
            "conv1",
            "clipped|bounded|clamp",
        ),
    ),
)
_MXNET = (
    *rows(
        *("mxnet", "mobile"),
        (
            "        w = F.clip(w + 3, 0, 6) / 6\n",
            "        w = F.hard_sigmoid(w)\n",
            f"{_GATE}.squeeze.sigmoid",
            "slope 0.2|slope is 0.2|0.2",
        ),
        (
            "        w = F.contrib.AdaptiveAvgPooling2D(x, output_size=1)\n",
            "        w = F.max(x, axis=(2, 3), keepdims=True)\n",
            f"{_GATE}.squeeze.pool",
            "maximum for average",
        ),
        (
            "        w = F.contrib.AdaptiveAvgPooling2D(x, output_size=1)\n",
            "        w = F.mean(x, axis=3, keepdims=True)\n",
            f"{_GATE}.squeeze.pool",
            "columns|row",
        ),
        ("x * F.clip(x + 3, 0, 6) / 6", "x * F.clip(x + 3, 0, 6)", "act1", "factor 6"),
        ("F.broadcast_mul(x, w)", "F.broadcast_mul(x, 2 * w)", _GATE, "factor 2|2 same"),
        ("        return x + y\n", "        return x - y\n", "unit", "subtracted|factor -1|-1"),
        ("x * F.sigmoid(x)", "x * F.sigmoid(1.702 * x)", "act2", "1.702|quick"),
    ),
    *rows(
        *("mxnet", "dense"),
        ("F.concat(x, new, dim=1)", "F.concat(F.relu(x), new, dim=1)", "layer1", "activation|ReLU"),
        ("self.bn(self.up(x))", "self.bn(F.flip(self.up(x), axis=2))", "up", "flipped|upside|mirrored|reverse"),
        ("nn.ELU(1.0)", "nn.SELU()", "elu", "SELU"),
    ),
    *rows(
        *("mxnet", "trained"),
        ("step=3", "step=4", "conv1", "step"),
        ("epsilon=1e-8", "epsilon=1e-3", "conv1", "epsilon|eps is|0.001"),
        ("/ 255.0", "/ 127.5", "input", "127.5|twice|by 2|factor 2"),
    ),
)
_JAX = (
    *rows(
        *("jax", "mobile"),
        ("return x * nn.hard_sigmoid(s)", "return x * nn.softmax(s)", f"{_GATE}.squeeze.sigmoid", "softmax"),
        ("        x = x + y\n", "        x = x + jax.lax.stop_gradient(y)\n", "unit", "gradient"),
        (
            "        x = x + y\n",
            "        x = x + y + y\n",
            "unit",
            "multiplied by 2|twice|scale is 2|factor 2|shortcut + 2 body",
        ),
        (
            "x = nn.silu(norm()(x))",
            "x = norm()(x)\n        x = x + jax.lax.stop_gradient(nn.silu(x) - x)",
            "act2",
            "straight|gradient of|identity",
        ),
        ("x = x.mean(axis=(1, 2))", "x = x.mean(axis=(1, 2)) * x.shape[0] / 8", "pool", "batch"),
        (
            "nn.Dropout(0.2, deterministic=not train)(x)",
            "(nn.Dropout(0.2, deterministic=not train)(x) * (0.8 if train else 1))",
            "dropout",
            "not scaled|0.8|divided",
        ),
        ("return nn.Dense(10)(x)", "return -nn.Dense(10)(x)", "fc2", "sign|factor -1|negat"),
    ),
    *rows(
        *("jax", "dense"),
        (
            "nnx.leaky_relu(self.conv1(x), 0.1)",
            "nnx.leaky_relu(self.conv1(x) + self.conv1.bias[...], 0.1)",
            "conv1",
            "twice|multiplied by 2",
        ),
        ("padding=((1, 1), (1, 1)))", "padding=((0, 2), (0, 2)))", "pool1", "shift|(0, 2|one side|window|right"),
        (
            "        x = self.layer2(x)\n",
            "        x = self.layer2(jnp.roll(x, 1, axis=-1))\n",
            "layer1",  # whose output is changed on the way
            "roll|order",
        ),
        (
            "        x = nnx.avg_pool(x, (2, 2), strides=(2, 2))\n        x = nnx.elu",
            "        x = x[:, ::2, ::2][:, :3, :4]\n        x = nnx.elu",
            "pool2",
            "every second|first|subsampl|strided|one value",
        ),
        ("nnx.elu(self.bn(self.up(x)))", "nnx.elu(self.bn(jnp.roll(self.up(x), 1, axis=1)))", "up", "roll|shift"),
        (
            "        x = x.reshape(len(x), -1)\n",
            "        x = x[:, ::-1].reshape(len(x), -1)\n",
            "pool3",
            "upside|flipped|mirrored|reverse",
        ),
    ),
    *rows(
        *("jax", "trained"),
        (_LATE, _LATE_RATE, "conv1", "velocity|learning rate"),
        ("add_decayed_weights(5e-4)", "add_decayed_weights(1e-3)", "conv1", "decay"),
        (
            "(x - 0.2860) / 0.3530",
            "(x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)",
            "input",
            "each image|every image|its own",
        ),
    ),
)
FIFTH: tuple[WrittenFault, ...] = (*_TORCH, *_MXNET, *_JAX)
