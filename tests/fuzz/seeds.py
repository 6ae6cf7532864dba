"""Whole files of every kind that is read, from which the damage begins."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from symbol_json import node, top, variable
from triptych import zoo
from triptych.conformance import certificate
from triptych.conformance.suite import Verdict
from triptych.data import recordio
from triptych.optim import schedules
from triptych.spec import records
from triptych.training import checkpoint
from triptych.training.recipe import Recipe
from triptych.weights import initializers
from triptych.weights.formats import mxnet_params

ARRAYS = {"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "conv.bias": np.ones(2, np.float32)}
SHAPE = (3, 8, 8)


def written(suffix: str, write: Callable[[Path], object]) -> bytes:
    """What a function writes to a path."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"seed{suffix}"
        write(path)
        return path.read_bytes()


def idx() -> list[bytes]:
    arrays = [np.zeros((2, 3, 4), np.uint8), np.ones(5, np.uint8)]
    return [bytes([0, 0, 8, a.ndim]) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes() for a in arrays]


def cifar() -> list[bytes]:
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    state = b"(K\x01K\x01M\x00\x0c\x86" + dtype + b"\x89T\x00\x0c\x00\x00" + bytes(3072) + b"t"
    return [b"\x80\x02}(U\x04data" + array + state + b"bU\x06labels]K\x07au."]


def images() -> list[bytes]:
    seeds = []
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("BMP", "RGB"), ("GIF", "P")):
        Image.new(mode, (5, 4)).save(buffer := io.BytesIO(), kind)
        seeds.append(buffer.getvalue())
    return seeds


def symbol() -> dict[str, object]:
    convolution = {"kernel": "(3, 3)", "num_filter": "2", "pad": "(1, 1)"}
    return top(
        variable("data", __shape__="(0, 3, 8, 8)"),
        variable("c_weight"),
        variable("c_bias"),
        node("Convolution", "c", 0, 1, 2, **convolution),
        node("Activation", "a", 3, act_type="relu"),
        node("Flatten", "f", 4),
        variable("d_weight"),
        variable("d_bias"),
        node("FullyConnected", "d", 5, 6, 7, num_hidden="3"),
    )


def symbol_arrays() -> dict[str, np.ndarray]:
    shapes = {"c_weight": (2, 3, 3, 3), "c_bias": (2,), "d_weight": (3, 128), "d_bias": (3,)}
    return {f"arg:{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}


@cache
def params() -> bytes:
    return written(".params", lambda path: mxnet_params.write(path, symbol_arrays()))


def states() -> list[bytes]:
    """As `Trainer.save_states` pickles them for SGD: (states by index, the optimizer)."""
    sgd = b"ccopy_reg\n_reconstructor\ncmxnet.optimizer.optimizer\nSGD\nc__builtin__\nobject\nN\x87R"
    fields = b"}(U\x02lrG?\xb9\x99\x99\x99\x99\x99\x9aU\x08momentumG\0\0\0\0\0\0\0\0U\x02wdG\0\0\0\0\0\0\0\0"
    fields += b"U\x0anum_updateK\x03U\x0crescale_gradG?\xf0\0\0\0\0\0\0U\x0clr_schedulerNu"
    return [b"\x80\x02}K\x00Ns" + sgd + fields + b"b\x86."]


def onnx() -> list[bytes]:
    from triptych.exporting import onnx_file

    network = zoo.build("lenet", input=(1, 28, 28), width_ratio=2, dense_width=4)
    return [onnx_file.content(network, initializers.draw(network, 0))]


def keras_layers() -> list[dict[str, Any]]:
    return [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 8, 8, 3]}},
        {"class_name": "Conv2D", "config": {"name": "conv", "filters": 2, "kernel_size": [3, 3], "use_bias": False}},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool"}},
    ]


def keras() -> list[bytes]:
    import h5py

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs["keras_version"] = "2.2.4"
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": keras_layers()}})
            group = file.create_group("model_weights")
            group.attrs["layer_names"] = [b"conv"]
            group.create_group("conv").attrs["weight_names"] = [b"conv/kernel:0"]
            group["conv/conv/kernel:0"] = np.ones((3, 3, 3, 2), np.float32)

    return [written(".h5", write)]


def specs() -> list[bytes]:
    return [records.write(zoo.build(name)).encode() for name in ("lenet", "squeezenet1.1")]


def recipe() -> list[bytes]:
    made = [
        Recipe("a", architecture="lenet", schedule=schedules.OneCycle()),
        Recipe("b", architecture="lenet", spec=zoo.build("lenet"), data="synthetic", freeze=("conv1.*",)),
    ]
    return [json.dumps(records.encode(one)).encode() for one in made]


def checkpoint_state() -> list[bytes]:
    state = checkpoint.State(epoch=1, step=4, input=(1, 28, 28), class_names=("a", "b"))
    return [checkpoint.encode(checkpoint.Checkpoint(state, ARRAYS, {}), b"")[checkpoint.STATE]]


def certificates() -> list[bytes]:
    verdict = Verdict(zoo.build("lenet"), (), (), {})
    made = certificate.make([verdict], [None], [], precisions=("fp64",), seed=0, device="cpu")
    return [records.write(made).encode()]


def texts(*seeds: str) -> Callable[[], list[bytes]]:
    return lambda: [seed.encode() for seed in seeds]


@cache
def record_files() -> tuple[bytes, bytes]:
    """Six images of two classes as a RecordIO file, and its index."""
    packed = [(np.array([number % 2], np.float32), images()[0]) for number in range(6)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.rec"
        recordio.write(path, packed)
        return path.read_bytes(), path.with_suffix(".idx").read_bytes()


def npy() -> list[bytes]:
    np.save(buffer := io.BytesIO(), np.ones((2, 3, 4), np.uint8))
    return [buffer.getvalue()]


def keras_archive() -> list[bytes]:
    import h5py

    def write(path: Path) -> None:
        config = {"class_name": "Sequential", "config": {"name": "net", "layers": keras_layers()}}
        with h5py.File(weights := io.BytesIO(), "w") as file:
            file["layers/conv2d/vars/0"] = np.ones((3, 3, 3, 2), np.float32)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", weights.getvalue())

    return [written(".keras", write)]


@cache
def torch_archive(kind: str) -> bytes:
    """A small network as torch.export.save or torch.jit.save writes it, or its weights as torch.save once did."""
    import torch

    module: Any = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()).eval()
    example = torch.zeros(2, *SHAPE)
    if kind == "pickles":
        old = {"_use_new_zipfile_serialization": False}
        return written(".pt", lambda path: torch.save(module.state_dict(), path, **old))
    if kind == "script":
        return written(".pt", lambda path: torch.jit.save(torch.jit.trace(module, example), path))
    return written(".pt2", lambda path: torch.export.save(torch.export.export(module, (example,)), path))


def member(archive: bytes, ending: str) -> tuple[str, bytes]:
    """The first member of a ZIP archive whose name ends so: its name and its content."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        name = next(name for name in opened.namelist() if name.endswith(ending))
        return name, opened.read(name)


def with_member(archive: bytes, ending: str, content: bytes) -> bytes:
    """The archive with another content of that member: damage behind the archive's own checksum."""
    named, _ = member(archive, ending)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened, zipfile.ZipFile(into := io.BytesIO(), "w") as other:
        for name in opened.namelist():
            other.writestr(name, content if name == named else opened.read(name))
    return into.getvalue()
