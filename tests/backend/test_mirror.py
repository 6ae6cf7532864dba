"""The shape of the source: backends that read side by side, and common code without a framework."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from triptych.backend import contract, registry
from triptych.backend.registry import BACKENDS
from triptych.spec.layers import Primitive

ROOT = Path(__file__).parents[2]
COMMON = ROOT / "common" / "triptych"
FOLDERS = {name: ROOT / "backends" / entry.package for name, entry in BACKENDS.items()}
FIRST = next(iter(FOLDERS.values()))
FRAMEWORKS = {"torch", "torch_npu", "torchvision", "mxnet", "gluon", "jax", "jaxlib", "flax", "optax", "tensorflow"}
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
COMMON_FILES = sorted(COMMON.rglob("*.py"))
OF_ITS_OWN = {
    "torch": ["npu.py", "torchrun.py", "watch.py"],
    "mxnet": ["graph.py", "numpy_names.py"],
    "jax": ["compiled.py", "convolution.py", "jaxpr.py", "shared.py", "starts.py"],
}  # what only one framework needs
MODULES = sorted({path.name for path in FIRST.glob("*.py")} - set(OF_ITS_OWN["torch"]))
OWN_LAYERS = ("functions.py", "emitted.py")  # layers that this framework has none for
MIRRORED_MODULES = [name for name in MODULES if name not in OWN_LAYERS]
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


@pytest.mark.parametrize("module", MIRRORED_MODULES)
def test_a_file_has_the_same_public_names_in_the_same_order(module: str) -> None:
    expected = [node.name for node in definitions(parse(FIRST / module))]
    for name, folder in FOLDERS.items():
        assert [node.name for node in definitions(parse(folder / module))] == expected, name


# A road that only this framework has: Gluon's hybridized one, JAX's convolution as a matrix product; or that one lacks:
# MXNet's operator computes the variance itself.
OF_ONE_FRAMEWORK = {
    "wrong_when_hybrid",
    "swapped_product",
    "strided_product_mirrored",
    "fast_variance",
    "swapped_gradient",
}


def test_the_planted_faults_have_the_same_names_in_every_framework() -> None:
    expected, *others = (
        [
            node.name
            for node in definitions(parse(ROOT / "tests" / "mutants" / f"native_{name}.py"))
            if node.name.islower() and node.name not in OF_ONE_FRAMEWORK
        ]
        for name in FOLDERS
    )
    assert expected
    assert others == [expected] * len(others)


# Classes that the contract, or another file of every backend, is written against: they have the same public methods.
# Of the others (layers, blocks) each framework asks for methods of its own; those of one name still take the same.
MIRRORED = ("Input", "Port", "Predictor", "Textbook", "Trainer")
INSTALLED = registry.installed()
Signature = tuple[tuple[str, str, Any], ...]


def signature(function: Any) -> Signature:
    """Names, kinds and defaults of what a function takes, in order; annotations are each framework's own."""
    taken = inspect.signature(function).parameters.values()
    return tuple((parameter.name, parameter.kind.name, parameter.default) for parameter in taken)


def signatures(module: ModuleType) -> dict[str, Signature]:
    """Of every public function and method that a module defines; of constructors where the classes are mirrored."""
    taken = {}
    for name, value in vars(module).items():
        if getattr(value, "__module__", "") != module.__name__ or not is_public(name):
            continue
        if inspect.isclass(value):
            methods = {key: method for key, method in vars(value).items() if inspect.isfunction(method)}
            public = [key for key in methods if is_public(key) or (key == "__init__" and name in MIRRORED)]
            taken |= {f"{name}.{key}": signature(methods[key]) for key in public}
        elif callable(value):
            taken[name] = signature(value)
    return taken


def module_of(name: str, file: str) -> ModuleType:
    package = BACKENDS[name].package
    return importlib.import_module(package if file == "__init__.py" else f"{package}.{file.removesuffix('.py')}")


@pytest.mark.skipif(len(INSTALLED) < 2, reason="there are no two frameworks to compare")
@pytest.mark.parametrize("file", MIRRORED_MODULES)
def test_functions_and_methods_of_one_name_take_the_same(file: str) -> None:
    registry.load(INSTALLED[0])
    found = {name: signatures(module_of(name, file)) for name in INSTALLED}
    for (left, one), (right, other) in combinations(found.items(), 2):
        shared = one.keys() & other.keys()
        assert {key: one[key] for key in shared} == {key: other[key] for key in shared}, (left, right)
        alone = one.keys() ^ other.keys()
        assert {key for key in alone if "." not in key or key.partition(".")[0] in MIRRORED} == set(), (left, right)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_backend_takes_what_the_contract_says(name: str) -> None:
    framework = registry.load(name)
    for protocol, value in (
        (contract.Backend, framework),
        (contract.Predictor, framework.Predictor),
        (contract.Trainer, framework.Trainer),
        (contract.Port, module_of(name, "port.py").Port),
        (contract.PortAdapter, module_of(name, "port.py")),
        (contract.Textbook, module_of(name, "benchmark.py").Textbook),
        (contract.Benchmark, module_of(name, "benchmark.py")),
    ):
        promised = {key: method for key, method in vars(protocol).items() if inspect.isfunction(method)}
        for key, method in promised.items():
            if is_public(key) or (key == "__init__" and inspect.isclass(value)):
                taken = signature(getattr(value, key))
                assert taken == signature(method)[0 if inspect.isclass(value) else 1 :], (protocol, key)


@pytest.mark.parametrize("path", ALL_FILES, ids=short)
def test_private_names_stay_in_their_file(path: Path) -> None:
    imports = [node for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom)]
    taken = [alias.name for node in imports for alias in node.names if (node.module or "").startswith("triptych")]
    assert [name for name in taken if not is_public(name) and not name.startswith("__")] == []


def layer_kinds(folder: Path) -> list[str]:
    """The keys of LAYERS, as written."""
    for node in parse(folder / "layers.py").body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "LAYERS":
            assert isinstance(node.value, ast.Dict)
            return [ast.unparse(key) for key in node.value.keys if key is not None]
    return []


def test_backends_build_every_primitive_in_the_order_of_the_spec() -> None:
    primitives = [f"spec.{record.__name__}" for record in get_args(Primitive)]
    for name, folder in FOLDERS.items():
        assert layer_kinds(folder) == primitives, name


@pytest.mark.parametrize("path", COMMON_FILES, ids=short)
def test_common_code_imports_no_framework(path: Path) -> None:
    """An importer may, within the functions that need one: its subject is that framework's files."""
    tree = parse(path)
    if path.parent.name == "importers":
        tree = ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)], [])
    assert not FRAMEWORKS & set(imported(tree))
    assert not {entry.package for entry in BACKENDS.values()} & set(imported(parse(path)))


@pytest.mark.parametrize("path", COMMON_FILES, ids=short)
def test_common_code_branches_on_no_backends_name(path: Path) -> None:
    assert [(line, text) for line, text in compared_strings(parse(path)) if text in BACKENDS] == []


@pytest.mark.parametrize("path", ALL_FILES, ids=short)
def test_nothing_is_pickled(path: Path) -> None:
    tree = parse(path)
    assert not FORBIDDEN & set(imported(tree))
    flags = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "allow_pickle"]
    assert all(isinstance(node.value, ast.Constant) and node.value.value is False for node in flags)
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    restricted = [{key.arg: ast.unparse(key.value) for key in load.keywords}.get("weights_only") for load in loads]
    assert set(restricted) <= {"True"}  # tensors alone; by itself it unpickles


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
