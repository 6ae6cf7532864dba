"""AlexNet of 2012 as a symbol; LRN needs float32."""

import mxnet as mx


def symbol():
    data = mx.sym.Variable("data")
    x = mx.sym.Convolution(data, name="conv1", kernel=(11, 11), stride=(4, 4), num_filter=6)
    x = mx.sym.Activation(x, act_type="relu")
    x = mx.sym.LRN(x, alpha=0.0005, beta=0.75, knorm=2, nsize=5)
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max")
    x = mx.sym.Convolution(x, name="conv2", kernel=(5, 5), pad=(2, 2), num_filter=16, num_group=2)
    x = mx.sym.Activation(x, act_type="relu")
    x = mx.sym.LRN(x, alpha=0.0005, beta=0.75, knorm=2, nsize=5)
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max")
    x = mx.sym.Convolution(x, name="conv3", kernel=(3, 3), pad=(1, 1), num_filter=24)
    x = mx.sym.Activation(x, act_type="relu")
    x = mx.sym.Convolution(x, name="conv4", kernel=(3, 3), pad=(1, 1), num_filter=24, num_group=2)
    x = mx.sym.Activation(x, act_type="relu")
    x = mx.sym.Convolution(x, name="conv5", kernel=(3, 3), pad=(1, 1), num_filter=16, num_group=2)
    x = mx.sym.Activation(x, act_type="relu")
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max")
    x = mx.sym.Flatten(x)
    for name in ("fc6", "fc7"):
        x = mx.sym.FullyConnected(x, name=name, num_hidden=256)
        x = mx.sym.Dropout(mx.sym.Activation(x, act_type="relu"), p=0.5)
    return mx.sym.FullyConnected(x, name="fc8", num_hidden=10)


def network():
    return mx.gluon.SymbolBlock(symbol(), mx.sym.Variable("data"))
