"""The model of training on many devices: what it says at its ends, and what it counts."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych import zoo

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import scaling_model as model

counts = st.integers(1, 4096)
steps = st.builds(model.StepCost, st.floats(1e-4, 10), st.floats(1e3, 1e10))
bandwidths = st.floats(1e5, 1e12)


@given(steps, bandwidths)
def test_a_device_alone_only_computes(step, bandwidth):
    assert step.seconds(1, bandwidth) == pytest.approx(step.compute)


@given(steps, counts, bandwidths)
def test_a_step_lies_between_all_hidden_and_nothing_hidden(step, count, bandwidth):
    sent = step.communication(count, bandwidth, model.HOP, model.TREES)
    least = max(step.compute, model.FORWARD * step.compute + sent)
    assert least <= step.seconds(count, bandwidth) * (1 + 1e-9)
    assert step.seconds(count, bandwidth) <= (step.compute + sent) * (1 + 1e-9)


@given(steps, counts, bandwidths)
def test_more_hosts_and_slower_links_are_never_faster(step, count, bandwidth):
    assert step.seconds(count + 1, bandwidth) >= step.seconds(count, bandwidth) * (1 - 1e-9)
    assert step.seconds(count, bandwidth / 2) >= step.seconds(count, bandwidth) * (1 - 1e-9)


def test_two_hosts_send_each_gradient_once():
    step = model.StepCost(compute=0.3, gradients=1e6)
    assert step.communication(2, 1e6, 0, model.RING) == pytest.approx(1.0)
    assert step.seconds(2, 1e6, 0) == pytest.approx(1.3)  # a single bucket finds nothing to hide behind


def test_a_server_beside_a_worker_takes_gradients_and_sends_each_of_the_others_a_copy():
    step = model.StepCost(compute=0.3, gradients=1e6)
    sent = [step.communication(count, 1e6, 0, model.SERVER) for count in (1, 2, 4)]
    assert sent == pytest.approx([0, 2, 4])


def test_gradients_are_those_of_the_published_counts():
    assert model.gradient_bytes(zoo.build("vgg16")) == 4 * 138_357_544
    assert "553 MB" in model.table("vgg16")[0]
