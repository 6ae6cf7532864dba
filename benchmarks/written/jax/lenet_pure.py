"""LeNet with ReLU, as functions of a dictionary of arrays, images (N, C, H, W)."""

import jax
import jax.numpy as jnp
from jax import lax


def init(key):
    shapes = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (400, 120), "fc2": (120, 84), "fc3": (84, 10)}
    params = {}
    for name, shape in shapes.items():
        key, sub = jax.random.split(key)
        out = shape[0] if len(shape) == 4 else shape[1]
        params[name] = {"w": jax.random.normal(sub, shape) * 0.1, "b": jnp.zeros(out)}
    return params


def conv(p, x, padding):
    y = lax.conv_general_dilated(x, p["w"], (1, 1), padding, dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return y + p["b"][None, :, None, None]


def pool(x):
    total = lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return total / 4


def forward(params, x):
    x = pool(jax.nn.relu(conv(params["conv1"], x, [(2, 2), (2, 2)])))
    x = pool(jax.nn.relu(conv(params["conv2"], x, "VALID")))
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.relu(x @ params["fc1"]["w"] + params["fc1"]["b"])
    x = jax.nn.relu(x @ params["fc2"]["w"] + params["fc2"]["b"])
    return x @ params["fc3"]["w"] + params["fc3"]["b"]


def network():
    return forward, init(jax.random.key(0))
