"""Bring your own port: networks written as a user writes them, in each framework, against the spec."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marks import later
from mutants import networks as nets
from triptych import zoo
from triptych.__main__ import main
from triptych.analysis import ParameterInfo, parameters
from triptych.backend import installed
from triptych.conformance.align import align
from triptych.conformance.candidates import find
from triptych.conformance.comparison import Result
from triptych.conformance.pairing import pair
from triptych.conformance.port import locate_port
from triptych.errors import TriptychError
from triptych.ports import Captured, PortParameter
from triptych.spec import Architecture, BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAvgPool, Initializer, ReLU

NORMED = Architecture(
    "normed",
    (3, 8, 8),
    5,
    (
        *(Conv("conv", 8, (3, 3), padding=(1, 1)), BatchNorm("norm"), ReLU("relu"), GlobalAvgPool("pool")),
        *(Flatten("flatten"), Dropout("dropout", 0.5), Dense("dense", 5)),
    ),
    Initializer("kaiming_normal"),
)
LENET = zoo.build("lenet")
# The textbook's AlexNet, a sixteenth as wide; at 112 pixels as at 224, padding 1 and 0 give the same shapes.
ALEXNET = zoo.build("alexnet", input=(1, 112, 112), width_ratio=16)

TORCH = """
import torch
from torch import nn

def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))

def relu():
    net = lenet()
    net[4] = nn.ReLU(inplace=True)
    return net

def no_bias():
    net = lenet()
    net[3] = nn.Conv2d(6, 16, 5, bias=False)
    return net

class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, dy):
        return 2 * dy

class WrongGradient(nn.Module):
    def __init__(self):
        super().__init__()
        net = lenet()
        self.features, self.classifier = net[:6], net[6:]
    def forward(self, x):
        return self.classifier(Scaled.apply(self.features(x)))

class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        net = lenet()
        self.features, self.classifier = net[:6], net[7:]
    def forward(self, x):
        x = self.features(x).permute(0, 2, 3, 1)
        return self.classifier(x.reshape(len(x), -1))

class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = lenet()
    def forward(self, x):
        return self.net[9:](nn.functional.dropout(self.net[:9](x), 0.5, training=self.training))

class CutOff(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = lenet()
    def forward(self, x):
        return self.net[3:](self.net[:3](x).detach())

class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = lenet()
        torch.set_autocast_enabled("cpu", True)
    def forward(self, x):
        return self.net(x)

def scripted():
    net = lenet()
    net[1] = nn.ReLU()  # has the attribute `inplace`, which a script's module does not let go
    return torch.jit.script(net)

def leaves():
    raise SystemExit(0)

def misplaced():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

class Unordered(nn.Module):
    def __init__(self):
        super().__init__()
        self.b, self.a = nn.Linear(784, 784), nn.Linear(784, 784)
        self.c = nn.Linear(784, 10)
    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x.flatten(1))))))

def alexnet():
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=11, stride=4, padding=1), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(6, 16, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(16, 24, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 24, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 16, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2), nn.Flatten(),
        nn.LazyLinear(256), nn.ReLU(), nn.Dropout(p=0.5),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(p=0.5), nn.Linear(256, 10))

def broken():
    return nn.Sequential(nn.Conv2d(1, 6, 5), nn.Flatten(), nn.Linear(3, 10))

def fails():
    raise RuntimeError("no weights here")

def takes(size, depth=2):
    return lenet()

number = 3
"""
MXNET = """
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision

def lenet():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, kernel_size=5, padding=2, activation='sigmoid'), nn.AvgPool2D(2, 2),
            nn.Conv2D(16, kernel_size=5, activation='sigmoid'), nn.AvgPool2D(2, 2),
            nn.Dense(120, activation='sigmoid'), nn.Dense(84, activation='sigmoid'), nn.Dense(10))
    return net

def relu():
    net = lenet()
    net[2].act._act_type = 'relu'
    return net

def alexnet():
    net = nn.Sequential()
    net.add(nn.Conv2D(6, kernel_size=11, strides=4, activation='relu'), nn.MaxPool2D(pool_size=3, strides=2),
            nn.Conv2D(16, kernel_size=5, padding=2, activation='relu'), nn.MaxPool2D(pool_size=3, strides=2),
            nn.Conv2D(24, kernel_size=3, padding=1, activation='relu'),
            nn.Conv2D(24, kernel_size=3, padding=1, activation='relu'),
            nn.Conv2D(16, kernel_size=3, padding=1, activation='relu'), nn.MaxPool2D(pool_size=3, strides=2),
            nn.Dense(256, activation='relu'), nn.Dropout(0.5),
            nn.Dense(256, activation='relu'), nn.Dropout(0.5), nn.Dense(10))
    return net

class Surplus(nn.HybridSequential):
    def __init__(self):
        super().__init__(prefix='own_')
        self.add(lenet())
        self.params.get('surplus', shape=(7,), init='zeros')

def zoo_alexnet():
    return vision.alexnet()

def zoo_vgg11():
    return vision.vgg11()

def zoo_vgg16():
    return vision.vgg16()
"""
JAX = """
import jax
import numpy as np
from flax import linen, nnx

class Lenet(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv1 = nnx.Conv(1, 6, (5, 5), padding=2, rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding='VALID', rngs=rngs)
        self.out = nnx.Linear(84, 10, rngs=rngs)
        self.hidden = nnx.Linear(400, 120, rngs=rngs)
        self.dense = nnx.Linear(120, 84, rngs=rngs)
    def __call__(self, x):
        x = nnx.avg_pool(nnx.sigmoid(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.sigmoid(self.conv2(x)), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        return self.out(nnx.sigmoid(self.dense(nnx.sigmoid(self.hidden(x)))))

def lenet():
    return Lenet()

class Normed(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv, self.out = nnx.Conv(3, 8, (3, 3), padding=1, rngs=rngs), nnx.Linear(8, 5, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(8, epsilon=1e-5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    def __call__(self, x):
        return self.out(self.drop(nnx.relu(self.norm(self.conv(x))).mean((1, 2))))

class LinenLenet(linen.Module):
    pool: object = linen.avg_pool
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.avg_pool(linen.sigmoid(linen.Conv(6, (5, 5), padding=2)(x)), (2, 2), (2, 2))
        x = self.pool(linen.sigmoid(linen.Conv(16, (5, 5), padding='VALID')(x)), (2, 2), (2, 2))
        x = linen.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return linen.Dense(10)(linen.sigmoid(linen.Dense(84)(linen.sigmoid(linen.Dense(120)(x)))))

def linen_lenet():
    return LinenLenet()

def linen_max():
    return LinenLenet(linen.max_pool)

def function():
    random = np.random.default_rng(0)
    shapes = ((5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (400, 120), (120,), (120, 84), (84,), (84, 10), (10,))
    def network(p, x):
        def conv(x, w, b, padding):
            return jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + b
        x = linen.avg_pool(jax.nn.sigmoid(conv(x, p[0], p[1], 'SAME')), (2, 2), (2, 2))
        x = linen.avg_pool(jax.nn.sigmoid(conv(x, p[2], p[3], 'VALID')), (2, 2), (2, 2)).reshape(len(x), -1)
        x = jax.nn.sigmoid(x @ p[4] + p[5])
        return jax.nn.sigmoid(x @ p[6] + p[7]) @ p[8] + p[9]
    return network, [random.normal(size=shape) for shape in shapes]
"""
TORCHVISION = """
import torch

library = torch.library.Library("torchvision", "DEF")  # a CPU-only torch has none of its operators
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchvision.models import alexnet, vgg11, vgg16, vgg19
"""
FILES = {"own_torch": ("torch", TORCH), "own_mxnet": ("mxnet", MXNET), "own_jax": ("jax", JAX)}


@pytest.fixture(scope="module", autouse=True)
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The user's modules, importable as the command line finds them."""
    folder = tmp_path_factory.mktemp("own")
    for name, (_, text) in FILES.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "own_torchvision.py").write_text(TORCHVISION)
    (folder / "own_leaves.py").write_text("raise SystemExit(0)\n")
    (folder / "own_broken.py").write_text("import no_such_package\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def check(reference: str, architecture: Architecture, **options: Any) -> Result:
    name = FILES[reference.partition(":")[0]][0]
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    return locate_port(find(reference), architecture, name=reference, **options)


@pytest.mark.parametrize(
    ("reference", "note"),
    [
        ("own_torch:lenet", ""),
        ("own_torch:Dropping", ""),
        ("own_torch:ChannelsLast", "'dense1' were permuted"),
        ("own_mxnet:lenet", ""),
        ("own_jax:lenet", "'dense1' were permuted"),
        ("own_jax:linen_lenet", "'dense1' were permuted"),
        ("own_jax:function", "'dense1' were permuted"),
    ],
)
def test_a_right_port_shows_no_difference(reference: str, note: str) -> None:
    result = check(reference, LENET)
    assert result.difference is None
    assert note in " ".join(result.notes)
    assert ("permuted" in " ".join(result.notes)) == bool(note)
    assert set(result.not_run) == {"dropout", "update"}


def test_a_port_whose_layers_behave_otherwise_in_training() -> None:
    assert check("own_jax:Normed", NORMED).difference is None


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_search_for_a_cause_warns_of_nothing() -> None:
    """Among the mistakes tried is the mean for the variance, which has no root."""
    difference = check("own_torch:misplaced", NORMED).difference
    assert difference is not None
    assert (difference.layer, difference.phase) == ("norm", "forward eval")


@pytest.mark.parametrize(
    ("reference", "layer", "phase", "cause"),
    [
        ("own_torch:relu", "sigmoid2", "forward eval", "a ReLU is applied, not a sigmoid"),
        ("own_torch:no_bias", "conv2", "structure", ""),
        ("own_torch:WrongGradient", "flatten", "backward", ""),
        ("own_torch:CutOff", "conv1", "backward", ""),
        ("own_torch:scripted", "sigmoid1", "forward eval", "a ReLU is applied, not a sigmoid"),
        ("own_mxnet:relu", "sigmoid2", "forward eval", "a ReLU is applied, not a sigmoid"),
        ("own_mxnet:Surplus", "own_surplus", "structure", ""),
        ("own_jax:linen_max", "pool2", "forward eval", "maximum for average pooling"),
    ],
)
def test_a_wrong_port_is_named_at_its_layer(reference: str, layer: str, phase: str, cause: str) -> None:
    difference = check(reference, LENET).difference
    assert difference is not None
    assert (difference.layer, difference.phase, difference.cause) == (layer, phase, cause)


def test_the_textbooks_alexnet_parts_at_its_first_convolution() -> None:
    """Padding 1 in one framework and 0 in the other: same shapes and counts, other numbers."""
    assert check("own_torch:alexnet", ALEXNET).difference is None
    difference = check("own_mxnet:alexnet", ALEXNET).difference
    assert difference is not None
    assert (difference.layer, difference.phase) == ("conv1", "forward eval")
    assert difference.cause == "the padding is (0, 0), not (1, 1)"


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("zoo_vgg11", zoo.build("vgg11", input=(3, 32, 32))),
        pytest.param("zoo_vgg16", zoo.build("vgg16", input=(3, 64, 64)), marks=later),
        pytest.param("zoo_alexnet", zoo.build("alexnet_owt"), marks=later),
        pytest.param("zoo_vgg11", zoo.build("vgg11"), marks=later),
    ],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value.input)),
)
def test_gluons_own_model_zoo(name: str, architecture: Architecture) -> None:
    assert check(f"own_mxnet:{name}", architecture).difference is None


@later
@pytest.mark.parametrize(("name", "spec"), [("alexnet", "alexnet_owt"), *((n, n) for n in ("vgg11", "vgg16", "vgg19"))])
def test_torchvision(name: str, spec: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if "torch" not in installed():
        pytest.skip("torch is not installed")
    if importlib.util.find_spec("torchvision") is None:
        folder = tmp_path_factory.getbasetemp() / "torchvision"
        if not folder.exists():
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "torchvision",
                "-d",
                str(folder),
            ]
            subprocess.run(command, check=True, timeout=300)
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                wheel.extractall(folder)
            sys.path.insert(0, str(folder))
    assert locate_port(find(f"own_torchvision:{name}"), zoo.build(spec)).difference is None


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
def test_a_flag_that_lowers_the_precision_is_off_for_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    try:
        assert check("own_torch:Autocast", LENET, precision="fp32").difference is None
        assert torch.is_autocast_enabled("cpu")
    finally:
        torch.set_autocast_enabled("cpu", False)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(TriptychError, match="torch: the precision flag NVIDIA_TF32_OVERRIDE is 1, which a running"):
        check("own_torch:lenet", LENET, precision="fp32")


def test_the_two_flatten_orders_are_not_mixed_up_with_other_faults() -> None:
    """A wrong layer behind the flatten is found although its weights had to be permuted."""
    import torch

    net = find("own_torch:ChannelsLast")
    net.classifier[1] = torch.nn.ReLU()
    result = locate_port(net, LENET)
    assert result.difference is not None
    assert (result.difference.layer, result.difference.cause) == ("sigmoid3", "a ReLU is applied, not a sigmoid")


LIKE = {"weight": (4, 4), "bias": (4,)}


def info(path: str, *shape: int) -> ParameterInfo:
    return ParameterInfo(path, shape, "weight")


def test_parameters_are_paired_by_order() -> None:
    own = [PortParameter("x", (4, 4), "weight"), PortParameter("y", (4, 4), "weight")]
    pairs, problem = pair(own, [info("a.weight", 4, 4), info("b.weight", 4, 4)], {})
    assert (pairs, problem) == ({"a.weight": "x", "b.weight": "y"}, None)


def test_parameters_in_another_order_are_paired_by_a_unique_shape() -> None:
    own = [PortParameter("x", (3, 4)), PortParameter("y", (4, 4))]
    pairs, problem = pair(own, [info("a.weight", 4, 4), info("b.weight", 3, 4)], {})
    assert (pairs, problem) == ({"a.weight": "y", "b.weight": "x"}, None)


def test_an_ambiguous_pairing_asks_for_a_mapping_and_takes_it() -> None:
    own = [PortParameter("x", (3, 4)), PortParameter("y", (4, 4)), PortParameter("z", (4, 4))]
    infos = [info("a.weight", 4, 4), info("b.weight", 3, 4), info("c.weight", 4, 4)]
    with pytest.raises(TriptychError, match=r"ambiguous which parameter is 'a.weight' \(4, 4\): y, z"):
        pair(own, infos, {})
    pairs, problem = pair(own, infos, {"z": "a.weight"})
    assert (pairs, problem) == ({"a.weight": "z", "b.weight": "x", "c.weight": "y"}, None)


def test_a_batch_norms_arrays_are_paired_by_their_names_or_a_mapping_never_by_their_order() -> None:
    paths = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    infos = [ParameterInfo(path, (4,), path.rpartition(".")[2]) for path in paths]
    used = [PortParameter(name, (4,)) for name in ("mu", "sigma2", "gamma", "beta")]
    with pytest.raises(TriptychError, match=r"ambiguous which parameter is 'norm\.weight'"):
        pair(used, infos, {})
    mapping = dict(zip(("gamma", "beta", "mu", "sigma2"), paths, strict=True))
    assert pair(used, infos, mapping) == ({path: name for name, path in mapping.items()}, None)
    told = [PortParameter(path, (4,), path.rpartition(".")[2]) for path in reversed(paths)]
    assert pair(told, infos, {}) == ({path: path for path in paths}, None)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"nope": "a.weight"}, "unknown parameter of your network in the mapping 'nope'"),
        ({"x": "nope"}, "unknown parameter of the spec in the mapping 'nope'"),
        ({"x": "a.weight", "y": "a.weight"}, "gives one parameter of the spec to two"),
    ],
)
def test_a_wrong_mapping_is_refused(mapping: dict[str, str], words: str) -> None:
    own = [PortParameter("x", (4, 4)), PortParameter("y", (4, 4))]
    with pytest.raises(TriptychError, match=words):
        pair(own, [info("a.weight", 4, 4), info("b.weight", 4, 4)], mapping)


def test_a_parameter_without_a_partner_is_named() -> None:
    _, problem = pair([PortParameter("x", (5, 4))], [info("a.weight", 4, 4)], {})
    assert problem is not None
    assert (problem.name, problem.passed) == ("a.weight", False)


def test_of_equal_shapes_the_missing_one_is_named_by_the_order() -> None:
    infos = [ParameterInfo(f"{layer}.{role}", shape, role) for layer in "abc" for role, shape in LIKE.items()]
    own = [PortParameter(info.path, info.shape, info.role) for info in infos]
    for left_out in infos:
        _, problem = pair([parameter for parameter in own if parameter.name != left_out.path], infos, {})
        assert problem is not None
        assert problem.name == left_out.path


def test_operations_are_aligned_in_order_by_kind_and_shape() -> None:
    def one(kind: str, *shape: int) -> Captured:
        return Captured(kind, np.zeros(shape))

    layers = [("c", "Conv", (2, 4, 8, 8)), ("r", "ReLU", (2, 4, 8, 8)), ("p", "MaxPool", (2, 4, 4, 4))]
    seen = [one("Flatten", 2, 9), one("Conv", 2, 4, 8, 8), one("Sigmoid", 2, 4, 8, 8), one("MaxPool", 2, 4, 4, 4)]
    assert align(layers, seen) == {"c": 1, "r": 2, "p": 3}
    assert align(layers, seen[:1]) == {}
    assert align(layers, [one("MaxPool", 2, 4, 8, 8), one("MaxPool", 2, 4, 4, 4)]) == {"p": 1}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["locate", *arguments])
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
def test_the_command_on_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--left", "own_torch:relu", "--right", "lenet")
    assert status == 1
    assert "first difference: layer 'sigmoid2', phase forward eval" in out
    assert "likely cause: a ReLU is applied, not a sigmoid" in out
    assert "not run: update" in out
    status, out, _ = run(capsys, "--left", "own_torch:lenet", "--right", "lenet", "--json")
    assert (status, json.loads(out)["agree"]) == (0, True)


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "own_broken:net",
            "module 'own_broken' cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("own_torch:missing", "unknown name in 'own_torch' 'missing'"),
        ("own_torch:takes", "'own_torch:takes' needs arguments (size)"),
        ("own_torch:fails", "'own_torch:fails' failed: RuntimeError: no weights here"),
        ("own_torch:leaves", "'own_torch:leaves' failed: SystemExit: 0"),
        ("own_leaves:net", "module 'own_leaves' cannot be imported: SystemExit: 0"),
        ("builtins:dict", "a dict is no network of"),
        ("own_torch:number", "a int is no network of"),
        ("own_torch:broken", "'own_torch:broken' failed on images (2, 1, 28, 28) as NCHW: RuntimeError"),
    ],
)
def test_what_is_no_port_is_one_line(capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    status, _, error = run(capsys, "--left", name, "--right", "lenet")
    assert status == 2
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
@pytest.mark.parametrize("option", [("--device", "cuda"), ("--optimizers", "all")])
def test_an_option_that_a_port_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    status, _, error = run(capsys, "--left", "own_torch:lenet", "--right", "lenet", *option)
    assert status == 2
    assert "--device and --optimizers are for backends" in error


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be an object of names"),
        ('{"0.weigth": "conv1.weight"}', "'0.weigth'; did you mean '0.weight'?"),
    ],
)
def test_a_bad_mapping_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "mapping.json"
    path.write_text(content)
    status, _, error = run(capsys, "--left", "own_torch:lenet", "--right", "lenet", "--mapping", str(path))
    assert status == 2
    assert words in error


def test_every_parameter_of_the_zoo_pairs_with_itself() -> None:
    """By order and shape alone: a port that lists the spec's own parameters is never ambiguous."""
    for name in zoo.registry():
        infos = parameters(zoo.build(name))
        own = [PortParameter(i.path, i.shape, i.path.rpartition(".")[2]) for i in infos]
        pairs, problem = pair(own, infos, {})
        assert problem is None
        assert pairs == {i.path: i.path for i in infos}


def test_side_classifiers_are_left_out_and_it_is_said() -> None:
    torch = pytest.importorskip("torch")
    layers = (torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 9, 3))
    found = locate_port(torch.nn.Sequential(*layers), nets.SIDE)
    assert found.difference is None
    assert found.not_run["side classifiers"] == "left out on both sides"
    assert "side classifiers" not in locate_port(torch.nn.Sequential(*layers), nets.PLAIN).not_run
