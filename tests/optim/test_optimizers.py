"""Optimisers as records: what they say of themselves, as JSON, and that every backend builds each of them."""

from __future__ import annotations

import importlib
from dataclasses import fields

import pytest
from hypothesis import given

from strategies import some_optimizers
from triptych.backend import registry
from triptych.optim.optimizers import OPTIMIZERS, SGD, Adagrad, Adam, AdamW, AnyOptimizer, Optimizer, Rates, RMSprop
from triptych.spec import records
from triptych.utils.errors import TriptychError

FIELDS = {
    SGD: {"weight_decay", "decayed", "multipliers", "momentum", "nesterov"},
    Adam: {"weight_decay", "decayed", "multipliers", "beta1", "beta2", "eps", "eps_added"},
    AdamW: {"weight_decay", "decayed", "multipliers", "beta1", "beta2", "eps"},
    RMSprop: {"weight_decay", "decayed", "multipliers", "momentum", "alpha", "eps"},
    Adagrad: {"weight_decay", "decayed", "multipliers", "eps"},
}


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_an_optimizer_has_its_own_fields_only(kind: type[Optimizer]) -> None:
    assert {field.name for field in fields(kind)} == FIELDS[kind]


@given(some_optimizers)
def test_an_optimizer_survives_json(optimizer: Optimizer) -> None:
    written = records.encode(optimizer)
    assert written["record"] == type(optimizer).__name__
    assert records.decode(written, AnyOptimizer) == optimizer


@pytest.mark.parametrize("name", registry.installed())
def test_every_backend_builds_every_optimizer(name: str) -> None:
    package = registry.load(name).__name__  # type: ignore[attr-defined]
    assert set(importlib.import_module(f"{package}.optimizer").NATIVE) == set(OPTIMIZERS.values())


def test_what_a_step_leaves_behind() -> None:
    assert SGD(momentum=0.9).remembers(Rates(0.1, 0.9))
    assert not SGD(momentum=0.9).remembers(Rates(0.1, 0.0))
    assert Adam().remembers(Rates(0.1))
    assert SGD(momentum=0.9).rates(0.1, 0.9) == Rates(0.1, 0.9)
    assert Adam().rates(0.1, 0.9) == Rates(0.1)


def test_another_kind_takes_over_what_both_have() -> None:
    adamw = AdamW(weight_decay=0.1, decayed="weights", beta1=0.5)
    assert adamw.as_kind(Adam) == Adam(weight_decay=0.1, decayed="weights", beta1=0.5)
    assert adamw.as_kind(SGD) == SGD(weight_decay=0.1, decayed="weights")
    assert Adam() != AdamW()


def test_a_name_for_two_records_is_refused() -> None:
    with pytest.raises(ValueError, match="two records of the name SGD"):
        records.register(type("SGD", (), {}))
    with pytest.raises(TriptychError, match="missing or unknown in Adam: 'momentum'"):
        records.decode(records.encode(Adam()) | {"momentum": 0.9}, AnyOptimizer)
