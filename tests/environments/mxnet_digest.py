"""MXNet's numbers over 40 Gluon training steps of LeNet, to the bit: two environments that print the same agree.

    python tests/environments/mxnet_digest.py      NumPy's version on standard error, the digest on standard output

`make test-all` compares NumPy 1.26 with NumPy 2. Everything that could differ is in it: drawing, batches from a
DataLoader, transforms, losses, gradients, updates, a metric, and parameters saved and loaded.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from triptych.backend import registry

registry.load("mxnet")

import mxnet as mx  # noqa: E402
from mxnet import autograd, gluon, nd  # noqa: E402

STEPS, BATCH = 40, 32


def lenet() -> gluon.nn.HybridSequential:
    net = gluon.nn.HybridSequential()
    for channels, padding in ((6, 2), (16, 0)):
        net.add(gluon.nn.Conv2D(channels, 5, padding=padding, activation="sigmoid"), gluon.nn.AvgPool2D(2, 2))
    for width in (120, 84):
        net.add(gluon.nn.Dense(width, activation="sigmoid"))
    net.add(gluon.nn.Dense(10))
    return net


def batches() -> gluon.data.DataLoader:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (STEPS * BATCH, 28, 28, 1), np.uint8)
    labels = random.integers(0, 10, STEPS * BATCH).astype(np.int32)
    transforms = gluon.data.vision.transforms
    to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.286, 0.353)])
    data = gluon.data.ArrayDataset(nd.array(images, dtype="uint8"), labels).transform_first(to_input)
    return gluon.data.DataLoader(data, BATCH, shuffle=False)


def train(net: gluon.nn.HybridSequential) -> list[bytes]:
    """The loss of every step and the metric after it, as bytes."""
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    loss_of, metric, seen = gluon.loss.SoftmaxCrossEntropyLoss(), mx.metric.Accuracy(), []
    for images, labels in batches():
        with autograd.record():
            logits = net(images)
            loss = loss_of(logits, labels)
        loss.backward()
        trainer.step(len(images))
        metric.update(labels, logits)
        seen += [loss.asnumpy().tobytes(), repr(float(metric.get()[1])).encode()]
    return seen


def main() -> None:
    mx.random.seed(0)
    net = lenet()
    net.initialize(mx.init.Xavier())
    net.hybridize()
    seen = train(net)
    assert len(seen) == 2 * STEPS
    with tempfile.TemporaryDirectory() as folder:
        net.save_parameters(str(Path(folder) / "net.params"))
        saved = nd.load(str(Path(folder) / "net.params"))
    values = [saved[name].asnumpy().tobytes() for name in sorted(saved)]
    print(f"NumPy {np.__version__}, MXNet {mx.__version__}", file=sys.stderr)
    print(hashlib.sha256(b"".join([*seen, *values])).hexdigest())


if __name__ == "__main__":
    main()
