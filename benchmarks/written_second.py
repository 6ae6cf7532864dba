"""A second table for the ports of `benchmarks/written/`, made after the catalogue had learned from the
first one's misses, and before it learned from these."""

# a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from written_faults import WrittenFault, rows

_POOL_OMITTED = '    x = mx.sym.Dropout(x, p=0.5)\n    x = block(x, "four"'
_TORCH = (
    *rows(
        *("torch", "lenet"),
        (
            "nn.Conv2d(6, 16, kernel_size=5)",
            "nn.Conv2d(6, 16, kernel_size=5, bias=False)",
            "conv2",
            "bias is left out",
            True,
        ),
    ),
    *rows(
        *("torch", "lenet_functional"),
        ("self.conv1(x)", "self.conv1(x * 255.0)", "conv1", "scaled by 255"),
        ("F.relu(self.conv2(x))", "F.gelu(self.conv2(x))", "relu2", "GELU is applied"),
    ),
    *rows(
        *("torch", "vgg"),
        ("nn.BatchNorm2d(v)", "nn.BatchNorm2d(v, 1e-3)", "block1.norm1", "eps is 0.001, not 1e-05", True),
        ("self.features(x)", "self.features((x - 0.449) / 0.226)", "block1.conv1", "normalised (again)"),
    ),
    *rows(
        *("torch", "resnet"),
        ("identity = x\n", "identity = x.detach()\n", "stage4.unit2.residual", "no gradient comes back"),
        (
            "self.bn2(self.conv2(out))",
            "self.bn1(self.conv2(out))",
            "stage1.unit1.residual.body.norm2",
            "the parameters of",
        ),
    ),
    *rows(
        *("torch", "mobilenet_v2"),
        ("x.mean([2, 3])", "x.amax([2, 3])", "pool", "maximum for average pooling"),
        (
            "return x + self.conv(x)",
            "return 0.1 * x + self.conv(x)",
            "bottleneck3",
            "the shortcut is multiplied by 0.1",
        ),
    ),
    *rows(
        *("torch", "alexnet"),
        ("6, 16, 5, padding=2, groups=2", "6, 16, 5, padding=2", "conv2", "groups"),
    ),
    *rows(
        *("torch", "nin_nhwc"),
        (
            "self.weight, self.bias, self",
            "self.weight, self.bias.mean().expand(len(self.bias)), self",
            "block1.conv1",
            "one for all",
        ),
    ),
    *rows(
        *("torch", "googlenet"),
        ("nn.AdaptiveAvgPool2d(", "nn.AdaptiveMaxPool2d(", "pool5", "maximum for average pooling"),
        (
            "self.b3_2(F.relu(self.b3_1(x)))",
            "self.b3_2(self.b3_1(x))",
            "inception3a.branch5x5.relu1",
            "the layer is missing",
        ),
    ),
    *rows(
        *("torch", "squeezenet"),
        ("nn.Dropout(p=0.5), self.final_conv", "self.final_conv, nn.Dropout(p=0.5)", "dropout", "it follows 'conv10'"),
    ),
    *rows(
        *("torch", "shuffle"),
        ("F.normalize(x, dim=1)", "F.normalize(x, dim=2)", "norm", "the norm is taken over"),
        ("padding=2, dilation=2", "padding=1", "dilated", "dilation"),
    ),
)
_MXNET = (
    *rows(
        *("mxnet", "lenet"),
        (
            "AvgPool2D(pool_size=2, strides=2)",
            "AvgPool2D(pool_size=3, strides=2, padding=1)",
            "pool1",
            "the kernel is (3, 3)",
        ),
    ),
    *rows(
        *("mxnet", "lenet_hybrid"),
        ("F.reshape(x, (0, -1))", "F.reshape(F.swapaxes(x, 2, 3), (0, -1))", "flatten", "height and width swapped"),
    ),
    *rows(
        *("mxnet", "vgg"),
        ("MaxPool2D(strides=2)", "MaxPool2D(pool_size=3, strides=2, padding=1)", "block1.pool", "the kernel is (3, 3)"),
        ('Dense(256, activation="relu")', 'Dense(256, activation="tanh")', "relu1", "tanh is applied"),
    ),
    *rows(
        *("mxnet", "resnet"),
        (
            "nn.BatchNorm()",
            "nn.BatchNorm(momentum=0.99)",
            "stage1.unit1.residual.body.norm1",
            "the momentum is 0.01",
            True,
        ),
        ("F.Activation(x + residual", "F.Activation(0.5 * (x + residual)", "stage1.unit1.relu", "factor 0.5"),
    ),
    *rows(
        *("mxnet", "mobilenet"),
        (
            "_conv(net, 2, kernel=3, stride=2, pad=1)",
            "_conv(net, 2, kernel=3, stride=2)",
            "conv1",
            "the padding is (0, 0)",
            True,
        ),
        (", use_bias=False", "", "conv1", "bias"),
    ),
    *rows(
        *("mxnet", "alexnet"),
        ("nsize=5", "nsize=3", "lrn1", "the window is 3, not 5", True),
        ("p=0.5", "p=0.6", "dropout6", "the rate is 0.6, not 0.5", True),
    ),
    *rows(
        *("mxnet", "googlenet"),
        ("(p1, p2, p3, p4", "(p2, p1, p3, p4", "inception3a", "in the order branch3x3, branch1x1"),
        ("self.p4_2(self.p4_1(x))", "self.p4_2(x)", "inception3a.branch_pool.pool", "the layer is missing"),
    ),
    *rows(
        *("mxnet", "nin"),
        (_POOL_OMITTED, '    x = block(x, "four"', "dropout", "there is no dropout in training"),
        ('pool_type="avg"', 'pool_type="sum"', "pool4", "the sum for the average"),
    ),
    *rows(
        *("mxnet", "squeezenet"),
        (
            'F.Activation(self.last(self.features(x)), act_type="relu")',
            "self.last(self.features(x))",
            "relu10",
            "is missing",
        ),
    ),
    *rows(
        *("mxnet", "shuffle"),
        ('mode="channel"', 'mode="instance"', "norm", "over the whole image"),
        ("padding=2, dilation=2", "padding=1", "dilated", "dilation"),
    ),
)
_JAX = (
    *rows(
        *("jax", "lenet"),
        ("self.conv1(x)", "self.conv1(x.swapaxes(1, 2))", "conv1", "rows and columns are swapped"),
        ("nnx.Linear(84, 10, rngs", "nnx.Linear(84, 10, use_bias=False, rngs", "dense3", "the bias is left out", True),
    ),
    *rows(
        *("jax", "lenet_pure"),
        ('jax.nn.relu(x @ params["fc1"]', 'jnp.tanh(x @ params["fc1"]', "relu3", "tanh is applied"),
        ('+ params["fc2"]["b"]', '- params["fc2"]["b"]', "dense2", "the bias is subtracted"),
    ),
    *rows(
        *("jax", "vgg"),
        ("nn.max_pool(", "nn.avg_pool(", "block1.pool", "average for maximum pooling"),
        (
            "        for count,",
            "        x = x[:, :, ::-1]\n        for count,",
            "block1.conv1",
            "the images are mirrored",
        ),
    ),
    *rows(
        *("jax", "resnet"),
        ("momentum=0.9", "momentum=0.1", "norm1", "momentum 0.1 is taken for the weight", True),
        ("return nnx.relu(x + y)", "return x + nnx.relu(y)", "stage1.unit1.residual", "comes before the addition"),
    ),
    *rows(
        *("jax", "mobilenet"),
        ("epsilon=1e-5", "epsilon=1e-3", "norm1", "eps is 0.001, not 1e-05", True),
        (
            "strides=2, padding=1",
            "strides=2, padding='VALID'",
            "conv1",
            "the padding is (0, 0), not (1, 1)",
            True,
        ),
    ),
    *rows(
        *("jax", "googlenet"),
        ("nn.relu(nn.Conv(24,", "nn.swish(nn.Conv(24,", "relu2", "SiLU is applied"),
        ("x = x.mean(", "x = x.sum(", "pool5", "the sum for the average"),
    ),
    *rows(
        *("jax", "alexnet"),
        ("k=2.0", "k=1.0", "lrn1", "k is 1, not 2"),
        ("(half, half)", "(size - 1, 0)", "lrn1", "the window is off"),
    ),
    *rows(
        *("jax", "nin"),
        ("window_shape=(3, 3)", "window_shape=(2, 2)", "pool1", "the kernel is (2, 2), not (3, 3)", True),
    ),
    *rows(
        *("jax", "squeezenet"),
        ("nnx.relu(self.left(x))", "self.left(x)", "fire3.expand.one.relu", "the layer is missing"),
        ("self.conv10(self.dropout(x))", "self.conv10(x)", "dropout", "there is no dropout in training"),
    ),
    *rows(
        *("jax", "shuffle"),
        ("+ 1e-10)", "+ 1e-6)", "norm", "eps is 1e-06, not 1e-10"),
    ),
)
SECOND: tuple[WrittenFault, ...] = (*_TORCH, *_MXNET, *_JAX)
