"""One place per layer kind: whatever is left out, or said twice, is an error when the module is imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, get_args

import pytest

from triptych.backend import registry
from triptych.spec import kinds
from triptych.spec.kinds import COMPOSITES, KINDS, check_complete, collect, composite_of, kind_of
from triptych.spec.kinds.kind import CompositeKind, Kind
from triptych.spec.layers import Architecture, Block, Composite, Conv, Dropout, Layer, Primitive, ReLU

COMMON = Path(__file__).parents[2] / "common"
SAID = [field.name for field in fields(Kind)]
SAID_OF_COMPOSITES = [field.name for field in fields(CompositeKind)]


def arguments(kind: Any) -> dict[str, Any]:
    return {field.name: getattr(kind, field.name) for field in fields(kind)}


def test_every_record_has_its_kind_in_the_order_of_the_spec() -> None:
    assert tuple(KINDS) == get_args(Primitive)
    assert tuple(COMPOSITES) == get_args(Composite)
    assert set(get_args(Layer)) == {*KINDS, *COMPOSITES}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("record", KINDS, ids=lambda record: record.__name__)
def test_a_kind_that_leaves_something_out_cannot_be_made(record: type, name: str) -> None:
    said = arguments(KINDS[record])
    assert Kind(**said) == KINDS[record]
    with pytest.raises(TypeError, match=f"missing 1 required positional argument: '{name}'"):
        Kind(**{other: value for other, value in said.items() if other != name})
    with pytest.raises(TypeError, match=rf"{record.__name__} does not say its {name}|is no record of the spec"):
        Kind(**said | {name: None})


@pytest.mark.parametrize("name", SAID_OF_COMPOSITES)
@pytest.mark.parametrize("record", COMPOSITES, ids=lambda record: record.__name__)
def test_a_composite_that_leaves_something_out_cannot_be_made(record: type, name: str) -> None:
    said = arguments(COMPOSITES[record])
    with pytest.raises(TypeError, match=f"missing 1 required positional argument: '{name}'"):
        CompositeKind(**{other: value for other, value in said.items() if other != name})
    with pytest.raises(TypeError, match=rf"{record.__name__} does not say its {name}|is no record of the spec"):
        CompositeKind(**said | {name: None})


def test_the_registry_refuses_gaps_twins_and_strangers() -> None:
    made = list(KINDS.values())
    records = get_args(Primitive)
    assert collect(records, reversed(made)) == KINDS
    with pytest.raises(TypeError, match="there are two kinds of Conv"):
        collect(records, [*made, KINDS[Conv]])
    for record in records:
        with pytest.raises(TypeError, match=rf"missing \['{record.__name__}'\], unknown \[\]"):
            collect(records, [kind for kind in made if kind.record is not record])
    with pytest.raises(TypeError, match=r"missing \[\], unknown \['Architecture'\]"):
        collect(records, [*made, replace(KINDS[ReLU], record=Architecture)])


def imported(code: str) -> str:
    """The last line on standard error of a process that runs `code` and then imports what analyses need."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport triptych.spec.analysis"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(COMMON)},
    )
    assert (run.returncode == 0) == (run.stderr == "")
    return run.stderr.strip().rpartition("\n")[2]


def test_a_record_without_a_kind_is_an_error_at_import() -> None:
    new = (
        "from dataclasses import dataclass\nfrom triptych.spec import layers\n"
        "@dataclass(frozen=True)\nclass Softplus:\n    name: str\n"
    )
    assert imported(new) == ""
    left_out = imported(f"{new}layers.Primitive = layers.Primitive | Softplus")
    assert left_out == (
        "TypeError: triptych.spec.kinds must have one entry per record of the spec; missing ['Softplus'], unknown []"
    )
    composite = imported(f"{new}layers.Composite = layers.Composite | Softplus")
    assert composite.endswith("missing ['Softplus'], unknown []")


@pytest.mark.parametrize("name", registry.installed())
def test_a_backend_without_a_layer_is_an_error_at_import(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a record more, and a record less, than the backend has layers for."""
    origin = find_spec(f"triptych_{name}.layers")
    assert origin is not None
    assert origin.loader is not None
    records = get_args(Primitive)
    for changed, error in (((*records, Block), r"missing \['Block'\]"), (records[:-1], r"unknown \['Dropout'\]")):
        monkeypatch.setattr(kinds, "check_complete", partial(check_complete, records=changed))
        with pytest.raises(TypeError, match=rf"^triptych_{name}\.layers must .*{error}"):
            origin.loader.exec_module(module_from_spec(origin))


def test_a_composite_is_no_layer_that_computes_and_the_other_way_round() -> None:
    with pytest.raises(TypeError, match="Block is no layer that computes by itself"):
        kind_of(Block("block", ()))
    with pytest.raises(TypeError, match="ReLU is no composite"):
        composite_of(ReLU("relu"))


def test_what_acts_in_training_only() -> None:
    assert [record for record, kind in KINDS.items() if kind.training_only] == [Dropout]
