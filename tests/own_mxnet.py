"""Networks as users of Gluon write them, right and wrong."""

from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision


def lenet():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, kernel_size=5, padding=2, activation="sigmoid"),
        nn.AvgPool2D(2, 2),
        nn.Conv2D(16, kernel_size=5, activation="sigmoid"),
        nn.AvgPool2D(2, 2),
        nn.Dense(120, activation="sigmoid"),
        nn.Dense(84, activation="sigmoid"),
        nn.Dense(10),
    )
    return net


def relu():
    net = lenet()
    net[2].act._act_type = "relu"
    return net


def alexnet():
    net = nn.Sequential()
    net.add(
        nn.Conv2D(6, kernel_size=11, strides=4, activation="relu"),
        nn.MaxPool2D(pool_size=3, strides=2),
        nn.Conv2D(16, kernel_size=5, padding=2, activation="relu"),
        nn.MaxPool2D(pool_size=3, strides=2),
        nn.Conv2D(24, kernel_size=3, padding=1, activation="relu"),
        nn.Conv2D(24, kernel_size=3, padding=1, activation="relu"),
        nn.Conv2D(16, kernel_size=3, padding=1, activation="relu"),
        nn.MaxPool2D(pool_size=3, strides=2),
        nn.Dense(256, activation="relu"),
        nn.Dropout(0.5),
        nn.Dense(256, activation="relu"),
        nn.Dropout(0.5),
        nn.Dense(10),
    )
    return net


class Surplus(nn.HybridSequential):
    def __init__(self):
        super().__init__(prefix="own_")
        self.add(lenet())
        self.params.get("surplus", shape=(7,), init="zeros")


def zoo_alexnet():
    return vision.alexnet()


def zoo_vgg11():
    return vision.vgg11()


def zoo_vgg16():
    return vision.vgg16()
