"""The commands as code: thin, and every option looked at before anything that an option names."""

from __future__ import annotations

import ast
import importlib
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from triptych.__main__ import main
from triptych.backend import registry
from triptych.cli import COMMANDS

COMMON = Path(__file__).parents[2] / "common" / "triptych"
LONGEST = 40  # lines of a body, without its docstring

# What looks for data, runs, files or frameworks, by module.
LOOKS = {
    "triptych.data": ("load", "download"),
    "triptych.data.decoded": ("decode", "stored_size"),
    "triptych.training.run_folder": ("load", "read_recipe", "read_epochs", "make_folder", "write_recipe"),
    "triptych.weights.store": ("load",),
    "triptych.backend.registry": ("load",),
}
# Wrong options of a recipe or its network, which every command that has them refuses with the same words.
# Of what a model is used on; of a start, which may be drawn; of a training.
USE = {
    "--batch-size -1": "--batch-size -1 must be at least 1",
    "--mean 0.5,x": "--mean '0.5,x' is not numbers",
    "--channel-order brg": "unknown channel order",
    "--pixel-range 0": "--pixel-range 0.0 must be a number above 0",
    "--precision fp23": "did you mean 'fp32'",
}
DRAWN = {
    "--init xavier": "unknown initializer 'xavier'",
    "--init xavier_uniform:2.24,fan": "unknown factor 'fan'",
}
RECIPE = (
    USE
    | DRAWN
    | {
        "--epochs 0": "--epochs 0 must be at least 1",
        "--learning-rate nan": "--learning-rate nan",
        "--schedule cosin": "did you mean 'cosine'",
        "--optimizer adma": "did you mean 'adam'",
        "--optimizer adam --momentum 0.9": "--momentum belongs to sgd and rmsprop",
        "--nesterov": "--nesterov needs a momentum",
        "--label-smoothing 1": "--label-smoothing 1.0 must be at least 0 and below 1",
        "--schedule multistep:milestones=5,3": "milestones '5,3' must rise",
        "--schedule warmup:then=one-cycle": "'one-cycle' cannot stand behind a warm-up",
        "--new-head": "--new-head needs --init-from",
        "--freeze ,": "--freeze ',' names nothing",
    }
)
NETWORK = {
    "--arch lenett": "did you mean 'lenet'",
    "--arch lenet --head small": "'lenet' has one head only",
    "--arch lenet --freeze block*": "matches no parameter of 'lenet'",
    "--arch lenet --classes 0": "--classes 0 must be at least 1",
    "--arch lenet --input 1x28": "is not CxHxW",
    "--arch lenet --resolution 8": "the smallest resolution that works is",
    "--arch lenet --width-ratio 0": "--width-ratio 0 must be above 0",
    "--arch lenet --dense-width 0": "--dense-width 0 must be at least 1",
}
ONE = {"--backend troch": "did you mean 'torch'"}
SEVERAL = {"--backends ,": "names no backend", "--backends torch,jaxx": "unknown backend 'jaxx'"}
DENSE = {"--dense-size 9": "give --dense too", "--dense --dense-size x": "is neither N nor HxW"}


def without(options: dict[str, str], *names: str) -> dict[str, str]:
    return {option: words for option, words in options.items() if not any(name in option for name in names)}


# Commands whose data, run or file is not there, and their wrong options.
ABSENT = {
    "train --data nothing": RECIPE | NETWORK | ONE | {"--log-every 0": "--log-every 0 must be at least 1"},
    "train --resume nothing": RECIPE | ONE | {"--out new": "not both", "--recipe d2l-vgg": "not both"},
    # The base recipes of these two have a momentum, so that --nesterov is right.
    "compare --data nothing": without(RECIPE, "--nesterov") | NETWORK | SEVERAL | {"--seeds 2": "must be 1, or at"},
    "study depth --data nothing": without(RECIPE, "--nesterov") | {"--backend ,": "names no backend"},
    "evaluate nothing": USE | without(NETWORK, "--freeze") | ONE | DENSE | {"--epochs 2": "Unknown option"},
    "predict nothing nothing.png": USE | without(NETWORK, "--freeze") | ONE | DENSE | {"--first 2": "or --first N"},
    "predict nothing": {
        "--first 0": "--first 0 must be at least 1",
        "--first 1 --top 0": "--top 0 must be at least 1",
    },
    "feature-maps nothing.png --run nothing": USE
    | DRAWN
    | ONE
    | {"--freeze block1": "Unknown option"}
    | {f"--{name} 0": f"--{name} 0 must be at least 1" for name in ("channels", "blocks")},
    "feature-maps nothing.png": without(NETWORK, "--freeze")
    | ONE
    | {"--init native": "need a shared start", "--data nothing": "without --run nothing is trained"},
    "bench": {option: RECIPE[option] for option in ("--batch-size -1", "--precision fp23")}
    | without(NETWORK, "--freeze")
    | SEVERAL
    | {f"--{name} 0": f"--{name} 0 must be at least 1" for name in ("steps", "rounds")},
    "convert nothing.npz out.pt --arch lenet": {
        "--to caffe": "--to 'caffe' is not known",
        "--flatten x": "--flatten 'x'",
    },
    "data prepare tfds": {"cifar11": "did you mean 'cifar10'"},
}


# Wrong options that only the backend, or what they name, can tell: before data, models and images are looked for.
WITHOUT_FP16 = [name for name in ("mxnet", "jax") if name in registry.installed()]
DEVICE = {f"--device {name}": f"has no device '{name}' here" for name in ("nonsense", "cuda:99")}
LACKED = {f"--backend {name} --precision fp16": f"backend '{name}' has no precision 'fp16'" for name in WITHOUT_FP16}
LACKED_BY_ONE = {option.replace("--backend", "--backends"): words for option, words in LACKED.items()}
OUT = {
    "--out used": "--out used is already used",
    "--out used/notes": "--out used/notes is already used",
    "--out /proc/new": "--out /proc/new cannot be written",
}
START = {
    "--init-from nothing": "cannot read the parameters nothing: No such file",
    "--init-from used": "--init-from used: there is no checkpoint in it",
    "--init-from used/notes": "used/notes is no safetensors file",
}
NAMED = {
    "train --data nothing": DEVICE | LACKED | OUT | START,
    "compare --data nothing": DEVICE | LACKED_BY_ONE | OUT | START,
    "study depth --data nothing": DEVICE | LACKED | OUT | START,
    "evaluate nothing": DEVICE | LACKED,
    "predict nothing nothing.png": DEVICE | LACKED,
    "predict nothing --first 1": DEVICE | LACKED,
    "feature-maps nothing.png --run nothing": DEVICE | LACKED,
    "feature-maps nothing.png": DEVICE,
    "bench": DEVICE | LACKED_BY_ONE,
    "data prepare tfds cifar10": {"--out /proc/new": "--out /proc/new cannot be written"},
}


def looking(name: str) -> Callable[..., None]:
    def look(*arguments: object, **options: object) -> None:
        raise AssertionError(f"{name} was called with {arguments} before the options were checked")

    return look


@pytest.mark.skipif(not registry.installed(), reason="no framework is installed")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(f"{command} {option}", words, id=f"{command} {option}")
        for command, wrong in ABSENT.items()
        for option, words in wrong.items()
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_looked_for(line, words, tmp_path, monkeypatch, capsys):
    refuse(line, words, LOOKS, tmp_path, monkeypatch, capsys)


@pytest.mark.skipif(not registry.installed(), reason="no framework is installed")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(f"{command} {option}", words, id=f"{command} {option}")
        for command, wrong in NAMED.items()
        for option, words in wrong.items()
    ],
)
def test_what_an_option_names_is_checked_before_the_data(line, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes").write_text("mine")
    looks = {module: names for module, names in LOOKS.items() if module != "triptych.backend.registry"}
    refuse(line, words, looks, tmp_path, monkeypatch, capsys)


def refuse(line, words, looks, folder, monkeypatch, capsys):
    """The command ends with 2 and one line that holds the words; nothing of `looks` is called."""
    monkeypatch.chdir(folder)
    for module, names in looks.items():
        for name in names:
            monkeypatch.setattr(importlib.import_module(module), name, looking(f"{module}.{name}"))
    with pytest.raises(SystemExit) as stopped:
        main(shlex.split(line))
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, ""), err
    assert words in err
    assert err.count("\n") == 1


def test_every_command_that_looks_for_something_is_in_the_table():
    """`doctor`, `archs` and `summary` look for nothing; `port`, `emit`, `conform` and the like need no data."""
    others = {"exercise", "emit", "port", "export", "doctor", "archs", "summary", "conform", "locate", "verify"}
    assert {line.split()[0] for line in ABSENT} | others == {name for name, _ in COMMANDS}


@pytest.mark.parametrize("path", sorted((COMMON / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_commands_are_thin(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= LONGEST, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", sorted(COMMON.rglob("*.py")), ids=lambda path: str(path.relative_to(COMMON)))
def test_no_private_name_is_imported_from_a_sibling(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            private = [alias.name for alias in node.names if alias.name.startswith("_") and alias.name != "__version__"]
            assert node.module == "__future__" or not private, f"{node.module}: {private}"
