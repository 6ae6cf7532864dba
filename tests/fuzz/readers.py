"""Every reader of files and every grammar of the command line, each with what it is begun from."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from symbol_json import node, top, variable
from triptych import zoo
from triptych.cli.options import NetworkOptions
from triptych.cli.run_options import parse_dense_size
from triptych.conformance import certificate, verification
from triptych.conformance.suite import Verdict
from triptych.data import cifar10, decoded, fashion_mnist, subset, synthetic, tfds
from triptych.importers import mxnet_network, mxnet_states
from triptych.importers.steps import Request
from triptych.optim import schedules
from triptych.porting import matching, sources
from triptych.spec import records
from triptych.spec.analysis import parameters, totals
from triptych.training import capacity, checkpoint, run_folder
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError
from triptych.utils.terminal import harmless
from triptych.weights import initializers, store
from triptych.weights.formats import flax_msgpack, mxnet_params, npz_file, torch_file

ARRAYS = {"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "conv.bias": np.ones(2, np.float32)}
SHAPE = (3, 8, 8)


@dataclass(frozen=True)
class Reader:
    """`read` takes the bytes (of a grammar: of its text) and a folder of its own; `seeds` are whole ones. `needs` is a
    package without which it does not read."""

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    needs: str = "numpy"


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """A reader of bytes from one that takes a path."""

    def of_bytes(content: bytes, folder: Path) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return of_bytes


def from_text(read: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    """A grammar: the text as a shell would hand it over."""
    return lambda content, _: read(content.decode("utf-8", "surrogateescape").replace("\0", ""))


def written(suffix: str, write: Callable[[Path], object]) -> bytes:
    """What a function writes to a path."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"seed{suffix}"
        write(path)
        return path.read_bytes()


# --- seeds -----------------------------------------------------------------------------------------------------------


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


def keras() -> list[bytes]:
    import h5py

    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 8, 8, 3]}},
        {"class_name": "Conv2D", "config": {"name": "conv", "filters": 2, "kernel_size": [3, 3], "use_bias": False}},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool"}},
    ]

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs["keras_version"] = "2.2.4"
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
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


# --- readers ---------------------------------------------------------------------------------------------------------


def read_network(path: Path) -> object:
    """A network, and all that is said of one."""
    imported = sources.read(str(path), checked=False)  # no framework runs it
    return totals(imported.architecture), parameters(imported.architecture)


def read_symbol(content: bytes, folder: Path) -> object:
    (folder / "net-symbol.json").write_bytes(content)
    (folder / "net-0000.params").write_bytes(params())
    return read_network(folder / "net-symbol.json")


def read_params(content: bytes, folder: Path) -> object:
    (folder / "net-symbol.json").write_text(json.dumps(symbol()))
    (folder / "net-0000.params").write_bytes(content)
    return mxnet_network.load(folder / "net-symbol.json", folder / "net-0000.params", Request(input=SHAPE))


def read_states(content: bytes, folder: Path) -> object:
    (folder / "net-symbol.json").write_text(json.dumps(symbol()))
    (folder / "net-0000.params").write_bytes(params())
    (folder / "net.states").write_bytes(content)
    files = (folder / "net.states", folder / "net-symbol.json", folder / "net-0000.params")
    return mxnet_states.load(*files, Request(input=SHAPE))


def read_recipe(content: bytes, folder: Path) -> object:
    (folder / run_folder.RECIPE).write_bytes(content)
    read = run_folder.read_recipe(folder)
    read.rates(3, 4, [])
    return capacity.check_training(read, "cpu")


def read_epochs(content: bytes, folder: Path) -> object:
    (folder / run_folder.METRICS).write_bytes(content)
    return run_folder.read_epochs(folder)


def read_certificate(path: Path) -> object:
    """Read, and judged as far as nothing has to be run."""
    read = certificate.read(path)
    for certified in read.architectures:
        list(verification.spec_faults(certified))
    return verification.verify(read) if certificate.own_digest(read) != read.digest else None


def read_state(content: bytes, folder: Path) -> object:
    (folder / checkpoint.STATE).write_bytes(content)
    return checkpoint.read_state(folder)


def read_manifest(content: bytes, folder: Path) -> object:
    """As it is read before a file is loaded, and when another is written beside it."""
    file = folder / "x.safetensors"
    file.write_bytes(store.encode(ARRAYS))
    (folder / store.MANIFEST).write_bytes(content)
    with contextlib.suppress(TriptychError):
        store.load(file)
    return store.save(file, ARRAYS)


def read_description(content: bytes, folder: Path) -> object:
    (folder / tfds.FEATURES).write_bytes(content)
    return tfds.check_features(folder, "tfds:x")


def read_part(text: str) -> object:
    name = f"synthetic@{text}"
    _, part = subset.divide(name)
    return part and subset.take(synthetic.load(), part, name)


def read_schedule(text: str) -> object:
    read = schedules.parse(text)
    moments = (schedules.Moment(step, 4, 3, [schedules.Score(2.0, 0.1)]) for step in (0, 5, 11))
    return [(read.learning_rate(0.1, at), read.momentum(0.9, at)) for at in moments]


EPOCH = {"epoch": 1, "step": 4, "backend": "torch", "train_loss": 2.3, "train_accuracy": 0.1, "test_loss": 2.3}
EPOCH |= {"test_accuracy": 0.1, "seconds": 1.0, "images_per_second": 512.0, "losses": [2.3, 2.2]}
FEATURE = {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "json": '{"a": {}}'}

READERS: dict[str, Reader] = {
    "IDX": Reader(lambda content, _: fashion_mnist.read_idx(content, "x"), idx),
    "CIFAR": Reader(lambda content, _: cifar10.parse_batch(content, "x"), cifar),
    "image": Reader(from_file("x.png", lambda path: decoded.decode([path])), images),
    "TFDS description": Reader(read_description, lambda: [json.dumps(FEATURE).encode()]),
    ".params": Reader(read_params, lambda: [params()]),
    "symbol.json": Reader(read_symbol, lambda: [json.dumps(symbol()).encode()]),
    "trainer states": Reader(read_states, states),
    "ONNX": Reader(from_file("x.onnx", read_network), onnx, "onnx"),
    "HDF5": Reader(from_file("x.h5", read_network), keras, "h5py"),
    "safetensors": Reader(from_file("x.safetensors", store.load), lambda: [store.encode(ARRAYS)]),
    ".pt": Reader(
        from_file("x.pt", torch_file.read), lambda: [written(".pt", lambda path: torch_file.write(path, ARRAYS))]
    ),
    ".npz": Reader(
        from_file("x.npz", npz_file.read), lambda: [written(".npz", lambda path: npz_file.write(path, ARRAYS))]
    ),
    ".msgpack": Reader(
        from_file("x.msgpack", flax_msgpack.read),
        lambda: [written(".msgpack", lambda path: flax_msgpack.write(path, ARRAYS))],
        "msgpack",
    ),
    "spec": Reader(from_file("x.json", read_network), specs),
    "recipe": Reader(read_recipe, recipe),
    "state.json": Reader(read_state, checkpoint_state),
    "manifest": Reader(read_manifest, lambda: [b"{}", b'{"x.safetensors": "0"}']),
    "metrics": Reader(read_epochs, lambda: [json.dumps(EPOCH).encode() + b"\n"]),
    "certificate": Reader(from_file("x.json", read_certificate), certificates),
    "mapping": Reader(from_file("x.json", matching.read_mapping), texts('{"features.0.weight": "conv1.weight"}')),
    "--data": Reader(from_text(read_part), texts("classes=2-5,train=40,test=20", "train=50")),
    "--schedule": Reader(
        from_text(read_schedule),
        texts("step:every=2,factor=0.5", "one-cycle:maximum=0.1,warm_up=0.3", "plateau:patience=2", "cosine:per=batch"),
    ),
    "--init": Reader(from_text(initializers.parse), texts("normal:0.01", "constant:0.1", "xavier_uniform")),
    "--input": Reader(from_text(lambda text: NetworkOptions(input=text).shape()), texts("3x224x224", "1,28,28")),
    "--dense-size": Reader(from_text(lambda text: parse_dense_size(True, text)), texts("256", "256x384")),
    "what is shown": Reader(from_text(lambda text: harmless(text).encode()), texts("a\x1b[2J", "ä")),
}
