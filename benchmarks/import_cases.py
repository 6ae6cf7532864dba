"""The networks of `imports.py`: of every kind a function, and for every network what makes it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "importers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mxnet_runs import GLUON_ZOO, MODELS, draw, gluon_input
from triptych.utils.modules import run_file

Shape = tuple[int, int, int]
WRITTEN = Path(__file__).parent / "written"
# Images that the ports of `written/` take; those of the others are 3x64x64.
IMAGES: dict[str, Shape] = {
    **dict.fromkeys(("lenet", "lenet_functional", "lenet_hybrid"), (1, 28, 28)),
    "vgg": (3, 32, 32),
    "alexnet": (3, 99, 99),
    "nin": (1, 139, 139),
    "googlenet": (1, 96, 96),
    "squeezenet": (3, 67, 67),
}
PORTS = ("alexnet", "googlenet", "lenet", "mobilenet", "nin", "resnet", "squeezenet", "vgg")
TORCH_PORTS = ("alexnet", "googlenet", "lenet", "lenet_functional", "mobilenet_v2", "resnet", "squeezenet", "vgg")
SAVED = ("lenet", "resnet", "vgg", "squeezenet")  # of PyTorch, what becomes files
# Modules of tests/torch_networks.py, and their images.
FORM_IMAGES = (3, 12, 12)
FORMS = ("functional", "residual", "squeeze and excite", "channel shuffle", "inception's input", "conv_transpose")
# Height and width.
_TIMM = "resnet18 resnetv2_50 seresnet18 densenet121 mobilenetv2_100 dpn68"
TIMM = dict.fromkeys(_TIMM.split(), 64) | {"inception_v4": 107, "inception_resnet_v2": 107}
_TORCHVISION = (
    "resnet18 resnet50 resnext50_32x4d wide_resnet50_2 googlenet densenet121 squeezenet1_0 squeezenet1_1 mobilenet_v2"
    " mobilenet_v3_small mobilenet_v3_large mnasnet1_0 shufflenet_v2_x1_0 regnet_y_400mf efficientnet_b0"
)
TORCHVISION = dict.fromkeys(_TORCHVISION.split(), 64) | {
    "inception_v3": 107,
    "alexnet": 224,
    "vgg11": 224,
    "vgg16": 224,
}


@dataclass(frozen=True)
class Case:
    """`make`: the path of a file, made in a folder, or the network itself; `input`: of its images, where it does not
    say it; `weights`: a file of them, where there is one beside others; `missing`: what is not here."""

    name: str
    make: Callable[[Path], Any]
    input: Shape | None = None
    weights: Path | None = None
    missing: str = ""


def _nothing(name: str, missing: str) -> Iterator[Case]:
    yield Case(name, lambda folder: None, missing=missing)


def mxnet_files() -> Iterator[Case]:
    """Strangers' symbols with parameters."""
    if not MODELS.is_dir():
        yield from _nothing("strangers' files", "the folder of models is not there")
    for symbol in sorted(MODELS.glob("*/*-symbol.json")):
        for params in sorted(symbol.parent.glob(f"{symbol.name.removesuffix('-symbol.json')}-*.params")):
            yield Case(f"{symbol.parent.name}/{params.stem}", lambda folder, s=symbol: s, None, params)


def gluon_exports() -> Iterator[Case]:
    """Gluon's zoo as symbol and parameters."""
    for name in GLUON_ZOO:
        yield Case(name, lambda folder, name=name: _gluon_export(name, folder), gluon_input(name)[1:])


def _gluon_export(name: str, folder: Path) -> Path:
    import mxnet as mx

    symbol = mx.gluon.model_zoo.vision.get_model(name)(mx.sym.var("data"))
    arrays = draw(symbol, gluon_input(name))
    auxiliary = set(symbol.list_auxiliary_states())
    kinds = {key: "aux" if key in auxiliary else "arg" for key in arrays}
    mx.nd.save(str(folder / "net-0000.params"), {f"{kinds[key]}:{key}": mx.nd.array(arrays[key]) for key in arrays})
    symbol.save(str(folder / "net-symbol.json"))
    return folder / "net-symbol.json"


def _written(framework: str, name: str) -> Any:
    return run_file(WRITTEN / framework / f"{name}.py", f"written_{framework}_{name}").network()


def _ports(framework: str, names: tuple[str, ...]) -> Iterator[Case]:
    for port in names:
        yield Case(port, lambda folder, port=port: _written(framework, port), IMAGES.get(port, (3, 64, 64)))


def gluon_blocks() -> Iterator[Case]:
    """As people write them."""
    return _ports("mxnet", (*PORTS, "lenet_hybrid"))


def torch_modules() -> Iterator[Case]:
    """As people write them."""
    yield from _ports("torch", TORCH_PORTS)
    for form in FORMS:
        yield Case(form, lambda folder, form=form: _form(form), FORM_IMAGES)


def of_torchvision() -> Iterator[Case]:
    """Its networks for classification."""
    from torchvision import models

    for name, size in TORCHVISION.items():
        options = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        yield Case(name, lambda folder, n=name, o=options: getattr(models, n)(num_classes=10, **o), (3, size, size))


def of_timm() -> Iterator[Case]:
    """Its convolutional networks."""
    import timm

    for name, size in TIMM.items():
        yield Case(name, lambda folder, n=name: timm.create_model(n, num_classes=10), (3, size, size))


def _form(name: str) -> Any:
    import torch_networks

    return torch_networks.NETWORKS[name]()


def _files(save: Callable[[Any, Any, Path], Path]) -> Iterator[Case]:
    """Files of PyTorch's, of modules as people write them."""
    import torch

    for port in SAVED:
        shape = IMAGES.get(port, (3, 64, 64))

        def make(folder: Path, port: str = port, shape: Shape = shape) -> Path:
            return save(_written("torch", port).eval(), torch.zeros(2, *shape), folder)

        yield Case(port, make, shape)


def torch_scripts() -> Iterator[Case]:
    """Scripted: both modes."""
    import torch

    return _files(lambda net, x, folder: _saved(torch.jit.save, torch.jit.script(net), folder / "net.pt"))


def torch_traces() -> Iterator[Case]:
    """Traced: evaluation alone."""
    import torch

    return _files(lambda net, x, folder: _saved(torch.jit.save, torch.jit.trace(net, x), folder / "net.pt"))


def torch_programs() -> Iterator[Case]:
    """Exported programs."""
    import torch

    return _files(lambda net, x, folder: _saved(torch.export.save, torch.export.export(net, (x,)), folder / "net.pt2"))


def _saved(save: Callable[[Any, str], Any], made: Any, path: Path) -> Path:
    save(made, str(path))
    return path


def _onnx(dynamo: bool) -> Iterator[Case]:
    import torch

    def save(net: Any, x: Any, folder: Path) -> Path:
        torch.onnx.export(net, (x,), str(folder / "net.onnx"), dynamo=dynamo)
        return folder / "net.onnx"

    return _files(save)


def nnx_modules() -> Iterator[Case]:
    """Flax NNX."""
    return _flax("NNX")


def linen_modules() -> Iterator[Case]:
    """Flax Linen, with its variables."""
    return _flax("LINEN")


def _flax(style: str) -> Iterator[Case]:
    """In double precision, in which constants of their code are then, too."""
    import jax

    import flax_networks

    jax.config.update("jax_enable_x64", True)
    for name in getattr(flax_networks, style):
        shape = (3, flax_networks.SIZE, flax_networks.SIZE)
        yield Case(name, lambda folder, name=name: flax_networks.network(name), shape)


def keras_files() -> Iterator[Case]:
    """Strangers' files."""
    files = sorted(MODELS.glob("*keras/*.hdf5"))
    if not files:
        yield from _nothing("strangers' files", "the folder of models is not there")
    for path in files:
        yield Case(f"{path.parent.name}/{path.stem}", lambda folder, path=path: path)


def keras_outputs(path: Path, images: Any) -> tuple[Any]:
    """What a file's layers give by their formulas in Keras's documentation."""
    from test_keras_network import evaluated

    return (evaluated(path, np.moveaxis(images.astype(np.float64), 1, -1)),)


# What a kind needs beside triptych, and its networks.
KINDS: dict[str, tuple[str, Callable[[], Iterator[Case]]]] = {
    "MXNet file": ("mxnet", mxnet_files),
    "MXNet file of Gluon's zoo": ("mxnet", gluon_exports),
    "Gluon block": ("mxnet", gluon_blocks),
    "PyTorch module": ("torch", torch_modules),
    "torchvision's": ("torch torchvision", of_torchvision),
    "timm's": ("torch timm", of_timm),
    "TorchScript, scripted": ("torch", torch_scripts),
    "TorchScript, traced": ("torch", torch_traces),
    "PyTorch program": ("torch", torch_programs),
    "ONNX, first exporter": ("torch onnx onnxruntime", lambda: _onnx(dynamo=False)),
    "ONNX, second exporter": ("torch onnx onnxruntime onnxscript", lambda: _onnx(dynamo=True)),
    "Flax NNX": ("flax", nnx_modules),
    "Flax Linen": ("flax", linen_modules),
    "Keras file": ("h5py", keras_files),
}


def cases(kind: str) -> Iterator[Case]:
    """The networks of a kind, or what says that they cannot be had here."""
    packages, networks = KINDS[kind]
    missing = [package for package in packages.split() if find_spec(package) is None]
    return _nothing("all", f"{missing[0]} is not installed") if missing else networks()
