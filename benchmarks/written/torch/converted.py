"""A network of Flax's, and the same in PyTorch with its weights, as somebody converts them."""

import numpy as np
import torch
from flax import nnx
from torch import nn
from torch.nn import functional as F


class Source(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 6, (3, 5), padding="VALID", rngs=rngs)
        self.bn = nnx.BatchNorm(6, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(6, 8, (3, 3), padding=1, feature_group_count=2, rngs=rngs)
        self.fc1 = nnx.Linear(8 * 4 * 5, 12, rngs=rngs)
        self.fc2 = nnx.Linear(12, 12, rngs=rngs)
        self.fc3 = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.bn(self.conv1(x))), (2, 2), strides=(2, 2))
        x = nnx.relu(self.conv2(x))
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc3(nnx.relu(self.fc2(x)))


def source():
    net, random = Source(nnx.Rngs(0)), np.random.default_rng(0)
    for array in (net.conv1.bias, net.conv2.bias, net.fc1.bias, net.bn.scale, net.bn.bias, net.bn.mean, net.bn.var):
        array[...] = random.uniform(0.5, 1.5, array.shape).astype(np.float32)
    return net


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, (3, 5))
        self.bn = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.fc1 = nn.Linear(160, 12)
        self.fc2 = nn.Linear(12, 12)
        self.fc3 = nn.Linear(12, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn(self.conv1(x))), 2)
        x = F.relu(self.conv2(x)).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def convert(old, new):
    """HWIO to OIHW; the first dense layer takes its inputs in (H, W, C) order there."""
    arrays = {}
    for name in ("conv1", "conv2"):
        arrays[f"{name}.weight"] = getattr(old, name).kernel[...].transpose(3, 2, 0, 1)
    for name in ("fc1", "fc2", "fc3"):
        arrays[f"{name}.weight"] = getattr(old, name).kernel[...].T
    arrays["fc1.weight"] = arrays["fc1.weight"].reshape(12, 4, 5, 8).transpose(0, 3, 1, 2).reshape(12, 160)
    for name in ("conv1", "conv2", "fc1", "fc2", "fc3"):
        arrays[f"{name}.bias"] = getattr(old, name).bias[...]
    arrays |= {"bn.weight": old.bn.scale[...], "bn.bias": old.bn.bias[...]}
    arrays |= {"bn.running_mean": old.bn.mean[...], "bn.running_var": old.bn.var[...]}
    state = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in arrays.items()}
    new.load_state_dict(state, strict=False)
    return new


def network():
    return convert(source(), Net())
