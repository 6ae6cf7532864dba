"""The ports of `benchmarks/written/`, written otherwise and as right: an edit each, of which no difference may come."""

# a row: what stands in the source, and what stands there in its place

from __future__ import annotations

from written_faults import WrittenFault


def _rows(framework: str, *rows: tuple[str, str, str]) -> tuple[WrittenFault, ...]:
    return tuple(WrittenFault(framework, port, old, new, "", "") for port, old, new in rows)


RIGHT: tuple[WrittenFault, ...] = (
    *_rows(
        "torch",
        ("decoder", "F.leaky_relu(self.mix(self.gate(x)), 0.1)", "torch.maximum(m := self.mix(self.gate(x)), 0.1 * m)"),
        (
            *("decoder", "x = self.act1(self.conv1(x))"),
            "x = self.conv1(x)\n        x = F.relu(x) - self.act1.weight.view(1, -1, 1, 1) * F.relu(-x)",
        ),
        ("decoder", "self.up(y)]", "F.conv_transpose2d(y, self.up.weight, self.up.bias, 2, 1)]"),
        (
            *("decoder", "x = torch.cat([x, self.up(y)], dim=1)"),
            "z = x.new_zeros(len(x), 14, *x.shape[2:])\n        z[:, :8], z[:, 8:] = x, self.up(y)\n        x = z",
        ),
        (
            *("decoder", "x + 0.2 * self.unit2(F.elu(self.unit1(x)))"),
            "torch.add(x, self.unit2(F.elu(self.unit1(x))), alpha=0.2)",
        ),
        ("decoder", "nn.Flatten(), nn.Dropout(0.3)", "nn.Dropout2d(0.3), nn.Flatten()"),
        ("resnet", "out = out + identity", "out += identity"),
        ("resnet", "self.avgpool(x).flatten(1)", "x.mean((2, 3))"),
        ("vgg", "nn.MaxPool2d(2, 2)", "nn.MaxPool2d(2, 2, ceil_mode=True)"),
        ("alexnet", "x.view(x.size(0), -1)", "x.permute(0, 2, 3, 1).reshape(x.size(0), -1)"),
        ("mobilenet_v2", "nn.ReLU6(inplace=True)", "nn.Hardtanh(0.0, 6.0, inplace=True)"),
        ("lenet_functional", "F.max_pool2d(F.relu(self.conv2(x)), 2)", "F.relu(F.max_pool2d(self.conv2(x), 2))"),
        (
            *("squeezenet", "torch.cat([self.act(self.expand1x1(x)), self.act(self.expand3x3(x))], 1)"),
            "self.act(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))",
        ),
        ("lenet", "nn.Linear(84, 10)", "nn.LazyLinear(10)"),
        ("lenet", "nn.Flatten()", "nn.Unflatten(1, (4, 4)), nn.Flatten()"),
    ),
    *_rows(
        "mxnet",
        (
            "decoder",
            "F.broadcast_mul(x, self.expand(self.reduce(s)))",
            "F.broadcast_mul(self.expand(self.reduce(s)), x)",
        ),
        ("decoder", "F.mean(x, axis=(2, 3), keepdims=True)", "F.contrib.AdaptiveAvgPooling2D(x, output_size=1)"),
        ("resnet", "x + residual", "F.elemwise_add(x, residual)"),
        ("vgg", 'nn.Activation("relu")', "nn.LeakyReLU(0.0)"),
        ("lenet_hybrid", "F.reshape(x, (0, -1))", "F.flatten(x)"),
        (
            "googlenet",
            "F.concat(p1, p2, p3, p4, dim=1)",
            "F.concat(F.concat(p1, p2, dim=1), F.concat(p3, p4, dim=1), dim=1)",
        ),
    ),
    *_rows(
        "jax",
        ("decoder", ", transpose_kernel=True", ""),
        ("decoder", "0.2 * self.unit2(nnx.elu(self.unit1(x)))", "self.unit2(nnx.elu(self.unit1(x))) / 5"),
        ("lenet", "nnx.sigmoid(self.dense1(x))", "1 / (1 + jnp.exp(-self.dense1(x)))"),
        ("resnet", "x.mean(axis=(1, 2))", "nnx.avg_pool(x, x.shape[1:3])[:, 0, 0]"),
        ("vgg", "nn.relu(x)", "nn.leaky_relu(x, 0.0)"),
        ("alexnet", "x / (k + alpha * total) ** beta", "x * jnp.exp(-beta * jnp.log(k + alpha * total))"),
        ("lenet_pure", 'x @ params["fc1"]["w"]', 'jnp.einsum("ni,io->no", x, params["fc1"]["w"])'),
        (
            *("googlenet", "x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=pad)"),
            "x = nn.max_pool(jnp.pad(x, ((0, 0), *pad, (0, 0))), (3, 3), strides=(2, 2))",
        ),
        ("mobilenet", "x = nn.avg_pool(x, x.shape[1:3])", "x = x.mean(axis=(1, 2), keepdims=True)"),
    ),
)
