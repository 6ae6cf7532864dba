"""A network of PyTorch's, and the same in Linen with its weights, as somebody converts them."""

import jax.numpy as jnp
import torch
from flax import linen as nn


def source():
    torch.manual_seed(0)
    layers = torch.nn
    net = layers.Sequential(
        *(layers.Conv2d(3, 6, 3, bias=False), layers.BatchNorm2d(6), layers.ReLU()),
        *(layers.Conv2d(6, 6, 3, padding=1, groups=6), layers.BatchNorm2d(6), layers.ReLU(), layers.MaxPool2d(2)),
        *(layers.Flatten(), layers.Linear(6 * 4 * 5, 12), layers.ReLU(), layers.Linear(12, 12)),
    )
    with torch.no_grad():
        for _, array in (*net.named_parameters(), *net.named_buffers()):
            if array.ndim == 1:
                array.copy_(torch.rand_like(array) + 0.5)
    return net


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(6, (3, 3), padding="VALID", use_bias=False, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="bn1")(x))
        x = nn.Conv(6, (3, 3), padding=1, feature_group_count=6, name="conv2")(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="bn2")(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(12, name="fc2")(nn.relu(nn.Dense(12, name="fc1")(x)))


def convert(net):
    state = {name: jnp.asarray(value.detach().numpy()) for name, value in net.state_dict().items()}
    params, stats = {}, {}
    for name, old in (("conv1", 0), ("conv2", 3)):
        params[name] = {"kernel": state[f"{old}.weight"].transpose(2, 3, 1, 0)}
    params["conv2"]["bias"] = state["3.bias"]
    for name, old in (("bn1", 1), ("bn2", 4)):
        params[name] = {"scale": state[f"{old}.weight"], "bias": state[f"{old}.bias"]}
        stats[name] = {"mean": state[f"{old}.running_mean"], "var": state[f"{old}.running_var"]}
    kernel = state["8.weight"].reshape(12, 6, 4, 5).transpose(2, 3, 1, 0).reshape(120, 12)
    params["fc1"] = {"kernel": kernel, "bias": state["8.bias"]}
    params["fc2"] = {"kernel": state["10.weight"].T, "bias": state["10.bias"]}
    return {"params": params, "batch_stats": stats}


def network():
    return Net(), convert(source())
