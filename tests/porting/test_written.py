"""Ports as people write them (`benchmarks/written/`): a right one shows no difference, of a planted fault the layer,
the cause and, where it is an argument, the edit are named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marks import ALL, later
from triptych.backend.registry import installed

# MXNet's own response norm is off in float32 where values are large, and hides a later fault in its port; and SAME
# padding is what no padding in ceil mode is.
KNOWN = {
    ("mxnet", "alexnet", "p=0.6"),
    ("mxnet", "resnet", "MaxPool2D(3, 2, 0, ceil_mode=True)"),
    ("jax", "shuffle", "lax.stop_gradient(x.mean(axis=(1, 2)))"),  # the flatten before the cut is the mean's own
    # A single edit does not mend them: the padding, or the kernel, and another argument of the call are wrong.
    ("torch", "decoder", "nn.AvgPool2d(3, 2, padding=1)"),
    ("mxnet", "decoder", "nn.Conv2DTranspose(6, 3, strides=2, padding=1, output_padding=1)"),
    # No edit takes an argument away.
    ("jax", "mobilenet", 'use_bias=False, dtype="bfloat16")'),
}
DIFFER = "mxnet/alexnet.py"


@pytest.fixture(scope="module")
def written() -> Iterator[Any]:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    import locate_written

    yield locate_written
    sys.path.remove(folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_there_are_sixty_faults_twenty_in_each_framework(written: Any) -> None:
    for name in ("torch", "mxnet", "jax"):
        planted = {(fault.port, fault.old, fault.new) for fault in written.FAULTS if fault.framework == name}
        assert len(planted) == 20
        added = {"decoder", "trained", "converted", "mobile", "dense"}  # for later tables
        added |= {"wide", "mixer", "darknet", "resnext", "ghost", "xception"}
        assert {port for port, *_ in planted} == {p for framework, p in written.PORTS if framework == name} - added


def test_thirty_of_the_right_ports_are_written_otherwise(written: Any) -> None:
    assert len({(each.port, each.new) for each in written.RIGHT}) == 30
    for each in written.RIGHT:
        assert each.old in (written.SOURCES / each.framework / f"{each.port}.py").read_text(), each


@pytest.mark.parametrize("name", ["torch", "mxnet", pytest.param("jax", marks=later)])
def test_a_right_port_shows_no_difference(written: Any, folder: Path, name: str) -> None:
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    assert [text for text in written.refused(folder, name) if not text.startswith(DIFFER)] == []


@pytest.mark.parametrize("name", ["torch", *(pytest.param(name, marks=later) for name in ("mxnet", "jax"))])
def test_of_a_planted_fault_everything_is_told(written: Any, folder: Path, name: str) -> None:
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    faults = [
        fault
        for fault in (*written.FAULTS, *written.SECOND, *written.THIRD, *written.FOURTH)
        if fault.framework == name
    ]
    faults = faults if ALL else faults[::3]  # of every table; all of them take three minutes
    results = [written.judge(folder, number, fault) for number, fault in enumerate(faults)]
    missed = {(name, r.fault.port, r.fault.new): written.misses(r) for r in results if written.misses(r)}
    assert missed.keys() == KNOWN & {(name, fault.port, fault.new) for fault in faults}, missed
    assert not any(result.wrong for result in results)


@pytest.mark.parametrize("name", [pytest.param(name, marks=later) for name in ("torch", "mxnet", "jax")])
def test_of_the_later_tables_no_wrong_cause_is_said_alone(written: Any, folder: Path, name: str) -> None:
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    faults = [fault for fault in (*written.FIFTH, *written.SIXTH) if fault.framework == name]
    results = [written.judge(folder, number, fault) for number, fault in enumerate(faults)]
    assert not [written.misses(result) for result in results if result.wrong]


def test_a_gradient_that_is_cut_off_in_mxnet_is_told_by_the_layer_that_hands_none_on(
    written: Any, folder: Path
) -> None:
    """Its ports show no gradients between their layers: that of each layer before the cut is 0."""
    if "mxnet" not in installed():
        pytest.skip("mxnet is not installed")
    (fault,) = (fault for fault in written.FAULTS if "BlockGrad" in fault.new)
    assert written.misses(written.judge(folder, 0, fault)) == ""


def test_a_fault_that_is_not_told_is_a_miss(written: Any) -> None:
    fault = written.WrittenFault("torch", "lenet", "", "", "conv1", "the cause", True)
    for layer, cause, edit in ((False, True, True), (True, False, True), (True, True, False)):
        assert written.misses(written.Told(fault, layer, cause, False, edit, "said"))
    assert written.misses(written.Told(fault, True, True, True, True, "said"))
    assert written.misses(written.Told(fault, True, True, False, True, "said")) == ""
