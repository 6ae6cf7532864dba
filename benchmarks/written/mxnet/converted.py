"""A network of PyTorch's, and the same in Gluon with its weights, as somebody converts them."""

import mxnet as mx
import torch
from mxnet.gluon import nn


def source():
    torch.manual_seed(0)
    layers = torch.nn
    net = layers.Sequential(
        *(layers.Conv2d(3, 6, 3, bias=False), layers.BatchNorm2d(6), layers.ReLU()),
        *(layers.Conv2d(6, 8, 3, padding=1), layers.BatchNorm2d(8), layers.ReLU(), layers.MaxPool2d(2)),
        *(layers.Flatten(), layers.Linear(8 * 4 * 5, 12), layers.ReLU(), layers.Linear(12, 12)),
    )
    with torch.no_grad():
        for _, array in (*net.named_parameters(), *net.named_buffers()):
            if array.ndim == 1:
                array.copy_(torch.rand_like(array) + 0.5)
    return net


def build():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, 3, use_bias=False, in_channels=3), nn.BatchNorm(in_channels=6), nn.Activation("relu"))
    net.add(nn.Conv2D(8, 3, padding=1, in_channels=6), nn.BatchNorm(in_channels=8), nn.Activation("relu"))
    net.add(nn.MaxPool2D(2, 2), nn.Dense(12, activation="relu", in_units=160), nn.Dense(12, in_units=12))
    return net


def convert(old, new):
    new.initialize()
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    olds = [module for module in old if isinstance(module, kinds)]
    news = [block for block in new if hasattr(block, "weight") or hasattr(block, "gamma")]
    for theirs, ours in zip(olds, news):
        if isinstance(theirs, torch.nn.BatchNorm2d):
            pairs = [(ours.gamma, theirs.weight), (ours.beta, theirs.bias)]
            pairs += [(ours.running_mean, theirs.running_mean), (ours.running_var, theirs.running_var)]
        else:
            pairs = [(ours.weight, theirs.weight)]
            pairs += [(ours.bias, theirs.bias)] if theirs.bias is not None else []
        for parameter, array in pairs:
            parameter.set_data(mx.nd.array(array.detach().numpy()))
    return new


def network():
    return convert(source(), build())
