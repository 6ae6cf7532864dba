"""`triptych.testing`: what a user's own test suite calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.backend import registry
from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.zoo import build

pytestmark = pytest.mark.skipif("torch" not in registry.installed(), reason="torch is not installed")


def network(pooling: str = "mean"):
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid()),
        nn.Linear(84, 10),
    )


def test_a_module_against_a_name_a_spec_a_file_and_another_module(tmp_path: Path) -> None:
    from triptych.testing import assert_conforms

    file = tmp_path / "lenet.json"
    file.write_text(records.write(build("lenet")))
    for expected in ("lenet", build("lenet"), file):
        assert assert_conforms(network(), expected).difference is None
    assert assert_conforms(network(), network(), input=(1, 28, 28)).difference is None


def test_what_is_another_network_is_said_in_a_line() -> None:
    from triptych.testing import assert_conforms

    with pytest.raises(AssertionError, match=r"the network is not lenet: they part at forward eval in layer 'pool1'"):
        assert_conforms(network(pooling="max"), "lenet")
    with pytest.raises(TriptychError, match="unknown architecture 'lenett'"):
        assert_conforms(network(), "lenett")
