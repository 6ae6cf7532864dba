"""What users of MXNet train a network with, right and wrong."""

import mxnet as mx
from mxnet import gluon
from mxnet.gluon import nn

RIGHT = {"learning_rate": 0.1, "momentum": 0.9, "wd": 5e-4}


def net(activation=None):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, use_bias=False), nn.BatchNorm(epsilon=1e-5), activation or nn.Activation("relu"))
    net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(5))
    return net


def bounded():
    return net(nn.HybridLambda(lambda ops, x: ops.clip(ops.relu(x), 0, 50)))


def right(net):
    return gluon.Trainer(net.collect_params(), "sgd", dict(RIGHT))


def of_parameters(parameters):
    return gluon.Trainer(parameters, "sgd", dict(RIGHT))


def alone():
    return mx.optimizer.SGD(**RIGHT)


def decay(net):
    return gluon.Trainer(net.collect_params(), "sgd", RIGHT | {"wd": 1e-4})


def rescaled(net):
    return gluon.Trainer(net.collect_params(), "sgd", RIGHT | {"rescale_grad": 1 / 64})


def stepped(net):
    schedule = mx.lr_scheduler.FactorScheduler(3, 0.1, base_lr=0.1)
    return gluon.Trainer(net.collect_params(), "sgd", RIGHT | {"lr_scheduler": schedule})


def adam(net):
    return gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})


criterion = gluon.loss.SoftmaxCrossEntropyLoss()


def summed(y, labels):
    return criterion(y, labels).sum()
