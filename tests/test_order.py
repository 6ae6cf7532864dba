"""The order of the packages: each imports from those above it in the table only, for the type checker's eyes too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from triptych.backend.registry import BACKENDS

ROOT = Path(__file__).parents[1]
COMMON = ROOT / "common" / "triptych"
# A package, or a module beside the packages, and what it is for.
ORDER = {
    "utils": "what belongs to no subject",
    "spec": "a network as data, and what each layer kind computes",
    "zoo": "published networks",
    "reference": "a spec executed in NumPy",
    "weights": "parameters: drawn, stored, laid out, taken over",
    "importers": "somebody's files as a spec",
    "data": "images, batches, preprocessing",
    "optim": "optimisers and schedules",
    "backend": "the contract that the backends fulfil",
    "training": "recipes, the loop, run folders",
    "conformance": "the judge",
    "porting": "somebody's own network before the judge",
    "emitting": "a network as a framework's source",
    "exporting": "a spec with its weights as somebody else's file",
    "report": "tables, figures, pages",
    "bench": "speed",
    "studies": "published comparisons",
    "exercises": "ports with a planted mistake",
    "face": "the verbs of `import triptych`",
    "testing": "the judge in somebody's own tests",
    "cli": "the commands",
    "__main__": "the program",
}
PLACE = {name: number for number, name in enumerate(ORDER)}
FILES = sorted(path for path in COMMON.rglob("*.py") if path != COMMON / "__init__.py")  # which loads the face lazily
BACKEND_FILES = sorted(path for entry in BACKENDS.values() for path in (ROOT / "backends" / entry.package).glob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(COMMON).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and package of every import from triptych, wherever in the file."""
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        parts = [module.split(".") for module in modules]
        yield from ((node.lineno, names[1]) for names in parts if names[0] == "triptych" and len(names) > 1)


def against(tree: ast.AST, package: str) -> list[tuple[int, str]]:
    """The imports from packages that stand below this one in the table; the version is everybody's."""
    found = ((line, other) for line, other in imports(tree) if other != "__version__")
    return [(line, other) for line, other in found if PLACE[other] > PLACE[package]]


def test_the_table_has_every_package() -> None:
    assert {package_of(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(COMMON)))
def test_a_package_imports_from_those_above_it_only(path: Path) -> None:
    assert against(ast.parse(path.read_text(encoding="utf-8")), package_of(path)) == []


@pytest.mark.parametrize("path", BACKEND_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_backend_imports_from_nothing_below_the_contract(path: Path) -> None:
    assert against(ast.parse(path.read_text(encoding="utf-8")), "backend") == []


@pytest.mark.parametrize(
    "line",
    [
        "from triptych.training import loop",
        "import triptych.training.loop",
        "from triptych import data, training",
        "def late():\n    from triptych.training.loop import fit",
        "if TYPE_CHECKING:\n    from triptych.training.sessions import Session",
    ],
)
def test_an_import_against_the_order_is_seen(line: str) -> None:
    assert [other for _, other in against(ast.parse(line), "backend")] == ["training"]
    assert against(ast.parse(line), "conformance") == []
