"""The catalogue of faults in ports: an edit of a right port's source each, with the layer and the cause that it is.

Right ports of one small network, in each framework's idiom; `benchmarks/locate_faults.py` plants the faults.
"""

# ruff: noqa: E501  # a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from dataclasses import dataclass

from triptych.spec.layers import (
    Architecture,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Initializer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
)

NAMES = ("torch", "mxnet", "jax")


def network(unbiased: bool) -> Architecture:
    """What the ports are ports of; `unbiased` as the framework keeps running variances."""
    body = (
        *(Conv("conv1", 8, (3, 3), padding=(1, 1), bias=False), BatchNorm("norm1", unbiased=unbiased), ReLU("relu")),
        *(Conv("conv2", 8, (3, 3), padding=(1, 1), bias=False), BatchNorm("norm2", unbiased=unbiased)),
    )
    branches = (Block("one", (Conv("conv", 4, (1, 1)),)), Block("three", (Conv("conv", 6, (3, 3), padding=(1, 1)),)))
    layers = (
        *(Conv("conv1", 8, (5, 5), padding=(2, 2)), BatchNorm("norm1", unbiased=unbiased), ReLU("relu1")),
        *(MaxPool("pool1", (3, 3), (2, 2)), Residual("unit", Block("body", body)), ReLU("relu2")),
        *(
            Branches("mixed", branches),
            ReLU("relu3"),
            Conv("conv2", 12, (3, 3), (1, 1), (1, 1), groups=2),
            ReLU("relu4"),
        ),
        *(LocalResponseNorm("lrn", 5, 1e-2, 0.75, 2.0, True), AvgPool("pool2", (2, 2), (2, 2), (0, 0), False, True)),
        *(Flatten("flatten"), Dense("fc1", 16), ReLU("relu5"), Dropout("dropout", 0.5), Dense("fc2", 5)),
    )
    return Architecture("net", (3, 12, 11), 5, layers, Initializer("kaiming_normal"))


TORCH = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, padding=2)
        self.norm1 = nn.BatchNorm2d(8)
        self.pool1 = nn.MaxPool2d(3, 2)
        self.unit1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.unit_norm1 = nn.BatchNorm2d(8)
        self.unit2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.unit_norm2 = nn.BatchNorm2d(8)
        self.one = nn.Conv2d(8, 4, 1)
        self.three = nn.Conv2d(8, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(10, 12, 3, padding=1, groups=2)
        self.lrn = nn.LocalResponseNorm(5, alpha=1e-2, beta=0.75, k=2.0)
        self.pool2 = nn.AvgPool2d(2, 2)
        self.fc1 = nn.LazyLinear(16)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(16, 5)

    def forward(self, x):
        x = self.conv1(x)
        x = F.relu(self.norm1(x))
        x = self.pool1(x)
        y = F.relu(self.unit_norm1(self.unit1(x)))
        y = self.unit_norm2(self.unit2(y))
        x = torch.relu(x + y)
        x = torch.cat([self.one(x), self.three(x)], dim=1)
        x = self.conv2(F.relu(x))
        x = self.lrn(F.relu(x))
        x = self.pool2(x)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return self.fc2(self.dropout(x))
"""

MXNET = """
import mxnet as mx
from mxnet import gluon
from mxnet.gluon import nn


class Net(gluon.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv1 = nn.Conv2D(8, 5, padding=2)
            self.norm1 = nn.BatchNorm()
            self.pool1 = nn.MaxPool2D(3, 2)
            self.unit1 = nn.Conv2D(8, 3, padding=1, use_bias=False)
            self.unit_norm1 = nn.BatchNorm()
            self.unit2 = nn.Conv2D(8, 3, padding=1, use_bias=False)
            self.unit_norm2 = nn.BatchNorm()
            self.one = nn.Conv2D(4, 1)
            self.three = nn.Conv2D(6, 3, padding=1)
            self.conv2 = nn.Conv2D(12, 3, padding=1, groups=2)
            self.pool2 = nn.AvgPool2D(2, 2)
            self.fc1 = nn.Dense(16)
            self.dropout = nn.Dropout(0.5)
            self.fc2 = nn.Dense(5)

    def lrn(self, F, x):  # F.LRN is there in float32 only
        squares = F.square(x)
        edge = F.zeros_like(F.slice_axis(squares, axis=1, begin=0, end=2))
        squares = F.concat(edge, squares, edge, dim=1)
        total = F.add_n(*[F.slice_axis(squares, axis=1, begin=i, end=i + 12) for i in range(5)])
        return x * (2.0 + 1e-2 / 5 * total) ** -0.75

    def hybrid_forward(self, F, x):
        x = self.conv1(x)
        x = F.relu(self.norm1(x))
        x = self.pool1(x)
        y = F.relu(self.unit_norm1(self.unit1(x)))
        y = self.unit_norm2(self.unit2(y))
        x = F.Activation(x + y, act_type="relu")
        x = F.concat(self.one(x), self.three(x), dim=1)
        x = self.conv2(F.relu(x))
        x = self.lrn(F, F.relu(x))
        x = self.pool2(x)
        x = F.flatten(x)
        x = F.relu(self.fc1(x))
        return self.fc2(self.dropout(x))
"""

JAX = """
import jax
import jax.numpy as jnp
from flax import nnx


def norm(rngs):
    return nnx.BatchNorm(8, momentum=0.9, epsilon=1e-5, rngs=rngs)


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv1 = nnx.Conv(3, 8, (5, 5), padding=2, rngs=rngs)
        self.norm1 = norm(rngs)
        self.unit1 = nnx.Conv(8, 8, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.unit_norm1 = norm(rngs)
        self.unit2 = nnx.Conv(8, 8, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.unit_norm2 = norm(rngs)
        self.one = nnx.Conv(8, 4, (1, 1), rngs=rngs)
        self.three = nnx.Conv(8, 6, (3, 3), padding=1, rngs=rngs)
        self.conv2 = nnx.Conv(10, 12, (3, 3), padding=1, feature_group_count=2, rngs=rngs)
        self.fc1 = nnx.Linear(48, 16, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.fc2 = nnx.Linear(16, 5, rngs=rngs)

    def lrn(self, x):
        squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (2, 2)))
        total = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
        return x * (2.0 + 1e-2 / 5 * total) ** -0.75

    def __call__(self, x):
        x = self.conv1(x)
        x = nnx.relu(self.norm1(x))
        x = nnx.max_pool(x, (3, 3), (2, 2))
        y = nnx.relu(self.unit_norm1(self.unit1(x)))
        y = self.unit_norm2(self.unit2(y))
        x = nnx.relu(x + y)
        x = jnp.concatenate([self.one(x), self.three(x)], axis=-1)
        x = self.conv2(nnx.relu(x))
        x = self.lrn(nnx.relu(x))
        x = nnx.avg_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nnx.relu(self.fc1(x))
        return self.fc2(self.dropout(x))
"""
SOURCES = {"torch": TORCH, "mxnet": MXNET, "jax": JAX}


@dataclass(frozen=True)
class PortFault:
    """`old` becomes `new` in a port's source (once); `layer` is where it shows first, and `cause` is in what is said of
    it; an empty one: none can be known."""

    framework: str
    old: str
    new: str
    layer: str
    cause: str


def _rows(framework: str, *rows: tuple[str, str, str, str]) -> tuple[PortFault, ...]:
    return tuple(PortFault(framework, *row) for row in rows)


ACTIVATIONS = {
    "relu6": "ReLU6 is applied",
    "gelu": "GELU is applied",
    "silu": "SiLU is applied",
    "elu": "ELU is applied",
    "leaky_relu": "a leaky ReLU is applied, slope 0.01",
    "sigmoid": "a sigmoid is applied",
    "tanh": "tanh is applied",
    "softplus": "softplus is applied",
    "selu": "SELU is applied",
    "hardswish": "hard-swish is applied",
}
PLACES = {
    "relu1": ("F.relu(self.norm1(x))", "F.{}(self.norm1(x))"),
    "unit.body.relu": ("F.relu(self.unit_norm1(", "F.{}(self.unit_norm1("),
    "relu3": ("self.conv2(F.relu(x))", "self.conv2(F.{}(x))"),
    "relu5": ("F.relu(self.fc1(x))", "F.{}(self.fc1(x))"),
}
_TORCH_ACTIVATIONS = tuple(
    PortFault("torch", old, new.format(name), layer, cause)
    for layer, (old, new) in PLACES.items()
    for name, cause in ACTIVATIONS.items()
)
_TORCH = _rows(
    "torch",
    ("x = F.relu(self.norm1(x))", "x = self.norm1(x)", "relu1", "the layer is missing"),
    ("x = F.relu(self.fc1(x))", "x = self.fc1(x)", "relu5", "the layer is missing"),
    ("3, 8, 5, padding=2", "3, 8, 5, padding=1", "conv1", "the padding is (1, 1), not (2, 2)"),
    ("3, 8, 5, padding=2", "3, 8, 5", "conv1", "the padding is (0, 0), not (2, 2)"),
    ("3, 8, 5, padding=2", "3, 8, 5, padding=3", "conv1", "the padding is (3, 3), not (2, 2)"),
    ("padding=2)", "padding=2, padding_mode='reflect')", "conv1", "padded by reflection"),
    ("padding=2)", "padding=2, padding_mode='replicate')", "conv1", "edge values (replicate)"),
    ("padding=2)", "padding=2, padding_mode='circular')", "conv1", "(circular)"),
    ("8, 6, 3, padding=1)", "8, 6, 3, padding=1, padding_mode='reflect')", "mixed.three.conv", "padded by reflection"),
    ("12, 3, padding=1, groups=2)", "12, 3, padding=1, groups=2, padding_mode='replicate')", "conv2", "edge values"),
    ("3, 8, 5, padding=2)", "3, 8, 5, padding=2, stride=2)", "conv1", "the stride is (2, 2), not (1, 1)"),
    (
        "x = self.conv1(x)",
        "x = F.conv2d(x, self.conv1.weight.flip(2, 3), self.conv1.bias, padding=2)",
        "conv1",
        "the kernel is flipped",
    ),
    (
        "x = self.conv1(x)",
        "x = F.conv2d(x, self.conv1.weight.mT, self.conv1.bias, padding=2)",
        "conv1",
        "rows and columns are swapped",
    ),
    ("x = self.conv1(x)", "x = self.conv1(x.flip(1))", "conv1", "BGR for RGB"),
    ("x = self.conv1(x)", "x = self.conv1(x.flip(3))", "conv1", "the images are mirrored"),
    ("x = self.conv1(x)", "x = self.conv1(x.flip(2))", "conv1", "upside down"),
    ("x = self.conv1(x)", "x = self.conv1(x * 255)", "conv1", "scaled by 255"),
    ("x = self.conv1(x)", "x = self.conv1(x / 255)", "conv1", "scaled by 1 / 255"),
    ("x = self.conv1(x)", "x = self.conv1((x - 0.5) / 0.5)", "conv1", "the images are normalised (again)"),
    (
        "x = self.conv1(x)",
        "x = self.conv1((x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None])",
        "conv1",
        "the images are normalised (again)",
    ),
    ("x = self.conv1(x)", "x = self.conv1(x * 0.25 + 0.5)", "conv1", "the images are normalised (again)"),
    (
        "x = self.conv1(x)",
        "x = F.conv2d(x, self.conv1.weight, None, padding=2) + 0 * self.conv1.bias[:, None, None]",
        "conv1",
        "the bias is missing",
    ),
    ("x = self.conv1(x)", "x = self.conv1(x) + self.conv1.bias[:, None, None]", "conv1", "the bias is added twice"),
    (
        "x = self.conv1(x)",
        "x = F.conv2d(x, self.conv1.weight, -self.conv1.bias, padding=2)",
        "conv1",
        "the bias is subtracted",
    ),
    (
        "x = self.conv1(x)",
        "x = F.conv2d(x, self.conv1.weight, self.conv1.bias[:1].expand(8), padding=2)",
        "conv1",
        "the bias is one for all",
    ),
    (
        "x = self.conv1(x)",
        "x = F.conv2d(x, self.conv1.weight, self.conv1.bias.mean().expand(8), padding=2)",
        "conv1",
        "the bias is one for all",
    ),
    ("self.one(x), self.three(x)", "self.three(x), self.one(x)", "mixed", "concatenated in the order three, one"),
    ("x = torch.relu(x + y)", "x = torch.relu(y)", "unit", "the shortcut is missing"),
    ("x = torch.relu(x + y)", "x = torch.relu(x + 0.5 * y)", "unit", "the residual's scale is 0.5, not 1"),
    ("x = torch.relu(x + y)", "x = torch.relu(x - y)", "unit", "the residual's scale is -1, not 1"),
    ("x = torch.relu(x + y)", "x = torch.relu(x + F.relu(y))", "unit", ""),
    ("x = torch.relu(x + y)", "x = x + torch.relu(y)", "unit", ""),
    ("MaxPool2d(3, 2)", "MaxPool2d(3, 2, ceil_mode=True)", "pool1", "ceil for floor"),
    ("MaxPool2d(3, 2)", "MaxPool2d(2, 2)", "pool1", "the kernel is (2, 2), not (3, 3)"),
    ("MaxPool2d(3, 2)", "MaxPool2d(3, 2, padding=1)", "pool1", "the padding is (1, 1), not (0, 0)"),
    ("MaxPool2d(3, 2)", "AvgPool2d(3, 2)", "pool1", "average for maximum pooling"),
    ("x = self.pool1(x)", "x = F.max_pool2d(F.pad(x, (0, 0, 0, 1), value=-1e30), 3, 2)", "pool1", ""),
    ("AvgPool2d(2, 2)", "MaxPool2d(2, 2)", "pool2", "maximum for average pooling"),
    ("AvgPool2d(2, 2)", "AvgPool2d(2, 2, ceil_mode=True)", "pool2", "ceil for floor"),
    ("self.norm1 = nn.BatchNorm2d(8)", "self.norm1 = nn.BatchNorm2d(8, eps=1e-3)", "norm1", "eps is 0.001, not 1e-05"),
    ("self.norm1 = nn.BatchNorm2d(8)", "self.norm1 = nn.BatchNorm2d(8, eps=1e-6)", "norm1", "eps is 1e-06, not 1e-05"),
    (
        "self.unit_norm2 = nn.BatchNorm2d(8)",
        "self.unit_norm2 = nn.BatchNorm2d(8, eps=2e-5)",
        "unit.body.norm2",
        "eps is 2e-05, not 1e-05",
    ),
    (
        "self.norm1 = nn.BatchNorm2d(8)",
        "self.norm1 = nn.BatchNorm2d(8, momentum=0.9)",
        "norm1",
        "momentum 0.1 is taken for the weight",
    ),
    (
        "self.norm1 = nn.BatchNorm2d(8)",
        "self.norm1 = nn.BatchNorm2d(8, momentum=0.99)",
        "norm1",
        "the momentum is 0.99, not 0.1",
    ),
    ("self.norm1 = nn.BatchNorm2d(8)", "self.norm1 = nn.BatchNorm2d(8, momentum=None)", "norm1", "momentum=None"),
    ("self.norm1 = nn.BatchNorm2d(8)", "self.norm1 = nn.BatchNorm2d(8, momentum=0.0)", "norm1", "they do not move"),
    ("x = F.relu(self.norm1(x))", "x = self.norm1(F.relu(x))", "norm1", "'relu1' comes before 'norm1'"),
    (
        "x = F.relu(self.norm1(x))",
        "n = self.norm1; x = F.relu(F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, True, 0.1))",
        "norm1",
        "training mode for evaluation",
    ),
    (
        "x = F.relu(self.norm1(x))",
        "n = self.norm1; x = F.relu(F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, False))",
        "norm1",
        "evaluation mode for training",
    ),
    (
        "x = F.relu(self.norm1(x))",
        "n = self.norm1; x = F.relu(F.batch_norm(x, n.running_mean, n.running_var, torch.ones_like(n.weight) + 0 * n.weight, n.bias, self.training))",
        "norm1",
        "gamma is fixed at 1",
    ),
    (
        "x = F.relu(self.norm1(x))",
        "n = self.norm1; x = F.relu(F.batch_norm(x, n.running_mean, n.running_var, torch.ones_like(n.weight) + 0 * n.weight, n.bias, self.training, eps=1e-3))",
        "norm1",
        "gamma is fixed at 1, and eps is 0.001, not 1e-05",
    ),
    (
        "x = F.relu(self.norm1(x))",
        "n = self.norm1; x = F.relu(F.batch_norm(x, n.running_mean, n.running_var, n.weight, 0 * n.bias, self.training))",
        "norm1",
        "beta is missing",
    ),
    (
        "x = F.relu(self.norm1(x))",
        "n = self.norm1; x = F.relu(F.batch_norm(x, n.running_mean, n.running_var, n.bias, n.weight, self.training))",
        "norm1",
        "gamma and beta are swapped",
    ),
    ("x = self.lrn(F.relu(x))", "x = F.relu(self.lrn(x))", "relu4", "'lrn' comes before 'relu4'"),
    ("x = self.lrn(F.relu(x))", "x = F.relu(x)", "lrn", "the layer is missing"),
    ("alpha=1e-2", "alpha=5e-2", "lrn", "alpha not divided by n"),
    ("alpha=1e-2", "alpha=2e-3", "lrn", "alpha divided by n twice"),
    ("k=2.0", "k=1.0", "lrn", "k is 1, not 2"),
    ("beta=0.75", "beta=0.5", "lrn", "beta is 0.5, not 0.75"),
    ("LocalResponseNorm(5", "LocalResponseNorm(3", "lrn", "the window is 3, not 5"),
    ("x = torch.flatten(x, 1)", "x = x.permute(0, 1, 3, 2).flatten(1)", "flatten", "height and width swapped"),
    ("nn.Dropout(0.5)", "nn.Dropout(0.9)", "dropout", "the rate is 0.9, not 0.5"),
    ("nn.Dropout(0.5)", "nn.AlphaDropout(0.5)", "dropout", "alpha dropout"),
    ("nn.Dropout(0.5)", "nn.Dropout1d(0.5)", "dropout", "dropout of whole channels"),
    ("self.fc2(self.dropout(x))", "self.fc2(x)", "dropout", "there is no dropout in training"),
    ("self.fc2(self.dropout(x))", "self.fc2(F.dropout(x))", "dropout", "dropout is active in evaluation"),
    ("self.fc2(self.dropout(x))", "self.dropout(self.fc2(x))", "dropout", "it follows 'fc2'"),
    ("self.fc2(self.dropout(x))", "F.softmax(self.fc2(self.dropout(x)), 1)", "fc2", "softmax is applied"),
    ("self.fc2(self.dropout(x))", "F.log_softmax(self.fc2(self.dropout(x)), 1)", "fc2", "log-softmax is applied"),
    ("self.fc2(self.dropout(x))", "F.relu(self.fc2(self.dropout(x)))", "fc2", "a ReLU follows"),
    ("self.fc2(self.dropout(x))", "self.fc2(self.dropout(x)).squeeze()", "fc2", "squeeze"),
    ("self.fc2(self.dropout(x))", "self.fc2(self.dropout(x)).view(2, 5)", "fc2", "every number of images"),
    ("x = F.relu(self.fc1(x))", "x = F.relu(self.fc1(x).detach())", "fc1", ""),
    (
        "self.conv2(F.relu(x))",
        "self.conv2(F.relu(x).view(len(x), 2, 5, *x.shape[2:]).flip(1).flatten(1, 2))",
        "conv2",
        "",
    ),
    ("groups=2)", "groups=1)", "conv2", ""),
    ("8, 6, 3, padding=1)", "8, 6, 5, padding=2)", "mixed.three.conv", ""),
    ("8, 6, 3, padding=1)", "8, 6, 3, padding=2, dilation=2)", "mixed.three.conv", "dilation"),
    (
        "y = self.unit_norm2(self.unit2(y))",
        "y = self.unit_norm2(self.unit1(y))",
        "unit.body.conv2",
        "it has the weight of 'unit.body.conv1'",
    ),
    ("y = self.unit_norm2(self.unit2(y))", "y = self.unit_norm1(self.unit2(y))", "unit.body.norm2", ""),
)
_MXNET = _rows(
    "mxnet",
    ("8, 5, padding=2", "8, 5, padding=1", "conv1", "the padding is (1, 1), not (2, 2)"),
    ("8, 5, padding=2", "8, 5", "conv1", "the padding is (0, 0), not (2, 2)"),
    ("self.norm1 = nn.BatchNorm()", "self.norm1 = nn.BatchNorm(epsilon=1e-3)", "norm1", "eps is 0.001, not 1e-05"),
    (
        "self.norm1 = nn.BatchNorm()",
        "self.norm1 = nn.BatchNorm(momentum=0.1)",
        "norm1",
        "momentum 0.1 is taken for the weight",
    ),
    (
        "self.norm1 = nn.BatchNorm()",
        "self.norm1 = nn.BatchNorm(momentum=0.99)",
        "norm1",
        "the momentum is 0.01, not 0.1",
    ),
    (
        "self.norm1 = nn.BatchNorm()",
        "self.norm1 = nn.BatchNorm(use_global_stats=True)",
        "norm1",
        "evaluation mode for training",
    ),
    ("MaxPool2D(3, 2)", "MaxPool2D(3, 2, ceil_mode=True)", "pool1", "ceil for floor"),
    ("MaxPool2D(3, 2)", "MaxPool2D(2, 2)", "pool1", "the kernel is (2, 2), not (3, 3)"),
    ("MaxPool2D(3, 2)", "AvgPool2D(3, 2)", "pool1", "average for maximum pooling"),
    ("AvgPool2D(2, 2)", "MaxPool2D(2, 2)", "pool2", "maximum for average pooling"),
    ("x = F.relu(self.norm1(x))", "x = F.sigmoid(self.norm1(x))", "relu1", "a sigmoid is applied"),
    ("x = F.relu(self.norm1(x))", "x = F.clip(self.norm1(x), 0, 6)", "relu1", "ReLU6 is applied"),
    (
        "x = F.relu(self.norm1(x))",
        "x = F.LeakyReLU(self.norm1(x), act_type='leaky', slope=0.25)",
        "relu1",
        "slope 0.25",
    ),
    (
        "x = F.relu(self.norm1(x))",
        "x = F.LeakyReLU(self.norm1(x), act_type='elu', slope=1.0)",
        "relu1",
        "ELU is applied",
    ),
    ("x = F.relu(self.norm1(x))", "x = self.norm1(F.relu(x))", "norm1", "'relu1' comes before 'norm1'"),
    ('act_type="relu"', 'act_type="tanh"', "relu2", "tanh is applied"),
    ('act_type="relu"', 'act_type="softrelu"', "relu2", "softplus is applied"),
    ("self.one(x), self.three(x)", "self.three(x), self.one(x)", "mixed", "concatenated in the order three, one"),
    ("F.Activation(x + y", "F.Activation(y", "unit", "the shortcut is missing"),
    ("1e-2 / 5", "1e-2", "lrn", "alpha not divided by n"),
    ("(2.0 + 1e-2", "(1.0 + 1e-2", "lrn", "k is 1, not 2"),
    ("** -0.75", "** -0.5", "lrn", "beta is 0.5, not 0.75"),
    ("x = self.conv1(x)", "x = self.conv1(x * 255)", "conv1", "scaled by 255"),
    ("x = self.conv1(x)", "x = self.conv1((x - 0.5) / 0.5)", "conv1", "the images are normalised (again)"),
    ("x = self.conv1(x)", "x = self.conv1(F.flip(x, axis=3))", "conv1", "the images are mirrored"),
    ("nn.Dropout(0.5)", "nn.Dropout(0.9)", "dropout", "the rate is 0.9, not 0.5"),
    ("nn.Dropout(0.5)", "nn.Dropout(0.5, axes=(0,))", "dropout", "dropout of whole channels"),
    ("self.fc2(self.dropout(x))", "self.fc2(x)", "dropout", "there is no dropout in training"),
    ("self.fc2(self.dropout(x))", "self.fc2(F.Dropout(x, p=0.5, mode='always'))", "dropout", "in evaluation"),
    ("self.fc2(self.dropout(x))", "F.softmax(self.fc2(self.dropout(x)))", "fc2", "softmax is applied"),
    ("x = F.flatten(x)", "x = F.flatten(F.transpose(x, axes=(0, 1, 3, 2)))", "flatten", "height and width swapped"),
)
_JAX = _rows(
    "jax",
    ("(5, 5), padding=2", "(5, 5), padding=1", "conv1", "the padding is (1, 1), not (2, 2)"),
    ("epsilon=1e-5", "epsilon=1e-3", "norm1", "eps is 0.001, not 1e-05"),
    ("momentum=0.9", "momentum=0.99", "norm1", "the momentum is 0.01, not 0.1"),
    ("nnx.max_pool(x, (3, 3), (2, 2))", "nnx.max_pool(x, (3, 3), (2, 2), padding='SAME')", "pool1", "SAME"),
    ("nnx.max_pool(x, (3, 3), (2, 2))", "nnx.avg_pool(x, (3, 3), (2, 2))", "pool1", "average for maximum pooling"),
    ("nnx.relu(self.norm1(x))", "jax.nn.relu6(self.norm1(x))", "relu1", "ReLU6 is applied"),
    ("nnx.relu(self.norm1(x))", "nnx.gelu(self.norm1(x))", "relu1", "GELU is applied, in its tanh form"),
    ("nnx.relu(self.norm1(x))", "self.norm1(nnx.relu(x))", "norm1", "'relu1' comes before 'norm1'"),
    ("1e-2 / 5", "1e-2", "lrn", "alpha not divided by n"),
    ("nnx.Dropout(0.5", "nnx.Dropout(0.9", "dropout", "the rate is 0.9, not 0.5"),
    ("self.one(x), self.three(x)", "self.three(x), self.one(x)", "mixed", "concatenated in the order three, one"),
    ("x = self.conv1(x)", "x = self.conv1(x[:, :, ::-1])", "conv1", "the images are mirrored"),
)
FAULTS = (*_TORCH, *_TORCH_ACTIVATIONS, *_MXNET, *_JAX)
