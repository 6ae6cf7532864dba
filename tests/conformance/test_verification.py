"""Certificates that no program of ours has written: refused with a reason, or one line, never a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from triptych import zoo
from triptych.conformance import suite
from triptych.conformance.case import conformance_options
from triptych.conformance.certificate import Certificate, Certified, make, own_digest, read, write
from triptych.conformance.compare import Check
from triptych.conformance.conform import Report
from triptych.conformance.dropped import PREFIX as DRAWN
from triptych.conformance.levels import ALL_LEVELS
from triptych.conformance.recorded import verdict_faults
from triptych.conformance.rerun import figures, flag_differences
from triptych.conformance.verification import verify
from triptych.utils.errors import TriptychError


@cache
def written() -> Certificate:
    """LeNet on no backend: nothing has to be run, and what the file says of itself is judged all the same."""
    options = conformance_options("lenet")
    verdict = suite.run(zoo.build_with("lenet", options), [])
    return make([verdict], [options], [], precisions=suite.PRECISIONS, seed=0, device="cpu")


def reasons(change: Callable[[Certified], Certified]) -> str:
    """Of the certificate with a changed architecture, its digest made anew."""
    changed = replace(written(), architectures=(change(written().architectures[0]),))
    return " ".join(verify(replace(changed, digest=own_digest(changed))).reasons)


def spec_of(old: Certified, **changes: Any) -> Certified:
    spec = replace(old.verdict.architecture, **changes)
    return replace(old, verdict=replace(old.verdict, architecture=spec))


def test_a_spec_with_a_layer_twice_is_named_by_that_layer() -> None:
    def twice(old: Certified) -> Certified:
        return spec_of(old, layers=(*old.verdict.architecture.layers, old.verdict.architecture.layers[-1]))

    assert "the spec changed: layer 'dense3' in the certificate is 'None' in the zoo" in reasons(twice)


def test_the_spec_of_another_network_is_refused() -> None:
    assert "the spec in the file is that of 'lenet'" in reasons(lambda old: replace(old, name="vgg11", options=None))


def test_a_verdict_on_no_backend_is_no_pass() -> None:
    assert not written().passed
    assert "lenet: no backend was run" in verify(written()).reasons


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"classes": 10', '"classes": 1e999', "1e999 is no number"),
        ('"seed": 0', '"seed": 1, "seed": 0', "a name is there twice"),
        ('"version": 4', '"version": true', "has version True, not 4"),
    ],
)
def test_what_no_writer_writes_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    file = tmp_path / "c.json"
    write(file, written())
    assert read(file) == written()
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(TriptychError, match=words):
        read(file)


def report(difference: float = 0.5, flags: dict[str, Any] | None = None) -> Report:
    checks = [Check(level, "conv.weight", 0.5, 1.0, 1.0) for level in ALL_LEVELS if level != "update"]
    checks.append(Check("update", "conv.weight", difference, 1.0, 1.0))
    return Report(("torch",), "fp64", tuple(checks), flags or {})


def faults(*reports: Report) -> str:
    return " ".join(verdict_faults(replace(written().architectures[0].verdict, reports=reports), []))


def test_a_result_twice_and_a_negative_difference_are_faults() -> None:
    assert faults(report()) == ""
    assert "is recorded 2 times" in faults(report(), report())
    assert "records a failure: update, 'conv.weight': differs by -5.000e-01, allowed 1.000e+00" in faults(report(-0.5))


def test_a_check_twice_is_a_fault() -> None:
    twice = replace(report(), checks=(*report().checks, report().checks[-1]))
    assert "update, 'conv.weight' is recorded 2 times" in faults(twice)


def test_flags_that_were_left_out_are_missed_with_other_versions_too() -> None:
    here = report(flags={"tf32": False, "new": 1})
    assert list(flag_differences(report(flags={"tf32": False}), here, same_versions=False)) == []
    assert list(flag_differences(report(), here, same_versions=False)) == ["torch: no precision flag is recorded"]


@pytest.mark.parametrize(
    ("tensor", "precision", "budget", "scale", "changed", "said"),
    [
        ("w", "fp64", 1e-12, 1.0, {"budget": 1e-12 * (1 + 1e-9)}, ""),
        ("w", "fp64", 1e-12, 1.0, {"budget": 1e-12 * (1 + 1e-8)}, "another budget: update, 'w'"),
        ("w", "fp32", 1e-6, 1.0, {"scale": 1 + 1e-8}, "another scale: update, 'w'"),
        ("rest", "fp64", 1.6e-13, 1.4e-15, {"scale": 0.9e-15}, ""),
        ("rest", "fp32", 8.5e-5, 1.4e-15, {"scale": 0.9e-15}, ""),
        ("rest", "fp32", 8.5e-5, 1.4e-15, {"scale": 1.4e-12}, "another scale: update, 'w'"),
        (f"{DRAWN}share", "fp64", 100.0, 0.5, {"scale": 0.6}, "another scale: "),
    ],
)
def test_budgets_and_scales_may_be_off_by_what_float64_rounds(
    tensor: str, precision: str, budget: float, scale: float, changed: dict[str, float], said: str
) -> None:
    here = Check("update", tensor, 0.0, budget, scale)
    reasons = list(figures({"update, 'w'": replace(here, **changed)}, {"update, 'w'": here}, precision))
    assert len(reasons) == bool(said)
    assert "".join(reasons).startswith(said)
