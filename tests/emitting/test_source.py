"""Emitted files read as a person would have written them: short, no line thrice, ruff-clean; strangers' names are
harmless."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import awkward_networks
from emitting import runners
from triptych import zoo
from triptych.backend import registry
from triptych.backend.source import as_single, of_single
from triptych.emitting.emit import emit
from triptych.emitting.text import code_lines
from triptych.spec import analysis
from triptych.spec.layers import Architecture, BatchNorm, Block, Branches, Conv, Dense, Flatten, Graph, Node, ReLU
from triptych.weights.layouts import CANONICAL

BACKENDS = registry.installed()
BARS = {"vgg16": 45, "googlenet": 80, "resnet50_v1": 90, "resnet50_v1b": 90, "inception_v3": 220}  # lines of code
RULES = "E,F,I,UP,B,SIM,RUF,PIE,C4,N,NPY"


@pytest.fixture(scope="module")
def sources() -> dict[tuple[str, str], str]:
    """Every network of the zoo in its own size, in every framework."""
    return {(name, b): emit(zoo.build(name), b).source for name in zoo.registry() for b in BACKENDS}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BARS)
def test_a_file_is_short(name: str, backend: str, sources: dict[tuple[str, str], str]) -> None:
    assert code_lines(sources[name, backend]) <= BARS[name]


def test_no_line_stands_three_times_in_a_row(sources: dict[tuple[str, str], str]) -> None:
    for key, source in sources.items():
        lines = [line.partition("  #")[0] for line in source.splitlines() if line.strip()]
        triples = zip(lines, lines[1:], lines[2:], strict=False)
        assert [one for one, two, three in triples if one == two == three] == [], key


def test_ruff_has_nothing_to_say(sources: dict[tuple[str, str], str], tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    for (name, backend), source in sources.items():
        (tmp_path / f"{backend}_{name}.py").write_text(source, encoding="utf-8")
    options = ["--isolated", "--line-length", "120", "--no-cache", str(tmp_path)]
    ignored = ["--ignore", "RUF001,RUF002,RUF003"]
    checked = ruff("check", "--select", RULES, *ignored, *options)
    assert checked.returncode == 0, checked.stdout
    formatted = ruff("format", "--diff", *options)
    assert formatted.returncode == 0, formatted.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_of_branches_named_by_letters_are_as_ruff_wants_them(backend: str, tmp_path: Path) -> None:
    """A unit whose branches are called l, O and I, at several widths."""
    widths = (4, 6, 9)
    units = [
        Branches(f"unit{n}", tuple(Block(name, (Conv("c", n + i, (1, 1)), ReLU("r"))) for i, name in enumerate("lOI")))
        for n in widths
    ]
    source = emit(Architecture("letters", (3, 4, 4), 2, (*units, Flatten("flat"), Dense("out", 2))), backend).source
    (tmp_path / "letters.py").write_text(source)
    checked = ruff("check", "--select", RULES, "--isolated", "--line-length", "120", "--no-cache", str(tmp_path))
    assert checked.returncode == 0, checked.stdout


def ruff(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_files_mention_no_triptych_of_ours(sources: dict[tuple[str, str], str]) -> None:
    assert [key for key, source in sources.items() if "triptych" in source] == []


def test_a_number_that_only_float32_explains_is_explained() -> None:
    """MXNet reads a momentum of 0.9 as float32, in float64 too: all digits stand where they are needed, and where a
    reader takes float32 again (Gluon's own layer), the shortest decimal that is the same to it."""
    assert (as_single(0.8999999761581421), as_single(0.9), as_single(0.0), as_single(1.0)) == (
        "0.9",
        "0.9",
        "0.0",
        "1.0",
    )
    assert of_single(0.8999999761581421) == "0.9 in float32"
    assert of_single(0.10000002384185791) == "1 - 0.9 in float32"
    assert [of_single(value) for value in (0.9, 0.1, 0.125, 0.875, 0.8999999761581422, 1 / 3, 1.0, 0.0)] == [""] * 8
    norm = BatchNorm("norm", momentum=0.10000002384185791, unbiased=False)
    network = Architecture("net", (3, 8, 8), 0, (Conv("conv", 4, (3, 3)), norm))
    lines = {
        "torch": "BatchNorm(4, momentum=0.10000002384185791),  # norm; momentum 1 - 0.9 in float32",
        "mxnet": "nn.BatchNorm()",
        "jax": "momentum=0.8999999761581421",
    }
    for backend in BACKENDS:
        source = emit(network, backend).source
        assert lines[backend] in source
        assert ("0.9 in float32" in source) == (backend != "mxnet")


def test_code_lines_leaves_out_what_is_no_code() -> None:
    assert code_lines('"""One\n\ntwo."""\n\n# three\nx = 1  # four\n\n\ndef f():\n    """Five."""\n    return x\n') == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dense_layer_that_flattens_begins_the_classifier(backend: str) -> None:
    """MXNet's symbols have it so: one node `fc`, imported as a block of two."""
    fc = Block("fc", (Flatten("flatten"), Dense("dense", 5)))
    layers = (Conv("conv", 4, (3, 3)), fc, ReLU("relu"), Dense("last", 3))
    emitted = emit(Architecture("net", (1, 6, 6), 3, layers), backend)
    assert "fc: 5" in emitted.source
    assert emitted.names["fc.dense.weight"].startswith("classifier.")


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_of_branches_are_all_told(backend: str) -> None:
    graph = Graph("heads", (Node(Conv("box", 4, (1, 1))), Node(Conv("score", 2, (1, 1)))), ("box", "score"))
    source = emit(Architecture("net", (3, 6, 5), 0, (Conv("conv", 4, (3, 3)), graph)), backend).source
    assert "2 branches on the same input, each with an output." in source
    assert ("heads: 4x3x4, 4x3x2" if backend == "jax" else "heads: 4x4x3, 2x4x3") in source


def hostile() -> Architecture:
    """Names that are words of Python, of the frameworks, and of the file itself; a source that would end a string."""
    names = ("class", "forward", "self", "x", "x_", "torch", "jnp", "F", "lambda", "train", "in_channels", "rngs")
    branches = tuple(Block(name, (Conv("self", i + 1, (1, 1)), ReLU("x"))) for i, name in enumerate(names))
    nodes = tuple(Node(Conv(name, 2, (1, 1)), (taken,)) for name, taken in zip(names, ("input", *names), strict=False))
    layers = (
        Branches("nn", branches),
        Block("load", (Branches("import", branches), ReLU("def"))),
        Graph("sequence", nodes, (names[-1],)),
        Flatten("print"),
        Dense("features", 3),
    )
    source = '""" + __import__("os").abort() + """ \\" \n\u2028 \x00 end'
    return Architecture('1"""; import os #', (3, 4, 5), 3, layers, source=source)


@pytest.mark.parametrize("backend", BACKENDS)
def test_names_of_strangers_are_harmless(backend: str) -> None:
    architecture = hostile()
    emitted = emit(architecture, backend)
    assert emitted.network in runners.execute(emitted)
    assert "import os" not in emitted.source.replace("; import os", "")
    assert len(set(emitted.names.values())) == len(emitted.names)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["vgg16", "googlenet", "densenet121", "resnet50_v2", "mobilenetv2_1.0"])
def test_every_array_has_a_name_of_its_own(name: str, backend: str) -> None:
    architecture = zoo.build(name)
    emitted = emit(architecture, backend)
    assert list(emitted.names) == [info.path for info in analysis.parameters(architecture)]
    assert len(set(emitted.names.values())) == len(emitted.names)
    assert set(CANONICAL.values()) >= {path.rpartition(".")[2] for path in emitted.names}


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_and_canonical_are_inverse(backend: str) -> None:
    architecture = awkward_networks.trained()
    parameters = awkward_networks.parameters(architecture)
    emitted = emit(architecture, backend)
    back = emitted.canonical(emitted.state(parameters))
    assert {path: value.tobytes() for path, value in back.items()} == {
        path: value.tobytes() for path, value in parameters.items()
    }
    assert emit(replace(architecture, name="other"), backend).names == emitted.names
