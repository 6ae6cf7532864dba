"""The shape of the source: backends that read side by side, and common code without a framework."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from triptych.backend.registry import BACKENDS

ROOT = Path(__file__).parents[2]
COMMON = ROOT / "common" / "triptych"
FOLDERS = {name: ROOT / "backends" / entry.package for name, entry in BACKENDS.items()}
FIRST = next(iter(FOLDERS.values()))
FRAMEWORKS = {"torch", "torch_npu", "torchvision", "mxnet", "gluon", "jax", "jaxlib", "flax", "optax", "tensorflow"}
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
COMMON_FILES = sorted(COMMON.rglob("*.py"))
OF_ITS_OWN = {"torch": ["npu.py"], "mxnet": ["numpy_names.py"]}  # what only one framework needs
MODULES = sorted({path.name for path in FIRST.glob("*.py")} - set(OF_ITS_OWN["torch"]))
ALL_FILES = COMMON_FILES + sorted(path for folder in FOLDERS.values() for path in folder.rglob("*.py"))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_public(name: str) -> bool:
    return not name.startswith("_")


def definitions(tree: ast.Module | ast.ClassDef) -> list[ast.FunctionDef | ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_public(node.name)]


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level packages that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "__import__"):
            yield from (
                part.value.partition(".")[0]
                for part in node.args
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )


def compared_strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string that the code branches on: in a comparison (also within a list) or as the pattern of a match."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.MatchValue):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield node.lineno if isinstance(node, ast.Compare) else node.value.lineno, part.value


@pytest.mark.parametrize("name", FOLDERS)
def test_a_backend_has_the_files_of_the_others(name: str) -> None:
    files = {path.name for path in FOLDERS[name].glob("*.py")}
    assert sorted(files - set(OF_ITS_OWN.get(name, ()))) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_file_has_the_same_public_names_in_the_same_order(module: str) -> None:
    expected = [node.name for node in definitions(parse(FIRST / module))]
    for name, folder in FOLDERS.items():
        assert [node.name for node in definitions(parse(folder / module))] == expected, name


def test_the_planted_mistakes_have_the_same_names_in_every_framework() -> None:
    expected, *others = (
        [
            node.name
            for node in definitions(parse(ROOT / "tests" / "mutants" / f"native_{name}.py"))
            if node.name.islower()
        ]
        for name in FOLDERS
    )
    assert expected
    assert others == [expected] * len(others)


def parameters_of(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]


@pytest.mark.parametrize(
    "module",
    [
        "__init__.py",
        "device.py",
        "weights.py",
        "inspection.py",
        "loss.py",
        "distributed.py",
        "precision.py",
        "training.py",
    ],
)
def test_functions_of_the_contract_take_the_same_parameters(module: str) -> None:
    def signatures(folder: Path) -> dict[str, list[str]]:
        tree = parse(folder / module)
        found = {node.name: node for node in definitions(tree) if isinstance(node, ast.FunctionDef)}
        for kind in (node for node in definitions(tree) if isinstance(node, ast.ClassDef)):
            found |= {f"{kind.name}.{n.name}": n for n in definitions(kind) if isinstance(n, ast.FunctionDef)}
        contract = {"forward", "gradients", "total_loss", "to_canonical", "from_canonical", "initialize", "get_device"}
        contract |= {"precision_flags", "precise"}
        contract |= {f"Trainer.{name}" for name in ("step", "read", "prepare", "predict", "state", "load_state")}
        return {name: parameters_of(function) for name, function in found.items() if name in contract}

    for name, folder in FOLDERS.items():
        assert signatures(folder) == signatures(FIRST), name


def layer_kinds(folder: Path) -> list[tuple[str, str]]:
    """The keys of LAYERS with the functions that build them, as written."""
    for node in parse(folder / "layers.py").body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "LAYERS":
            assert isinstance(node.value, ast.Dict)
            return [
                (ast.unparse(key), ast.unparse(value))
                for key, value in zip(node.value.keys, node.value.values, strict=True)
                if key is not None
            ]
    return []


def test_backends_build_every_primitive_with_functions_of_one_name() -> None:
    union = next(
        node.value
        for node in parse(COMMON / "spec" / "layers.py").body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "Primitive" and node.value is not None
    )
    primitives = [f"spec.{part.strip()}" for part in ast.unparse(union).strip("()").split("|")]
    for name, folder in FOLDERS.items():
        assert [key for key, _ in layer_kinds(folder)] == primitives, name
        assert layer_kinds(folder) == layer_kinds(FIRST), name


@pytest.mark.parametrize("path", COMMON_FILES, ids=short)
def test_common_code_imports_no_framework(path: Path) -> None:
    assert not FRAMEWORKS & set(imported(parse(path)))
    assert not {entry.package for entry in BACKENDS.values()} & set(imported(parse(path)))


@pytest.mark.parametrize("path", COMMON_FILES, ids=short)
def test_common_code_branches_on_no_backends_name(path: Path) -> None:
    assert [(line, text) for line, text in compared_strings(parse(path)) if text in BACKENDS] == []


@pytest.mark.parametrize("path", ALL_FILES, ids=short)
def test_nothing_is_pickled(path: Path) -> None:
    tree = parse(path)
    if path.name == "cifar10.py":  # the official archive is a pickle: read by an unpickler that knows arrays only
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
        }
        assert used == {"Unpickler", "UnpicklingError"}
        assert "find_class" in {
            node.name for kind in definitions(tree) if isinstance(kind, ast.ClassDef) for node in definitions(kind)
        }
    else:
        assert not FORBIDDEN & set(imported(tree))
    flags = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "allow_pickle"]
    assert all(isinstance(node.value, ast.Constant) and node.value.value is False for node in flags)
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert not loads  # it unpickles; weights are safetensors


@pytest.mark.parametrize("path", COMMON_FILES, ids=short)
def test_public_names_of_the_common_code_are_documented(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree) or not tree.body, "the module"
    bare = [node.name for node in definitions(tree) if not ast.get_docstring(node)]
    if path.parent.name == "zoo" and path.name != "__init__.py":
        bare = []  # the functions of a family are its table; the module and each entry's source document them
    assert bare == []


def test_the_checks_above_can_fail() -> None:
    planted = ast.parse(
        "import numpy, torch.nn\n"
        "def f(name):\n"
        "    from jax import numpy as jnp\n"
        "    if name in ('mxnet', 'x') or 'torch' == name: pass\n"
        "    match name:\n"
        "        case 'jax': pass\n"
        "    importlib.import_module('flax.nnx')\n"
    )
    assert set(imported(planted)) == {"numpy", "torch", "jax", "flax"}
    assert [text for _, text in compared_strings(planted)] == ["mxnet", "x", "torch", "jax"]
    assert [node.name for node in definitions(planted) if not ast.get_docstring(node)] == ["f"]
