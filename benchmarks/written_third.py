"""A third table for the ports of `benchmarks/written/`, made after the catalogue had learned from the first two: what is
named of these was not taught by them."""

# ruff: noqa: E501  # a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from written_faults import WrittenFault, rows

_LATE = """    x = mx.sym.LRN(x, alpha=0.0005, beta=0.75, knorm=2, nsize=5)
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max")
"""
_TORCH = (
    *rows(
        "torch",
        "lenet",
        ("nn.Sigmoid(),\n        nn.AvgPool2d", "nn.Tanh(),\n        nn.AvgPool2d", "sigmoid1", "tanh is applied"),
    ),
    *rows(
        "torch",
        "lenet_functional",
        ("F.dropout(F.relu(self.fc2(x))", "F.alpha_dropout(F.relu(self.fc2(x))", "dropout2", "alpha dropout"),
    ),
    *rows(
        "torch",
        "vgg",
        ("nn.MaxPool2d(2, 2)", "nn.MaxPool2d(3, 2, 1)", "block1.pool", "the kernel is (3, 3), not (2, 2)"),
    ),
    *rows("torch", "resnet", ("return self.relu(out)", "return out", "stage1.unit1.relu", "the layer is missing")),
    *rows("torch", "mobilenet_v2", ("nn.Dropout(0.2)", "nn.Dropout(0.5)", "dropout", "the rate is 0.5, not 0.2", True)),
    *rows("torch", "alexnet", ("k=2", "k=1", "lrn1", "k is 1, not 2", True)),
    *rows(
        "torch",
        "nin_nhwc",
        ("0, 3, 1, 2), self.weight", "0, 3, 2, 1), self.weight", "block1.conv1", "rows and columns are swapped"),
    ),
    *rows(
        "torch",
        "googlenet",
        ("3, padding=1)", '3, padding=1, padding_mode="replicate")', "inception3a.branch3x3.conv2", "edge values"),
    ),
    *rows(
        *("torch", "squeezenet"),
        (
            "self.act(self.expand1x1(x)), self.act(self.expand3x3(x))",
            "self.act(self.expand3x3(x)), self.act(self.expand1x1(x))",
            *("fire3.expand", "in the order three, one"),
        ),
    ),
    *rows("torch", "shuffle", ("F.relu(x + y)", "F.relu(x * y)", "unit", "multiplied, not added")),
)
_MXNET = (
    *rows(
        "mxnet",
        "lenet",
        ('kernel_size=5, activation="sigmoid"', 'kernel_size=5, activation="relu"', "sigmoid2", "a ReLU is applied"),
    ),
    *rows(
        *("mxnet", "lenet_hybrid"),
        (
            'pool_type="max")\n        x = F.reshape',
            'pool_type="avg")\n        x = F.reshape',
            *("pool2", "average for maximum pooling"),
        ),
    ),
    *rows(
        *("mxnet", "vgg"),
        (
            "self.features(x)",
            "self.features(F.transpose(x, axes=(0, 1, 3, 2)))",
            "block1.conv1",
            "rows and columns are swapped",
        ),
    ),
    *rows(
        "mxnet",
        "resnet",
        ("MaxPool2D(3, 2, 1)", "MaxPool2D(3, 2, 0, ceil_mode=True)", "pool1", "the padding is (0, 0)"),
    ),
    *rows("mxnet", "mobilenet", ("scale=True", "scale=True, epsilon=2e-5", "norm1", "eps is 2e-05, not 1e-05", True)),
    *rows(
        "mxnet",
        "alexnet",
        (_LATE, "".join(_LATE.splitlines(keepends=True)[::-1]), "lrn1", "'pool1' comes before 'lrn1'"),
    ),
    *rows(
        *("mxnet", "googlenet"),
        (
            "kernel_size=5, padding=2",
            "kernel_size=5, padding=2, use_bias=False",
            "inception3a.branch5x5.conv2",
            "the bias is left out",
            True,
        ),
    ),
    *rows(
        "mxnet",
        "nin",
        ("mx.sym.Flatten(x)", "mx.sym.log_softmax(mx.sym.Flatten(x))", "flatten", "log-softmax is applied"),
    ),
    *rows(
        "mxnet",
        "squeezenet",
        ("nn.Dropout(0.5)", "nn.Dropout(0.5, axes=(2, 3))", "dropout", "dropout of whole channels"),
    ),
    *rows("mxnet", "shuffle", ("self.stem(x)", "self.stem(x - 0.5)", "stem", "normalised (again)")),
)
_JAX = (
    *rows(
        "jax",
        "lenet",
        ("nnx.avg_pool(nnx.sigmoid(self.conv1", "nnx.max_pool(nnx.sigmoid(self.conv1", "pool1", "maximum for average"),
    ),
    *rows(
        "jax",
        "lenet_pure",
        ('jax.nn.relu(conv(params["conv2"]', 'jax.nn.relu6(conv(params["conv2"]', "relu2", "ReLU6 is applied"),
    ),
    *rows("jax", "vgg", ('padding="SAME"', 'padding="CIRCULAR"', "block1.conv1", "circular")),
    *rows(
        "jax",
        "resnet",
        ("nnx.BatchNorm(features, ", "nnx.BatchNorm(features, use_bias=False, ", "norm1", "the bias is left out", True),
    ),
    *rows("jax", "mobilenet", ("padding=1)(x)", "padding=1)(x / 127.5 - 1)", "conv1", "normalised (again)")),
    *rows(
        "jax",
        "googlenet",
        (
            "nn.max_pool(x, (3, 3), strides=(1, 1)",
            "nn.avg_pool(x, (3, 3), strides=(1, 1)",
            "inception3a.branch_pool.pool",
            "average for maximum",
        ),
    ),
    *rows("jax", "alexnet", ("** beta", "** 0.5", "lrn1", "beta is 0.5, not 0.75")),
    *rows("jax", "nin", ("nnx.Dropout(0.5", "nnx.Dropout(0.4", "dropout", "the rate is 0.4, not 0.5", True)),
    *rows(
        *("jax", "squeezenet"),
        (
            "nnx.relu(self.left(x)), nnx.relu(self.right(x))",
            "nnx.relu(self.right(x)), nnx.relu(self.left(x))",
            *("fire3.expand", "in the order three, one"),
        ),
    ),
    *rows(
        "jax",
        "shuffle",
        ("x.mean(axis=(1, 2))", "lax.stop_gradient(x.mean(axis=(1, 2)))", "fc", "no gradient comes back"),
    ),
)
THIRD: tuple[WrittenFault, ...] = (*_TORCH, *_MXNET, *_JAX)
