"""The decay that the judge has is written by itself, and is the optimisers' on every network of the zoo."""

from __future__ import annotations

import pytest

from mutants.networks import EVERYTHING, PRELU
from triptych import zoo
from triptych.conformance.case import conformance_architecture
from triptych.optim.optimizers import SGD, Adam, decay_of
from triptych.reference.decay import decay_by_path


@pytest.mark.parametrize("optimizer", [SGD(weight_decay=0.1, decayed="weights"), Adam(weight_decay=0.1)])
def test_it_is_what_the_optimizers_say(optimizer: SGD | Adam) -> None:
    for architecture in (*map(conformance_architecture, zoo.registry()), EVERYTHING, PRELU):
        assert decay_by_path(optimizer, architecture) == decay_of(optimizer, architecture)
