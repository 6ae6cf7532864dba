"""Multipliers: what patterns come to, and the text for factors that a file has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych import zoo
from triptych.optim.multipliers import Factors, Multiplier, factors_of, parse, text_of
from triptych.optim.optimizers import SGD, decay_of, rates_of
from triptych.utils.errors import TriptychError

NETWORK = zoo.build("vgg11_bn")
PATHS = list(factors_of((), NETWORK))
some_factors = st.builds(Factors, st.sampled_from([1.0, 0.1, 10.0, 1e-7]), st.sampled_from([1.0, 0.0, 0.5]))


def test_all_that_match_multiply() -> None:
    optimizer = SGD(weight_decay=0.5, multipliers=parse("block1.*,dense3.*:rate=0.5,decay=0.25 *.bias:rate=4,decay=0"))
    rates, decays = rates_of(optimizer, NETWORK), decay_of(optimizer, NETWORK)
    assert rates["dense3.weight"] == 0.5
    assert rates["dense3.bias"] == 2.0
    assert (decays["dense3.weight"], decays["dense3.bias"]) == (0.125, 0.0)
    assert {rates[path] for path in PATHS if not path.startswith(("block1.", "dense3."))} == {1.0, 4.0}


@given(st.lists(some_factors, min_size=len(PATHS), max_size=len(PATHS)))
def test_a_text_says_the_factors(drawn: list[Factors]) -> None:
    wanted = dict(zip(PATHS, drawn, strict=True))
    assert factors_of(parse(text_of(wanted)), NETWORK) == wanted


def test_a_text_is_as_short_as_it_can_be() -> None:
    assert text_of(dict.fromkeys(PATHS, Factors())) == ""
    assert text_of(dict.fromkeys(PATHS, Factors(0.5, 2.0))) == "*:rate=0.5 *:decay=2"
    head = {
        path: Factors(10.0 if path.startswith("dense3.") else 1.0, float(not path.endswith(".bias"))) for path in PATHS
    }
    assert text_of(head) == "dense3.*:rate=10 *.bias:decay=0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dense3.*", "'dense3.*' does not say what is multiplied by what: write for example"),
        (":rate=2", "does not say what"),
        ("dense3.*:lr=2", "does not say what"),
        ("dense3.*:rate", "has what is no number"),
        ("dense3.*:rate=1,rate=2", "says one thing twice"),
        ("dense3.*:rate=0", "rate 0.0 must be above 0; --freeze keeps still"),
        ("dense3.*:rate=nan", "rate nan must be above 0"),
        ("dense3.*:decay=-1", "decay -1.0 must be a number of at least 0"),
        ("block9.*:rate=2", "'block9.*' matches no parameter of 'vgg11_bn'"),
        ("*.running_mean:rate=2", "matches no parameter"),
    ],
)
def test_what_says_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(TriptychError) as raised:
        factors_of(parse(text), NETWORK)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_multiplier_is_no_part_of_files_that_have_none() -> None:
    from triptych.spec import records

    assert "multipliers" not in records.encode(SGD())
    some = SGD(multipliers=(Multiplier("*", 2.0),))
    assert records.decode(records.encode(some), SGD) == some
