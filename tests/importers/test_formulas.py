"""Activations by their names in a format, and by what is written out."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest

from triptych.importers import formulas
from triptych.importers.activations import ACTIVATIONS, Format, named
from triptych.spec.layers import ELU, GELU, Elementwise, Mish, Softplus, Softsign


@pytest.mark.parametrize("of", get_args(Format))
def test_no_name_stands_for_two(of: Format) -> None:
    names = Counter(name for row in ACTIVATIONS for name in getattr(row, of).split())
    assert set(names.values()) == {1}
    assert len(named(of)) == len(names)


def known(**terms: tuple[str, tuple[str | float, ...]]) -> dict[str, tuple[Elementwise, str]]:
    made = {name: formulas.term(function, inputs) for name, (function, inputs) in terms.items()}
    return formulas.activations({name: term for name, term in made.items() if term})


def test_the_whole_formula_is_known_and_what_it_is_of() -> None:
    """Behind an affine layer; softplus within Mish is one, too."""
    found = known(
        double=("mul", ("conv", 2.0)),
        exp=("exp", ("double",)),
        above=("add", (1.0, "exp")),
        log=("log", ("above",)),
        tanh=("tanh", ("log",)),
        y=("mul", ("tanh", "double")),
    )
    assert found == {"log": (Softplus(""), "double"), "y": (Mish(""), "double")}


def test_numbers_may_be_computed_and_alpha_be_any() -> None:
    found = known(
        root=("sqrt", (2.0,)),
        inner=("div", ("x", "root")),
        erf=("erf", ("inner",)),
        above=("add", ("erf", 1.0)),
        half=("mul", ("x", 0.5)),
        y=("mul", ("half", "above")),
        positive=("gt", ("y", 0.0)),
        minus=("expm1", ("y",)),
        below=("mul", (0.37, "minus")),
        z=("where", ("positive", "y", "below")),
    )
    assert found == {"y": (GELU("", approximate=False), "x"), "z": (ELU("", 0.37), "y")}


def test_what_two_values_have_a_part_in_is_none() -> None:
    found = known(size=("abs", ("other",)), above=("add", ("size", 1.0)), y=("div", ("x", "above")))
    assert found == {}
    assert known(size=("abs", ("x",)), above=("add", ("size", 1.0)), y=("div", ("x", "above"))) == {
        "y": (Softsign(""), "x")
    }


def test_a_row_of_layers_is_no_formula() -> None:
    """ReLU of ReLU is ReLU: two layers stay two."""
    assert known(one=("relu", ("x",)), two=("relu", ("one",))) == {}


@pytest.mark.parametrize(("name", "count"), [("max", 1), ("max", 3), ("where", 2), ("erf", 2), ("no such", 1)])
def test_another_number_of_inputs_is_no_function(name: str, count: int) -> None:
    before = np.array(formulas.POINTS)
    assert known(y=(name, ("x", 2.0, 3.0)[:count])) == {}
    assert np.array_equal(formulas.POINTS, before)
