"""`benchmarks/hunt.py`: what it draws fits, what fails is reduced, and a process that ends is an answer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest

from triptych.spec.kinds import COMPOSITES, KINDS
from triptych.spec.layers import Architecture, Block, Branches, Conv, Flatten, Layer, ReLU, Residual, walk
from triptych.spec.records import decode, encode

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")

with pytest.MonkeyPatch.context() as scripts:  # for no longer: one of them has the name of a folder of tests
    scripts.syspath_prepend(BENCHMARKS)
    import hunt
    import hunt_grammar
    import hunt_reduce

FAULT = hunt.Discovery("planted", "fp64", "gradient", "weight", "differs by 1, allowed 0")


def conv(name: str, **more: object) -> Conv:
    return Conv(name, 8, (3, 3), padding=(3, 3), **more)


def planted(architecture: Architecture) -> bool:
    """Wrong where a convolution has both a stride and a dilation along the rows, behind another layer."""
    layers = [layer for _, layer in walk(architecture.layers) if not isinstance(layer, Block | Branches | Residual)]
    return any(isinstance(each, Conv) and min(each.stride[0], each.dilation[0]) > 1 for each in layers[1:])


def test_a_planted_fault_is_reduced_to_what_it_needs():
    layers: tuple[Layer, ...] = (
        conv("first", groups=4),
        Branches("both", (Block("one", (ReLU("relu"), conv("wrong", stride=(3, 2), dilation=(2, 3)))),)),
        Residual("unit", Block("body", (ReLU("relu"),))),
        Flatten("flat"),
    )
    reduced = hunt_reduce.reduce(Architecture("drawn", (8, 24, 19), 0, layers), planted, 1000)
    first, wrong = reduced.layers
    assert reduced.input == (1, 1, 1)
    assert isinstance(first, ReLU) or first.channels == 1
    assert wrong == Conv(wrong.name, 1, (1, 1), (2, 1), (0, 0), 1, False, (2, 1))
    assert planted(reduced)


def test_a_network_that_fails_in_no_smaller_form_stays_as_it_is():
    drawn = hunt_grammar.draw(Random("1"))
    assert hunt_reduce.reduce(drawn, lambda smaller: False) is drawn


def test_the_grammar_draws_every_kind_the_same_from_the_same_seed():
    drawn = [hunt_grammar.draw(Random(f"7 {number}")) for number in range(150)]
    assert {type(layer) for each in drawn for _, layer in walk(each.layers)} == {*KINDS, *COMPOSITES}
    assert all(hunt_reduce.fits(each) and decode(encode(each), Architecture) == each for each in drawn)
    assert drawn[3] == hunt_grammar.draw(Random("7 3"))


def test_a_process_that_ends_or_hangs_or_raises_is_told_and_replaced(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    endings = {}
    for name, function, argument in (("abort", os.abort, ()), ("exit", os._exit, (3,)), ("raise", int, ("x",))):
        worker = hunt.JudgeProcess(function)
        endings[name] = worker.ask(*argument)
        worker.end()
    assert endings["abort"] == (None, "the process ended by SIGABRT")
    assert endings["exit"] == (None, "the process ended with 3")
    assert endings["raise"][1].startswith("ValueError")
    sleeper = hunt.JudgeProcess(time.sleep, limit=1.0)
    assert sleeper.ask(60) == (None, "no answer after 1 s")
    assert sleeper.ask(0) == (None, "")
    sleeper.end()


def test_what_backends_have_in_common_is_one_kind_of_finding():
    other = hunt.Discovery("other", "fp64", "gradient", "bias", "differs by 2, allowed 0")
    crash = hunt.Discovery("planted", "", "(run)", "", "the process ended by SIGSEGV")
    assert FAULT.kind == other.kind != crash.kind
    errors = [hunt.Discovery("a", "fp64", "gradient", "", f"Error in plus{n}: got [{n},1]") for n in (5, 17)]
    assert errors[0].kind == errors[1].kind != FAULT.kind
    answers = [crash, FAULT]
    reduced = hunt.reduce_by(
        hunt_grammar.draw(Random("1")), FAULT.kind, lambda smaller: answers.pop() if answers else None
    )
    assert not answers
    assert hunt_reduce.size(reduced) < hunt_reduce.size(hunt_grammar.draw(Random("1")))
