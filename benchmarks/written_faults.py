"""The faults planted in the ports of `benchmarks/written/`: an edit of a right port each."""

# ruff: noqa: E501  # a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from triptych.spec import layers as spec

_SMALL = "--width-ratio 16 --resolution 64 --classes 10"
_BESIDE = "--left-preprocess {name}:preprocess --right-preprocess 'mean=0.2860 std=0.3530' --left-loss {name}:criterion"
# What trains the ports `trained.py`; MXNet rescales gradients by the batch, and so does its own optimiser.
TRAINED = {
    name: f"{_BESIDE} --left-optimizer {{name}}:optimizer --right-optimizer '{kind} step:every=3,factor=0.1'"
    for name, kind in {
        "torch": "sgd:learning_rate=0.05,momentum=0.9,weight_decay=5e-4",
        "mxnet": "adam:learning_rate=0.002,beta2=0.99,eps_added=before",
        "jax": "sgd:learning_rate=0.05,momentum=0.9,nesterov=true,weight_decay=5e-4",
    }.items()
}
# By framework and port, the network that it is a port of, with options of `locate`.
PORTS = {
    ("torch", "lenet"): "lenet",
    ("torch", "lenet_functional"): "lenet_dropout",
    ("torch", "vgg"): "vgg11_bn --width-ratio 16 --resolution 32 --classes 10",
    ("torch", "resnet"): f"resnet18_v1b {_SMALL}",
    ("torch", "mobilenet_v2"): "mobilenet_v2 --width-ratio 8 --resolution 64 --classes 10",
    ("torch", "alexnet"): "alexnet_2012 --width-ratio 16 --resolution 99 --classes 10",
    ("torch", "nin_nhwc"): "nin --width-ratio 8 --resolution 139 --layout NHWC",
    ("torch", "googlenet"): "googlenet_d2l --width-ratio 8",
    ("torch", "squeezenet"): "squeezenet1.1 --width-ratio 8 --resolution 67 --classes 10",
    ("torch", "shuffle"): "shuffle.json",
    ("mxnet", "lenet"): "lenet",
    ("mxnet", "lenet_hybrid"): "lenet_dropout",
    ("mxnet", "vgg"): "vgg11 --width-ratio 16 --resolution 32 --classes 10",
    ("mxnet", "resnet"): f"resnet18_v1 {_SMALL}",
    ("mxnet", "mobilenet"): "mobilenet0.25 --width-ratio 4 --resolution 64 --classes 10",
    ("mxnet", "alexnet"): "alexnet_2012 --width-ratio 16 --resolution 99 --classes 10 --precision fp32",
    ("mxnet", "googlenet"): "googlenet_d2l --width-ratio 8",
    ("mxnet", "nin"): "nin --width-ratio 8 --resolution 139",
    ("mxnet", "squeezenet"): "squeezenet1.1 --width-ratio 8 --resolution 67 --classes 10",
    ("mxnet", "shuffle"): "shuffle.json",
    ("jax", "lenet"): "lenet",
    ("jax", "lenet_pure"): "lenet_relu --layout NCHW",
    ("jax", "vgg"): "vgg11 --width-ratio 16 --resolution 32 --classes 10",
    ("jax", "resnet"): f"resnet18_v1 {_SMALL}",
    ("jax", "mobilenet"): "mobilenet0.25 --width-ratio 4 --resolution 64 --classes 10",
    ("jax", "googlenet"): "googlenet_d2l --width-ratio 8",
    ("jax", "alexnet"): "alexnet_2012 --width-ratio 16 --resolution 99 --classes 10",
    ("jax", "nin"): "nin --width-ratio 8 --resolution 139",
    ("jax", "squeezenet"): "squeezenet1.1 --width-ratio 8 --resolution 67 --classes 10",
    ("jax", "shuffle"): "shuffle.json",
    **{(name, "decoder"): "decoder.json" for name in ("torch", "jax")},
    ("mxnet", "decoder"): "decoder.json --precision fp32",  # as MXNet has PReLU and ELU, whatever they are given
    **{(name, port): f"{port}.json" for name in ("torch", "mxnet", "jax") for port in ("mobile", "dense")},
    **{("torch", port): f"{port}.json" for port in ("wide", "mixer")},
    ("mxnet", "darknet"): "darknet.json --precision fp32",  # LeakyReLU's slope
    ("mxnet", "resnext"): "resnext.json",
    **{("jax", port): f"{port}.json" for port in ("ghost", "xception")},
    ("mxnet", "dense"): "dense.json --precision fp32",  # LeakyReLU's slope
    **{(name, "trained"): f"lenet_relu {words}" for name, words in TRAINED.items()},
    ("torch", "converted"): "{name}:source --left-weights own --input 3x10x14",
    **{(name, "converted"): "{name}:source --left-weights own --input 3x10x12" for name in ("mxnet", "jax")},
}


@dataclass(frozen=True)
class WrittenFault:
    """`old` becomes `new` in a port's source (once). It shows first at `layer`, and `cause` is in what is said of it;
    `argument`: an argument of a call is the cause, so that an edit is asked for."""

    framework: str
    port: str
    old: str
    new: str
    layer: str
    cause: str
    argument: bool = False


UNBIASED = ("torch",)  # frameworks whose running variance divides by one less than the number of values


def shuffle_network(framework: str) -> spec.Architecture:
    """What the ports `shuffle.py` are ports of, with running variances and the L2 norm as the framework has them."""
    unbiased = framework in UNBIASED

    def conv(name: str, kernel: int, groups: int) -> spec.Conv:
        pad = kernel // 2
        return spec.Conv(name, 12, (kernel, kernel), padding=(pad, pad), groups=groups, bias=False)

    body = (
        *(conv("gconv1", 1, 3), spec.BatchNorm("norm1", unbiased=unbiased), spec.ReLU("relu1")),
        *(spec.ChannelShuffle("shuffle", 3), conv("dwconv", 3, 12), spec.BatchNorm("norm2", unbiased=unbiased)),
        *(conv("gconv2", 1, 3), spec.BatchNorm("norm3", unbiased=unbiased)),
    )
    norm = spec.L2Normalize("norm", 1e-12, bound=True) if unbiased else spec.L2Normalize("norm", 1e-10)
    layers = (
        *(spec.Conv("stem", 12, (3, 3), (2, 2), (1, 1)), spec.Tanh("tanh")),
        *(spec.Residual("unit", spec.Block("body", body)), spec.ReLU("relu"), norm, spec.Affine("scale", (20.0,))),
        *(spec.Conv("dilated", 8, (3, 3), padding=(2, 2), dilation=(2, 2)), spec.ReLU("relu2")),
        *(spec.GlobalAvgPool("pool"), spec.Flatten("flatten"), spec.Dense("fc", 10)),
    )
    return spec.Architecture("shuffle", (3, 13, 14), 10, layers, spec.Initializer("kaiming_normal"))


def decoder_network(framework: str) -> spec.Architecture:
    """What the ports `decoder.py` are ports of, with running variances as the framework has them."""

    def conv(name: str, channels: int, kernel: int, **options: Any) -> spec.Conv:
        pad = kernel // 2
        return spec.Conv(name, channels, (kernel, kernel), padding=(pad, pad), **options)

    coarse = (
        spec.AvgPool("pool", (3, 3), (2, 2), ceil=True, count_padding=False),
        *(conv("dwconv", 8, 5, groups=8, bias=False), spec.BatchNorm("norm", unbiased=framework in UNBIASED)),
        *(spec.PReLU("prelu", shared=True), spec.ConvTranspose("up", 6, (4, 4), (2, 2), (1, 1))),
    )
    squeeze = (
        *(spec.GlobalAvgPool("pool"), conv("reduce", 4, 1), spec.ReLU("relu")),
        *(conv("expand", 14, 1), spec.Sigmoid("sigmoid")),
    )
    body = spec.Block("body", (conv("conv1", 8, 3), spec.ELU("elu", 1.0), conv("conv2", 8, 3)))
    layers = (
        *(conv("conv1", 8, 3), spec.PReLU("prelu1")),
        spec.Branches("skip", (spec.Block("fine", ()), spec.Block("coarse", coarse))),
        spec.Branches("gate", (spec.Block("same", ()), spec.Block("squeeze", squeeze)), "multiply"),
        *(conv("mix", 8, 3, stride=(2, 2)), spec.LeakyReLU("leaky", 0.1), spec.Residual("unit", body, scale=0.2)),
        *(spec.GlobalAvgPool("pool"), spec.Flatten("flatten"), spec.Dropout("dropout", 0.3), spec.Dense("fc", 10)),
    )
    return spec.Architecture("decoder", (3, 14, 18), 10, layers, spec.Initializer("kaiming_normal"))


def rows(
    framework: str, port: str, *rows: tuple[str, str, str, str] | tuple[str, str, str, str, bool]
) -> tuple[WrittenFault, ...]:
    return tuple(WrittenFault(framework, port, *row) for row in rows)


_RELU_LAST = """            x = torch.relu(conv(x))
            if i in (2, 5, 8):
                x = max_pool(x)
            if i == 8:
                x = self.dropout(x)
        return x.mean(dim=(1, 2))
"""
_SUMMED_LATE = """        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out = out + identity
"""
_SUMMED_EARLY = """        out = self.conv2(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out = self.bn2(out + identity)
"""
_FROZEN = """
    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


network = VGG
"""
_STANDARDISED = """        w = self.stem.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        x = torch.tanh(F.conv2d(x, w, self.stem.bias, stride=2, padding=1))
"""
_STANDARDISED_JAX = """        kernel = self.dilated.kernel[...]
        mean, var = kernel.mean((0, 1, 2)), kernel.var((0, 1, 2))
        kernel = (kernel - mean) / jnp.sqrt(var + 1e-5)
        pad = ((2, 2), (2, 2))
        x = lax.conv_general_dilated(x, kernel, (1, 1), pad, rhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = nnx.relu(x + self.dilated.bias[...])
"""
_TORCH = (
    *rows(
        *("torch", "lenet"),
        (
            "nn.Sigmoid(),\n        nn.Linear(120, 84)",
            "nn.Softsign(),\n        nn.Linear(120, 84)",
            "sigmoid3",
            "softsign",
        ),
        ("nn.AvgPool2d(", "nn.MaxPool2d(", "pool1", "maximum for average pooling"),
    ),
    *rows(
        *("torch", "lenet_functional"),
        ("self.conv1(x)", "self.conv1(x.transpose(2, 3))", "conv1", "rows and columns are swapped"),
        ("F.relu(self.fc1(x)), 0.5, self.training", "F.relu(self.fc1(x)), 0.5", "dropout1", "in evaluation"),
    ),
    *rows(
        *("torch", "vgg"),
        (
            "nn.BatchNorm2d(v)",
            "nn.BatchNorm2d(v, momentum=0.01)",
            "block1.norm1",
            "the momentum is 0.01, not 0.1",
            True,
        ),
        ("\n\nnetwork = VGG\n", _FROZEN, "block1.norm1", "evaluation mode for training"),
    ),
    *rows(
        *("torch", "resnet"),
        (_SUMMED_LATE, _SUMMED_EARLY, "stage1.unit1.residual.body.norm2", "added before"),
        (
            "padding=1, bias",
            "padding=1, padding_mode='reflect', bias",
            "stage1.unit1.residual.body.conv1",
            "by reflection",
        ),
    ),
    *rows(
        *("torch", "mobilenet_v2"),
        ("nn.ReLU6(", "nn.ReLU(", "relu1", "the upper bound is missing"),
        ("stride == 1 and inp == oup", "False", "bottleneck3", "the shortcut is missing"),
    ),
    *rows(
        *("torch", "alexnet"),
        ("alpha=5e-4", "alpha=1e-4", "lrn1", "alpha divided by n", True),
        (
            "nn.ReLU(),\n            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),",
            "nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),\n            nn.ReLU(),",
            "relu1",
            "'lrn1' comes before 'relu1'",
        ),
    ),
    *rows(
        *("torch", "nin_nhwc"),
        (
            _RELU_LAST,
            _RELU_LAST.replace("torch.relu(conv(x))", "conv(x) if i == 11 else torch.relu(conv(x))").replace(
                "return x.mean(dim=(1, 2))", "return torch.relu(x.mean(dim=(1, 2)))"
            ),
            "block4.relu3",
            "'pool4' comes before 'block4.relu3'",
        ),
        ("0, 3, 1, 2), 3, 2)", "0, 3, 1, 2), 3, 2, 1)", "pool1", "the padding is (1, 1), not (0, 0)", True),
    ),
    *rows(
        *("torch", "googlenet"),
        ("(b1, b2, b3, b4)", "(b1, b2, b4, b3)", "inception3a", "branch1x1, branch3x3, branch_pool, branch5x5"),
        ("nn.MaxPool2d(3, stride=1", "nn.AvgPool2d(3, stride=1", "inception3a.branch_pool.pool", "average for maximum"),
    ),
    *rows(
        *("torch", "squeezenet"),
        (
            "Fire(16, 2, 8),\n            nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),",
            "Fire(16, 2, 8),\n            nn.MaxPool2d(kernel_size=3, stride=2),",
            *("pool5", "floor for ceil", True),
        ),
        (
            "return torch.flatten(x, 1)",
            "return torch.softmax(torch.flatten(x, 1), dim=1)",
            "flatten",
            "softmax is applied",
        ),
    ),
    *rows(
        *("torch", "shuffle"),
        ("y = channel_shuffle(y, 3)", "pass", "unit.body.shuffle", "the channels are not shuffled"),
        ("        x = torch.tanh(self.stem(x))\n", _STANDARDISED, "stem", "standardised"),
    ),
)
_MXNET = (
    *rows(
        *("mxnet", "lenet"),
        ('nn.Dense(84, activation="sigmoid")', 'nn.Dense(84, activation="softsign")', "sigmoid4", "softsign"),
        ("kernel_size=5, padding=2", "kernel_size=5", "conv1", "the padding is (0, 0), not (2, 2)", True),
    ),
    *rows(
        *("mxnet", "lenet_hybrid"),
        ("self.dense1(x)", "self.dense1(F.BlockGrad(x))", "dense1", "no gradient comes back from 'dense1'"),
        ("self.dense1(x)), p=0.5", 'self.dense1(x)), p=0.5, mode="always"', "dropout1", "in evaluation"),
    ),
    *rows(
        *("mxnet", "vgg"),
        ("x = self.features(x)", "x = self.features(F.flip(x, axis=1))", "block1.conv1", "BGR for RGB"),
        ("rate=0.5", "rate=0.4", "dropout1", "the rate is 0.4, not 0.5", True),
    ),
    *rows(
        *("mxnet", "resnet"),
        (
            "nn.BatchNorm()",
            "nn.BatchNorm(use_global_stats=True)",
            "stage1.unit1.residual.body.norm1",
            "evaluation mode for",
        ),
        (
            'F.Activation(x + residual, act_type="relu")',
            'F.Activation(x, act_type="relu") + residual',
            "stage1.unit1.residual",
            "comes before the addition",
        ),
    ),
    *rows(
        *("mxnet", "mobilenet"),
        ("nn.BatchNorm(scale=True)", "nn.BatchNorm(scale=False)", "norm1", "gamma is"),
        (
            "kernel=3, stride=stride, pad=1, groups=dw_channels)\n    _conv(out, channels)",
            "kernel=3, pad=1, groups=dw_channels)\n    _conv(out, channels, stride=stride)",
            "separable2.conv1",
            "the stride is (1, 1), not (2, 2)",
        ),
    ),
    *rows(
        *("mxnet", "alexnet"),
        ("knorm=2", "knorm=1", "lrn1", "k is 1, not 2", True),
        ('act_type="relu"', 'act_type="softrelu"', "relu1", "softplus is applied"),
    ),
    *rows(
        *("mxnet", "googlenet"),
        (
            "self.p1_1(x)",
            "self.p1_1(x + 0.1 * F.random.normal_like(x))",
            "inception3a.branch1x1.conv1",
            "random numbers",
        ),
        ("nn.GlobalAvgPool2D()", "nn.GlobalMaxPool2D()", "pool5", "maximum for average pooling"),
    ),
    *rows(
        *("mxnet", "nin"),
        (
            'x = block(x, "two", 32, 5, 1, 2)\n    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", '
            'pooling_convention="valid")',
            'x = block(x, "two", 32, 5, 1, 2)\n    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", '
            'pooling_convention="full")',
            *("pool2", "ceil for floor", True),
        ),
        ('pool_type="max"', 'pool_type="avg"', "pool1", "average for maximum pooling"),
    ),
    *rows(
        *("mxnet", "squeezenet"),
        ("return F.flatten(x)", "return F.softmax(F.flatten(x))", "flatten", "softmax is applied"),
        ("self.left(x), self.right(x)", "self.right(x), self.left(x)", "fire3.expand", "in the order three, one"),
    ),
    *rows(
        *("mxnet", "shuffle"),
        (
            'F.L2Normalization(x, mode="channel")',
            "F.broadcast_div(x, F.norm(x, axis=1, keepdims=True))",
            *("norm", "eps is 0, not 1e-10"),
        ),
        ("(0, -4, 3, -1, -2)", "(0, -4, 4, -1, -2)", "unit.body.shuffle", "the channels are shuffled back"),
    ),
)
_JAX = (
    *rows(
        *("jax", "lenet"),
        ("nnx.sigmoid(self.dense1(x))", "nnx.gelu(self.dense1(x))", "sigmoid3", "GELU is applied, in its tanh form"),
        ("nnx.sigmoid(self.dense2(x))", "nnx.hard_sigmoid(self.dense2(x))", "sigmoid4", "a hard sigmoid of slope 1/6"),
    ),
    *rows(
        *("jax", "lenet_pure"),
        (
            "x.reshape(x.shape[0], -1)",
            "lax.stop_gradient(x.reshape(x.shape[0], -1))",
            "dense1",
            "no gradient comes back",
        ),
        ("return total / 4", "return total", "pool1", "constant factor 4"),
    ),
    *rows(
        *("jax", "vgg"),
        ("nn.Dropout(0.5", "nn.Dropout(0.25", "dropout1", "the rate is 0.25, not 0.5", True),
        ("nn.relu(x)", "nn.leaky_relu(x)", "block1.relu1", "a leaky ReLU is applied, slope 0.01"),
    ),
    *rows(
        *("jax", "resnet"),
        ("strides=(2, 2), padding=((1, 1), (1, 1))", 'strides=(2, 2), padding="SAME"', "pool1", "SAME padding", True),
        ("epsilon=1e-5", "epsilon=1e-3", "norm1", "eps is 0.001, not 1e-05", True),
    ),
    *rows(
        *("jax", "mobilenet"),
        ("strides=2, padding=1", "strides=2, padding='SAME'", "conv1", "SAME padding", True),
        ("use_running_average=not train", "use_running_average=True", "norm1", "evaluation mode for training"),
    ),
    *rows(
        *("jax", "googlenet"),
        ("(b1, b2, b3, b4)", "(b1, b2, b4, b3)", "inception3a", "branch1x1, branch3x3, branch_pool, branch5x5"),
        ("padding=3)(x)", "padding=3)(x / 255.0)", "conv1", "scaled by 1 / 255"),
    ),
    *rows(
        *("jax", "alexnet"),
        ("alpha * total", "alpha / size * total", "lrn1", "alpha divided by n"),
        ("x = x.reshape(", "x = x.transpose((0, 2, 1, 3)).reshape(", "flatten", "height and width swapped"),
    ),
    *rows(
        *("jax", "nin"),
        ("x.mean(axis=(1, 2))", "x.max(axis=(1, 2))", "pool4", "maximum for average pooling"),
        ('11, 4, "VALID"', '11, 4, "SAME"', "block1.conv1", "the padding is (4, 4), not (0, 0)", True),
    ),
    *rows(
        *("jax", "squeezenet"),
        (", padding=rest)", ")", "pool5", "floor for ceil"),
        ("return x.mean(axis=(1, 2))", "return nnx.softmax(x.mean(axis=(1, 2)))", "flatten", "softmax is applied"),
    ),
    *rows(
        *("jax", "shuffle"),
        ("axis=-1, keepdims=True)", "axis=(1, 2), keepdims=True)", "norm", "over"),
        ("        x = nnx.relu(self.dilated(x))\n", _STANDARDISED_JAX, "dilated", "standardised"),
    ),
)
FAULTS = (*_TORCH, *_MXNET, *_JAX)
