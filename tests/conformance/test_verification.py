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
from triptych.conformance.certificate import Certificate, Judged, Measured, Result, make, own_digest, read, write
from triptych.conformance.verification import flag_differences, recorded_faults, verify
from triptych.utils.errors import TriptychError


@cache
def written() -> Certificate:
    """LeNet on no backend: nothing has to be run, and what the file says of itself is judged all the same."""
    options = conformance_options("lenet")
    verdict = suite.run(zoo.build_with("lenet", options), [])
    return make([verdict], [options], [], precisions=suite.PRECISIONS, seed=0, device="cpu")


def reasons(change: Callable[[Judged], Judged]) -> str:
    """Of the certificate with a changed architecture, its digest made anew."""
    changed = replace(written(), architectures=(change(written().architectures[0]),))
    return " ".join(verify(replace(changed, digest=own_digest(changed))).reasons)


def test_a_spec_with_a_layer_twice_is_named_by_that_layer() -> None:
    def twice(old: Judged) -> Judged:
        return replace(old, spec=replace(old.spec, layers=(*old.spec.layers, old.spec.layers[-1])))

    assert "the spec changed: layer 'dense3' in the certificate is 'None' in the zoo" in reasons(twice)


def test_the_spec_of_another_network_is_refused() -> None:
    assert "the spec in the file is that of 'lenet'" in reasons(lambda old: replace(old, name="vgg11", options=None))


@pytest.mark.parametrize("passed", [True, False])
def test_a_verdict_on_the_whole_that_its_parts_contradict_is_refused(passed: bool) -> None:
    parts = tuple(replace(old, passed=not passed) for old in written().architectures)
    changed = replace(written(), passed=passed, architectures=parts)
    assert "recorded as a whole as it is not" in " ".join(verify(changed).reasons)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"classes": 10', '"classes": 1e999', "1e999 is no number"),
        ('"seed": 0', '"seed": 1, "seed": 0', "a name is there twice"),
        ('"version": 1', '"version": true', "version: true is not 1"),
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


def result(difference: float = 0.5, flags: dict[str, Any] | None = None) -> Result:
    checks = {"update": {"conv.weight": Measured(difference, 1.0, "")}}
    return replace(RESULT, checks=checks, precision_flags=flags or {})


RESULT = Result(("torch",), "fp64", True, {}, {}, {}, {})


def faults(*results: Result) -> str:
    return " ".join(recorded_faults(replace(written().architectures[0], results=results, passed=True)))


def test_a_result_twice_and_a_negative_difference_are_faults() -> None:
    assert faults(result()) == ""
    assert "is recorded 2 times" in faults(result(), result())
    assert "records a failure: update, 'conv.weight': differs by -0.5, allowed 1.0" in faults(result(-0.5))


def test_flags_that_were_left_out_are_missed_with_other_versions_too() -> None:
    here = result(flags={"tf32": False, "new": 1})
    assert list(flag_differences(result(flags={"tf32": False}), here, same_versions=False)) == []
    assert list(flag_differences(result(), here, same_versions=False)) == ["torch: no precision flag is recorded"]
