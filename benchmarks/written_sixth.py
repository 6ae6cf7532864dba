"""A sixth table, small and written after the diagnosis tells by fit what no fault of its catalogue explains: what is
told of these says what is to be expected of the next. Of three rows the place was told by another layer's name, whose
output is changed before the one that the row had takes it: they have that name now."""

# a fault is a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from written_faults import WrittenFault, rows

_TORCH = (
    *rows(
        *("torch", "mobile"),
        (
            "self.bn1(self.expand(x))",
            "self.bn1(F.dropout2d(self.expand(x), 0.1, self.training))",
            "unit.body.expand",
            "dropout|random|dropped",
        ),
        (
            "        return x + y\n",
            "        return x + (y * (torch.rand(len(y), 1, 1, 1) > 0.2) / 0.8 if self.training else y)\n",
            "unit",
            "random|dropped|draws",
        ),
    ),
    *rows(
        "torch",
        "dense",
        (
            "        x = F.avg_pool2d(x, 2)\n",
            "        x = F.interpolate(x, scale_factor=0.5, mode='bilinear', align_corners=True)\n",
            "pool2",
            "interpol|corners",
        ),
    ),
    *rows(
        "torch",
        "vgg",
        (
            "self.features(x)",
            "self.features(x - x.mean((2, 3), keepdim=True))",
            "block1.conv1",
            "mean over rows and columns|its own mean",
        ),
    ),
    *rows("torch", "googlenet", ("(b1, b2, b3, b4)", "(b1, b2, 0.5 * b3, b4)", "inception3a", "by 0.5|factor 0.5")),
    *rows(
        "torch",
        "resnet",
        (
            "out = out + identity",
            "out = out + identity.mean(1, keepdim=True)",
            "stage1.unit1.residual",
            "mean over the channels|over the channels",
        ),
    ),
    *rows(
        "torch",
        "lenet_functional",
        (
            "self.fc1(x)",
            "F.linear(x, self.fc1.weight.clamp(-0.05, 0.05), self.fc1.bias)",
            "dense1",
            "clipped|bounded|clamp",
        ),
    ),
    *rows("torch", "decoder", ("self.up(y)]", "self.up(y)[:, [3, 4, 5, 0, 1, 2]]]", "skip", "rolled by 3|order")),
    *rows(
        "torch",
        "shuffle",
        ("torch.tanh(self.stem(x))", "1.7159 * torch.tanh(2 / 3 * self.stem(x))", "tanh", "1.7159|1.716|0.6667"),
    ),
    *rows(
        "torch",
        "squeezenet",
        (
            "torch.cat([self.act(self.expand1x1(x)), self.act(self.expand3x3(x))], 1)",
            "torch.cat([self.act(self.expand1x1(x)), self.act(self.expand1x1(x))], 1)",
            "fire3.expand.three.conv",
            "in its place|twice|in place of",
        ),
    ),
)
_MXNET = (
    *rows(
        *("mxnet", "mobile"),
        ("        x = x * F.sigmoid(x)\n", "        x = F.log(1 + F.exp(x))\n", "act2", "softplus"),
        (
            "self.bn(self.down(x))",
            'self.bn(F.L2Normalization(self.down(x), mode="channel"))',
            "down",
            "norm over the channels",
        ),
    ),
    *rows(
        *("mxnet", "dense"),
        ("F.concat(x, new, dim=1)", "F.concat(x, -new, dim=1)", "layer1", "sign|-1"),
        (
            "self.conv(F.relu(self.norm(x)))",
            "self.conv(F.relu(self.norm(x)) - 0.5)",
            "layer1.new.relu",
            "-0.5 is added|0.5",
        ),
    ),
    *rows("mxnet", "trained", ("beta1=0.9", "beta1=0.8", "conv1", "beta1")),
    *rows("mxnet", "nin", ("mx.sym.Flatten(x)", "mx.sym.Flatten(x) / 0.5", "flatten", "factor 2|by 2")),
)
_JAX = (
    *rows(
        "jax",
        "lenet",
        ("nnx.sigmoid(self.dense1(x))", "nnx.sigmoid(self.dense1(x) / 120**0.5)", "dense1", "0.0912871|0.09129"),
    ),
    *rows(
        "jax",
        "mobile",
        ("nn.silu(norm()(x))", "nn.silu(norm()(x)).astype(jnp.float16).astype(x.dtype)", "act2", "float16|half"),
    ),
    *rows(
        *("jax", "dense"),
        (
            "jnp.concatenate([x, new], axis=-1)",
            "jnp.concatenate([x, new - new.mean(axis=(1, 2), keepdims=True)], axis=-1)",
            "layer1",
            "mean over rows and columns",
        ),
        ("nnx.elu(self.bn(self.up(x)))", "nnx.celu(self.bn(self.up(x)), 0.5)", "elu", "CELU"),
    ),
    *rows("jax", "resnet", ("nnx.relu(x + y)", "nnx.relu(x) + nnx.relu(y)", "stage1.unit1.residual", "relu|ReLU")),
    *rows("jax", "vgg", ("nn.relu(x)", "nn.relu(x - 0.1)", "block1.conv1", "0.1")),
    *rows("jax", "googlenet", ("x = x.mean(", "x = x[:, :-1].mean(", "pool5", "last row|row")),
    *rows("jax", "trained", ("/ 255", "/ 255 * 2 - 1", "input", "times as large|other numbers")),
    *rows("jax", "lenet_pure", ('+ params["fc1"]["b"]', '+ params["fc1"]["b"][::-1]', "dense1", "reverse")),
)
SIXTH: tuple[WrittenFault, ...] = (*_TORCH, *_MXNET, *_JAX)
