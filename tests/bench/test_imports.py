"""`benchmarks/imports.py`: what agrees is said with its shares, a planted fault differs, rows of other days stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.backend import registry
from triptych.importers.steps import Imported
from triptych.spec.layers import BatchNorm, Layer, with_children

if "torch" not in registry.installed():
    pytest.skip("torch is not installed", allow_module_level=True)

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
# Kind, network, and how many of evaluation, training and gradients are compared.
COMPARED = [
    ("PyTorch module", "residual", 3),
    ("TorchScript, traced", "resnet", 1),
    ("TorchScript, scripted", "vgg", 1),
    ("PyTorch program", "resnet", 1),
    ("ONNX, first exporter", "resnet", 1),
]


@pytest.fixture
def imports() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield import_module("imports")


def wrong(imported: Imported) -> Imported:
    """Every batch norm with a hundred times its eps, and without any, the first array larger by a hundredth."""

    def changed(layer: Layer) -> Layer:
        return replace(layer, eps=1e-3) if isinstance(layer, BatchNorm) else with_children(layer, changed)

    architecture, arrays = imported.architecture, dict(imported.parameters or {})
    layers = tuple(map(changed, architecture.layers))
    if layers == architecture.layers:
        first = next(iter(arrays))
        arrays[first] = arrays[first] * np.float32(1.01)
    return replace(imported, architecture=replace(architecture, layers=layers), parameters=arrays)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("kind", "name", "count"), COMPARED)
def test_what_agrees_is_said_and_a_planted_fault_differs(
    kind: str, name: str, count: int, imports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "ONNX" in kind:
        pytest.importorskip("onnxruntime")
    [case] = [each for each in imports.cases(kind) if each.name == name]
    _, _, result, *shares, _ = imports.measured(case)
    assert result == ("agrees (fp32)" if "ONNX" in kind else "agrees")
    found = [float(share) for share in shares if share]
    assert len(found) == count
    assert 0 < max(found) <= 1
    real = imports.imported_of
    monkeypatch.setattr(imports, "imported_of", lambda made, case: wrong(real(made, case)))
    assert imports.measured(case)[2].startswith("differs: forward eval")


def test_rows_of_other_days_stay_and_what_was_skipped_does_not(
    imports: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(imports, "RESULT", tmp_path / "imports.md")
    kind, rest = "PyTorch module", "|  |  |  |  |  |  |  |  | 2025-01-01 |"
    rows = {(kind, name): f"| {kind} | {name} {rest}" for name in ("mine", "again")}
    skipped = {(kind, "all"): f"| {kind} | all |  |  | skipped: it is not installed |  |  |  |  |  | 2025-01-01 |"}
    imports.write_rows(rows | skipped)
    monkeypatch.setattr(imports, "cases", lambda kind: [imports.Case("again", lambda folder: None, missing="a disk")])
    imports.main([kind])
    found = imports.read_rows()
    assert list(found) == list(rows)
    assert found[kind, "mine"] == rows[kind, "mine"]
    assert "skipped: a disk" in found[kind, "again"]
    assert len({line.count("|") for line in imports.RESULT.read_text().splitlines() if line.startswith("|")}) == 1
