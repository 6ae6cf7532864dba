"""A fourth table for the ports of `benchmarks/written/`, most of it for new ones: gates, transposed convolutions, PReLU,
what trains a network, and converted weights. A cause may be told in other words, which stand behind a `|`."""

# ruff: noqa: E501  # a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from written_faults import WrittenFault, rows

_DECAY_FIRST = """        optax.add_decayed_weights(5e-4),
        optax.trace(decay=0.9, nesterov=True),
"""
_DECAY_LAST = "".join(_DECAY_FIRST.splitlines(keepends=True)[::-1])
_REORDERED = (
    '    arrays["fc1.weight"] = arrays["fc1.weight"].reshape(12, 4, 5, 8).transpose(0, 3, 1, 2).reshape(12, 160)\n'
)
_MEAN, _VAR = "(ours.running_mean, theirs.running_mean)", "(ours.running_var, theirs.running_var)"
_TORCH = (
    *rows(
        *("torch", "decoder"),
        ("nn.PReLU(8)", "nn.PReLU()", "prelu1", "one slope|slope for all|shared|one for all"),
        (
            "nn.AvgPool2d(3, 2, ceil_mode=True)",
            "nn.AvgPool2d(3, 2, padding=1)",
            *("skip.coarse.pool", "the padding is (1, 1), not (0, 0)", True),
        ),
        (
            "self.up(y)]",
            "F.conv_transpose2d(y, self.up.weight.flip(2, 3), self.up.bias, 2, 1)]",
            *("skip.coarse.up", "flipped"),
        ),
        ("x * torch.sigmoid(", "x + torch.sigmoid(", "gate", "added, not multiplied"),
        ("0.2 * self.unit2", "self.unit2", "unit", "the body is multiplied by 5|factor 5|scale is 1"),
    ),
    *rows(
        *("torch", "resnet"),
        (
            "self.bn1 = nn.BatchNorm2d(planes)",
            "self.bn1 = nn.BatchNorm2d(planes, track_running_stats=False)",
            *("stage1.unit1.residual.body.norm1", "keeps no running statistics", True),
        ),
        (
            "self.bn2 = nn.BatchNorm2d(planes)",
            "self.bn2 = nn.InstanceNorm2d(planes, affine=True)",
            *("stage1.unit1.residual.body.norm2", "instance|each image|every image"),
        ),
    ),
    *rows(
        *("torch", "mobilenet_v2"),
        (
            "nn.BatchNorm2d(oup),\n        ]",
            "nn.BatchNorm2d(oup),\n            nn.ReLU6(inplace=True),\n        ]",
            *("bottleneck1.norm3", "an activation follows"),
        ),
    ),
    *rows(
        *("torch", "squeezenet"),
        (
            "torch.cat([self.act(self.expand1x1(x)), self.act(self.expand3x3(x))], 1)",
            "torch.stack([self.act(self.expand1x1(x)), self.act(self.expand3x3(x))], 2).flatten(1, 2)",
            *("fire3.expand", "interleaved|shuffled|by turns|another order"),
        ),
    ),
    *rows("torch", "vgg", ("self.features(x)", "self.features(x.half().to(x.dtype))", "block1.conv1", "float16|half")),
    *rows(
        *("torch", "lenet_functional"),
        ("F.relu(self.conv2(x))", "F.rrelu(self.conv2(x), training=self.training)", "relu2", "leaky|random"),
    ),
    *rows(
        *("torch", "googlenet"),
        ("self.b4_2(self.b4_1(x))", "self.b4_1(self.b4_2(x))", "inception3a.branch_pool.pool", "comes before"),
    ),
    *rows(
        *("torch", "trained"),
        (".add_(g)", '.add_(g, alpha=1 - group["momentum"])', "conv1", "dampening"),
        ("gamma=0.1", "gamma=0.5", "conv1", "0.025, not 0.005"),
        ("dim=1), labels", "dim=0), labels", "dense3", "axis|over the batch|over the images|batch"),
        (", antialias=True", "", "input", "filter|resize|antialias"),
    ),
    *rows(
        *("torch", "converted"),
        (_REORDERED, "", "fc1", "height-width-channels|order|HWC|height, width, channels"),
        (
            "getattr(old, name).kernel[...].T\n",
            'getattr(old, name).kernel[...].T if name != "fc2" else old.fc2.kernel[...]\n',
            *("fc2", "transposed"),
        ),
        (
            '"bn.running_mean": old.bn.mean[...], "bn.running_var": old.bn.var',
            '"bn.running_mean": old.bn.var[...], "bn.running_var": old.bn.mean',
            *("bn", "exchanged|swapped|in place of|taken for|for the"),
        ),
    ),
)
_MXNET = (
    *rows(
        *("mxnet", "decoder"),
        (
            "nn.Conv2DTranspose(6, 4, strides=2, padding=1)",
            "nn.Conv2DTranspose(6, 3, strides=2, padding=1, output_padding=1)",
            *("skip.coarse.up", "the kernel is (3, 3), not (4, 4)", True),
        ),
        ('act_type="leaky", slope=0.1', 'act_type="leaky"', "leaky", "0.25"),
        ('act_type="elu", slope=1.0', 'act_type="elu"', "unit.body.elu", "0.25"),
    ),
    *rows(
        *("mxnet", "resnet"),
        (
            "self.body.add(nn.BatchNorm())",
            "self.body.add(nn.BatchNorm(center=False))",
            *("stage1.unit1.residual.body.norm1", "the bias is left out|beta is left out", True),
        ),
    ),
    *rows(
        *("mxnet", "vgg"),
        (
            'nn.Dense(256, activation="relu"))\n            self.features.add(nn.Dropout(rate=0.5))',
            'nn.Dropout(rate=0.5))\n            self.features.add(nn.Dense(256, activation="relu"))',
            *("dropout1", "comes before|precedes|it follows|no dropout"),
        ),
    ),
    *rows(
        *("mxnet", "mobilenet"),
        (
            'nn.Activation("relu")',
            "nn.HybridLambda(lambda F, x: F.clip(x, 0, 6))",
            *("relu1", "ReLU6|bounded at 6"),
        ),
    ),
    *rows(
        *("mxnet", "squeezenet"),
        (
            "nn.MaxPool2D(3, 2, ceil_mode=True)",
            "nn.MaxPool2D(3, 2, padding=1)",
            *("pool2", "the padding is (1, 1), not (0, 0)", True),
        ),
    ),
    *rows(
        *("mxnet", "lenet_hybrid"),
        (
            "F.relu(self.dense2(x)), p=0.5",
            "F.relu(self.dense2(x)), p=0.5, axes=(0,)",
            *("dropout2", "one mask|same mask|whole batch|all images"),
        ),
    ),
    *rows("mxnet", "shuffle", ("x = 20 * F", "x = 20 + F", "scale", "20 is added|added, not|plus 20|shift")),
    *rows(
        *("mxnet", "trained"),
        ("beta2=0.99, ", "", "conv1", "beta2|0.999"),
        ("log_softmax(pred, axis=-1)", "log_softmax(pred, axis=-1, temperature=2.0)", "dense3", "temperature|0.5|by 2"),
        ("/ 0.3530", "/ 0.3530**2", "input", "variance"),
    ),
    *rows(
        *("mxnet", "converted"),
        (
            "[(ours.gamma, theirs.weight), (ours.beta, theirs.bias)]",
            "[(ours.gamma, theirs.bias), (ours.beta, theirs.weight)]",
            *("norm1", "exchanged|swapped|taken for|in place of"),
        ),
        (
            "[(ours.weight, theirs.weight)]",
            "[(ours.weight, theirs.weight.transpose(-1, -2) if theirs.weight.ndim == 4 else theirs.weight)]",
            *("conv0", "rows and columns are swapped"),
        ),
        ("if theirs.bias is not None", "if False", "conv3", "zero|0|start|not taken|missing"),
        (
            f"{_MEAN}, {_VAR}",
            f"{_MEAN}, (ours.running_var, theirs.running_var.sqrt())",
            *("norm1", "root|deviation"),
        ),
    ),
)
_JAX = (
    *rows(
        *("jax", "decoder"),
        (", count_include_pad=False", "", "skip.coarse.pool", "counts in the average", True),
        ("self.alpha[...] * x", "-self.alpha[...] * x", "prelu1", "sign|negative|subtracted|factor -1"),
        ("mean(axis=(1, 2), keepdims", "mean(axis=(0, 1, 2), keepdims", "gate.squeeze.pool", "batch|images"),
    ),
    *rows(
        *("jax", "resnet"),
        ("nnx.relu(x + y)", "nnx.relu((x + y) / 2**0.5)", "stage1.unit1.relu", "factor 0.707"),
    ),
    *rows(
        *("jax", "mobilenet"),
        ("use_bias=False)", 'use_bias=False, dtype="bfloat16")', "conv1", "bfloat16", True),
    ),
    *rows(
        *("jax", "googlenet"),
        (
            "nn.relu(self.b1_1(x))",
            "nn.relu(self.b1_1(x)) ** 2",
            *("inception3a.branch1x1.relu1", "square|power 2"),
        ),
    ),
    *rows("jax", "vgg", ("deterministic=not train", "deterministic=True", "dropout1", "no dropout in training")),
    *rows("jax", "alexnet", ("jnp.square(x)", "jnp.abs(x)", "lrn1", "square|absolute")),
    *rows(
        *("jax", "nin"),
        ("nnx.Dropout(0.5", "nnx.Dropout(0.5, broadcast_dims=(1, 2)", "dropout", "dropout of whole channels"),
    ),
    *rows(
        *("jax", "squeezenet"),
        ("axis=-1)", "axis=-1)[..., ::-1]", "fire4.squeeze", "reverse|backwards|another order"),
    ),
    *rows(
        *("jax", "lenet_pure"),
        (
            '+ params["fc1"]["b"]',
            '+ 2 * params["fc1"]["b"]',
            "dense1",
            "bias is multiplied by 2|bias is added twice|twice",
        ),
    ),
    *rows(
        *("jax", "trained"),
        (", nesterov=True", "", "conv1", "esterov"),
        (_DECAY_FIRST, _DECAY_LAST, "conv1", "decoupled|behind|decay"),
        ("/ 255", "/ 256", "input", "256|0.99"),
    ),
    *rows(
        *("jax", "converted"),
        (
            'state[f"{old}.weight"].transpose(2, 3, 1, 0)',
            'state[f"{old}.weight"].transpose(3, 2, 1, 0)',
            *("conv0", "rows and columns are swapped"),
        ),
        (
            '"var": state[f"{old}.running_var"]',
            '"var": jnp.sqrt(state[f"{old}.running_var"])',
            *("norm1", "root|deviation"),
        ),
        (
            'state["8.weight"].reshape(12, 6, 4, 5).transpose(2, 3, 1, 0).reshape(120, 12)',
            'state["8.weight"].T',
            *("dense8", "channels-height-width|order|height-width-channels"),
        ),
    ),
)
FOURTH: tuple[WrittenFault, ...] = (*_TORCH, *_MXNET, *_JAX)
