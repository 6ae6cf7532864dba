"""The catalogue of planted faults in ports: the layer and the cause are named (`benchmarks/locate_faults.py`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marks import later
from triptych.backend.registry import installed
from triptych.porting.own_network import locate_port

LAYER, CAUSE = 0.97, 0.85  # of the faults, at least
SAMPLE = 7  # every such one: all of them take half a minute


@pytest.fixture(scope="module")
def faults() -> Iterator[Any]:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    import locate_faults

    yield locate_faults
    sys.path.remove(folder)


def check(faults: Any, step: int, *frameworks: str) -> None:
    chosen = [fault for fault in faults.FAULTS if fault.framework in frameworks and fault.framework in installed()]
    if not chosen:
        pytest.skip("no framework is installed")
    results = [faults.judge(fault) for fault in chosen[::step]]
    known = [result for result in results if result.fault.cause]
    text = faults.summary(results)
    assert sum(result.layer for result in results) >= LAYER * len(results), text
    assert sum(result.cause for result in known) >= CAUSE * len(known), text
    assert not [result.said for result in results if result.wrong]


def test_the_catalogue_is_large(faults: Any) -> None:
    assert len({(fault.framework, fault.old, fault.new) for fault in faults.FAULTS}) >= 120


@pytest.mark.parametrize("name", ["torch", "mxnet"])
def test_right_ports_agree_and_every_seventh_fault_is_named(faults: Any, name: str) -> None:
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    right = faults.build(name, faults.SOURCES[name])
    assert locate_port(right, faults.network(unbiased=name == "torch")).difference is None
    check(faults, SAMPLE, name)


@later
def test_all_faults_are_named(faults: Any) -> None:
    check(faults, 1, "torch", "mxnet", "jax")


def test_a_fault_that_is_not_in_the_source_is_refused(faults: Any) -> None:
    with pytest.raises(ValueError, match="is not in the port of torch"):
        faults.judge(faults.PortFault("torch", "nothing like it", "", "", ""))
