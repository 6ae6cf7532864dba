"""The notebooks: made from one source, the same cell by cell, executed."""

from __future__ import annotations

import json

import notebooks
import pytest

from marks import later
from triptych.backend import registry

NAMES = list(notebooks.notebooks())
SHORT = {"STEPS = None": "STEPS = 2", "(5 if QUICK else 10)": "1", "EPOCHS, IMAGES = 3, 5120": "EPOCHS, IMAGES = 1, 64"}


def needs(name: str) -> list[str]:
    """The frameworks that a notebook imports."""
    source, framework = notebooks.notebooks()[name]
    return [framework] if "import" in source.read_text(encoding="utf-8") else []


def run(name: str, changes: dict[str, str]) -> list[list[dict[str, object]]]:
    missing = [backend for backend in needs(name) if backend not in registry.installed()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return notebooks.execute(name, changes)


def test_there_is_one_for_each_framework_and_two_more() -> None:
    assert NAMES == ["ascend", "port", "vgg-torch", "vgg-mxnet", "vgg-jax"]


def test_the_chapters_mirror_each_other_cell_by_cell() -> None:
    chapters = [list(notebooks.cells(name)) for name in NAMES if name.startswith("vgg")]
    for places in zip(*chapters, strict=True):
        assert len({kind for kind, _ in places}) == 1
        texts = {text for kind, text in places if kind == "markdown"}
        assert len(texts) <= 1 or all(text.startswith("# ") for text in texts)


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_there_is_made_of_the_source_and_small(name: str) -> None:
    path = notebooks.FOLDER / f"{name}.ipynb"
    found = json.loads(path.read_text(encoding="utf-8"))
    made = notebooks.notebook(name, [[]] * sum(kind == "code" for kind, _ in notebooks.cells(name)))
    assert [cell["source"] for cell in found["cells"]] == [cell["source"] for cell in made["cells"]]
    outputs = [cell["outputs"] for cell in found["cells"] if cell["cell_type"] == "code"]
    assert any(outputs)
    assert len(json.dumps(outputs)) < notebooks.MOST
    assert not any(output["output_type"] == "error" for each in outputs for output in each)


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_goes_through(name: str) -> None:
    assert len(run(name, SHORT)) == sum(kind == "code" for kind, _ in notebooks.cells(name))


@later
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_of_it_learns(name: str) -> None:
    run(name, {})
