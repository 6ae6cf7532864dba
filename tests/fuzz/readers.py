"""Every reader of files and every grammar of the command line, each with what it is begun from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from fuzz.limits import forked_trial
from fuzz.seeds import (
    ARRAYS,
    SHAPE,
    certificates,
    checkpoint_state,
    cifar,
    idx,
    images,
    keras,
    keras_archive,
    member,
    npy,
    onnx,
    params,
    recipe,
    record_files,
    specs,
    states,
    symbol,
    texts,
    torch_archive,
    with_member,
    written,
)
from triptych import zoo
from triptych.cli.networks import summarised
from triptych.cli.options import DEFAULT_NETWORK, NetworkOptions
from triptych.cli.run_options import parse_dense_size
from triptych.conformance import certificate, verification
from triptych.data import cached, cifar10, decoded, fashion_mnist, recordio, subset, synthetic, tfds
from triptych.importers import mxnet_network, mxnet_states
from triptych.importers.steps import Request
from triptych.optim import schedules
from triptych.porting import matching, own_images, own_training, sources
from triptych.spec.analysis import parameters, totals
from triptych.training import capacity, checkpoint, run_folder, saving
from triptych.utils.errors import TriptychError
from triptych.utils.terminal import harmless
from triptych.weights import initializers, store
from triptych.weights.formats import flax_msgpack, npz_file, torch_file


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


def read_hdf5(path: Path) -> object:
    with mock.patch("triptych.weights.formats.keras_trial.try_out", forked_trial):
        return read_network(path)


def read_records(content: bytes, folder: Path) -> object:
    (folder / "x.idx").unlink(missing_ok=True)
    (folder / "x.rec").write_bytes(content)
    return recordio.load(folder / "x.rec")


def read_index(content: bytes, folder: Path) -> object:
    (folder / "x.rec").write_bytes(record_files()[0])
    (folder / "x.idx").write_bytes(content)
    return recordio.read(folder / "x.rec")


def read_cache(array: bytes, note: bytes, folder: Path) -> object:
    (folder / "x.npy").write_bytes(array)
    (folder / "x.json").write_bytes(note)
    return cached._read_cache(folder / "x.npy", "k")


def within(kind: str, ending: str, name: str) -> Reader:
    """A reader of one member of an archive of PyTorch's."""

    def read(content: bytes, folder: Path) -> object:
        (folder / name).write_bytes(with_member(torch_archive(kind), ending, content))
        return read_network(folder / name)

    return Reader(read, lambda: [member(torch_archive(kind), ending)[1]], "torch")


def read_layers(conv_arch: str | None, stack: str | None) -> object:
    return totals(summarised(None, conv_arch, stack, DEFAULT_NETWORK, checked=False))


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
NOTE = {"key": "k", "sha256": "", "bad": "0 1"}
FEATURE = {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "json": '{"a": {}}'}

READERS: dict[str, Reader] = {
    "IDX": Reader(lambda content, _: fashion_mnist.read_idx(content, "x"), idx),
    "CIFAR": Reader(lambda content, _: cifar10.parse_batch(content, "x"), cifar),
    "RecordIO": Reader(read_records, lambda: [record_files()[0]]),
    "RecordIO's index": Reader(read_index, lambda: [record_files()[1]]),
    "cached images": Reader(lambda content, folder: read_cache(content, json.dumps(NOTE).encode(), folder), npy),
    "cache note": Reader(
        lambda content, folder: read_cache(npy()[0], content, folder), lambda: [json.dumps(NOTE).encode()]
    ),
    "image": Reader(from_file("x.png", lambda path: decoded.decode([path])), images),
    "TFDS description": Reader(read_description, lambda: [json.dumps(FEATURE).encode()]),
    ".params": Reader(read_params, lambda: [params()]),
    "symbol.json": Reader(read_symbol, lambda: [json.dumps(symbol()).encode()]),
    "trainer states": Reader(read_states, states),
    "ONNX": Reader(from_file("x.onnx", read_network), onnx, "onnx"),
    "HDF5": Reader(from_file("x.h5", read_hdf5), keras, "h5py"),
    "Keras": Reader(from_file("x.keras", read_hdf5), keras_archive, "h5py"),
    "TorchScript": Reader(from_file("x.pt", read_network), lambda: [torch_archive("script")], "torch"),
    "torch.save before 1.6": Reader(from_file("x.pt", torch_file.read), lambda: [torch_archive("pickles")], "torch"),
    "TorchScript's code": within("script", "__torch__/torch/nn/modules/container.py", "x.pt"),
    "exported program": Reader(from_file("x.pt2", read_network), lambda: [torch_archive("exported")], "torch"),
    "exported program's JSON": within("exported", "model.json", "x.pt2"),
    "safetensors": Reader(from_file("x.safetensors", store.load), lambda: [store.encode(ARRAYS)]),
    ".pt": Reader(
        from_file("x.pt", torch_file.read),
        lambda: [written(".pt", lambda path: torch_file.write(path, ARRAYS))],
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
    "--conv-arch": Reader(from_text(lambda text: read_layers(text, None)), texts("1x64,2x128", "3x8")),
    "--stack": Reader(from_text(lambda text: read_layers(None, text)), texts("conv3 valid, conv3 s2, pool2")),
    "--save-every": Reader(from_text(saving.parse_interval), texts("200steps", "5min", "30 s")),
    "--left-optimizer": Reader(from_text(own_training.parse), texts("sgd:learning_rate=0.1,momentum=0.9 cosine")),
    "--left-preprocess": Reader(
        from_text(lambda text: own_images.parse(text, zoo.build("vgg11"))),
        texts("mean=0.5,0.4,0.3 std=0.2,0.3,0.2 channel_order=bgr"),
    ),
    "--init": Reader(from_text(initializers.parse), texts("normal:0.01", "constant:0.1", "xavier_uniform")),
    "--input": Reader(from_text(lambda text: NetworkOptions(input=text).shape()), texts("3x224x224", "1,28,28")),
    "--dense-size": Reader(from_text(lambda text: parse_dense_size(True, text)), texts("256", "256x384")),
    "what is shown": Reader(from_text(lambda text: harmless(text).encode()), texts("a\x1b[2J", "ä")),
}
