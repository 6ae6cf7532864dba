"""Network in network as a symbol."""

import mxnet as mx


def block(x, name, channels, kernel, stride=1, pad=0):
    x = mx.sym.Convolution(
        x, name=name + "a", num_filter=channels, kernel=(kernel, kernel), stride=(stride, stride), pad=(pad, pad)
    )
    x = mx.sym.relu(x)
    for part in "bc":
        x = mx.sym.Convolution(x, name=name + part, num_filter=channels, kernel=(1, 1))
        x = mx.sym.relu(x)
    return x


def network():
    data = mx.sym.Variable("data")
    x = block(data, "one", 12, 11, 4)
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="valid")
    x = block(x, "two", 32, 5, 1, 2)
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="valid")
    x = block(x, "three", 48, 3, 1, 1)
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="valid")
    x = mx.sym.Dropout(x, p=0.5)
    x = block(x, "four", 10, 3, 1, 1)
    x = mx.sym.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="avg")
    x = mx.sym.Flatten(x)
    return mx.gluon.SymbolBlock(x, data)
