"""What was forged, left out or never reached is no proof: certificates, exits, and the one verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import signed
from marks import NO_FRAMEWORK, needs_backend
from mutants.optimizers import trainer
from triptych import zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.conformance import certificate as certificates
from triptych.conformance import identity, suite, verification
from triptych.conformance.case import conformance_architecture, conformance_options
from triptych.conformance.certificate import Certificate
from triptych.conformance.compare import Check
from triptych.conformance.long_run import LongRun, PairRun
from triptych.spec import records
from triptych.spec.layers import Architecture, AvgPool, Conv, Dense, Flatten, MaxPool, ReLU, walk

FIRST = registry.installed()[:1]
needs_torch = pytest.mark.skipif("torch" not in registry.installed(), reason="torch is not installed")


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(str(stopped.value.code))


# --- whose spec it is -------------------------------------------------------------------------------------------------

SMALL = (Conv("conv", 4, (3, 3)), ReLU("relu"), Flatten("flatten"), Dense("dense", 10))


def other_pool() -> Architecture:
    lenet = conformance_architecture("lenet")
    pools = {path: layer for path, layer in walk(lenet.layers) if isinstance(layer, AvgPool)}
    other = {path: MaxPool(layer.name, layer.kernel, layer.stride) for path, layer in pools.items()}
    return replace(lenet, layers=tuple(other.get(layer.name, layer) for layer in lenet.layers))


def small(name: str) -> Architecture:
    return replace(conformance_architecture("lenet"), name=name, layers=SMALL)


@pytest.mark.parametrize("name", zoo.registry())
def test_a_network_of_the_zoo_is_known_by_its_spec(name: str) -> None:
    for head in (None, *zoo.get_entry(name).heads):
        for options in (conformance_options(name, head), zoo.Options(head=head)):
            spec = zoo.build_with(name, options)
            found = identity.options_of(spec)
            assert found is not None
            assert zoo.build_with(name, found) == spec
            assert identity.told_apart(spec) == spec


def test_a_dense_width_and_a_ratio_of_its_own_are_found() -> None:
    spec = zoo.build("vgg11", input=(1, 64, 64), classes=7, width_ratio=4, dense_width=100)
    assert identity.options_of(spec) is not None


@pytest.mark.parametrize("spec", [small("vgg11"), small("VGG-11"), other_pool()], ids=["vgg11", "VGG-11", "lenet"])
def test_another_network_under_a_name_of_the_zoo_is_told_apart(spec: Architecture) -> None:
    assert identity.options_of(spec) is None
    assert identity.told_apart(spec).name == f"own_{spec.name}"
    assert identity.told_apart(small("mine")).name == "mine"


@needs_backend
@pytest.mark.parametrize("spec", [small("vgg11"), small("VGG-11"), other_pool()], ids=["vgg11", "VGG-11", "lenet"])
def test_a_certificate_of_another_network_under_a_name_of_the_zoo_is_refused(spec: Architecture) -> None:
    framework = registry.load(FIRST[0])
    verdict = suite.run(spec, [framework], precisions=["fp64"])
    made = certificates.make([verdict], [None], [framework], precisions=["fp64"], seed=0, device="cpu")
    found = verification.verify(made)
    assert found.reasons == [
        f"{spec.name}: the spec is called '{spec.name}', as a network of the zoo, and is that network at no size"
    ]


@needs_backend
def test_a_spec_file_that_only_has_the_name_is_certified_as_its_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("spec.json").write_text(records.write(small("vgg11")))
    options = ["--arch", "spec.json", "--backends", FIRST[0], "--precision", "fp64", "--certificate", "c.json"]
    assert call("conform", *options) == 0
    assert call("verify", "c.json") == 0
    out = capsys.readouterr().out
    assert f"verified: own_vgg11 (a spec of its own) on {FIRST[0]}; " in out
    assert "not vouched for: own_vgg11: what it is called; it is a spec of its own and none of the zoo" in out


@needs_backend
def test_a_network_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("conform", "--arch", "lenet, lenet", "--backends", FIRST[0]) == 2
    assert "--arch names lenet more than once" in capsys.readouterr().err


# --- forgeries, each with its digest made anew ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> Certificate:
    """LeNet on the first backend in float64, over a trajectory too."""
    if not FIRST:
        pytest.skip(NO_FRAMEWORK)
    framework, options = registry.load(FIRST[0]), conformance_options("lenet")
    verdict = suite.run(zoo.build_with("lenet", options), [framework], precisions=["fp64"], steps=4)
    return certificates.make([verdict], [options], [framework], precisions=["fp64"], seed=0, device="cpu")


def verdict_with(certificate: Certificate, change: Callable[[suite.Verdict], suite.Verdict]) -> Certificate:
    (certified,) = certificate.architectures
    return replace(certificate, architectures=(replace(certified, verdict=change(certified.verdict)),))


def checks_with(certificate: Certificate, change: Callable[[Check], Check]) -> Certificate:
    def changed(verdict: suite.Verdict) -> suite.Verdict:
        reports = (replace(report, checks=tuple(map(change, report.checks))) for report in verdict.reports)
        return replace(verdict, reports=tuple(reports))

    return verdict_with(certificate, changed)


def trajectory_with(certificate: Certificate, **changes: Any) -> Certificate:
    return verdict_with(
        certificate, lambda verdict: replace(verdict, trajectory=replace(verdict.trajectory, **changes))
    )


def at(level: str, change: Callable[[Check], Check]) -> Callable[[Check], Check]:
    return lambda check: change(check) if check.level == level else check


def another_device(certificate: Certificate) -> Certificate:
    backends = {name: replace(p, device="cuda:0: H100") for name, p in certificate.backends.items()}
    return replace(certificate, backends=backends)


FORGERIES: dict[str, tuple[Callable[[Certificate], Certificate], str]] = {
    "differences of 0": (
        lambda c: checks_with(c, lambda k: replace(k, difference=0.0)),
        "another difference, more than 10 times: training, 'prediction of the last ",
    ),
    "differences of 0, where they are small": (
        lambda c: checks_with(c, lambda k: k if k.level == "training" else replace(k, difference=0.0)),
        "gradient: the differences are, all in all, 0.00e+00 of the budgets in the certificate",
    ),
    "differences of a level halfway to the budget": (
        lambda c: checks_with(c, at("gradient", lambda k: replace(k, difference=k.budget / 2))),
        "another difference, more than 10 times: gradient, ",
    ),
    "another scale": (lambda c: checks_with(c, lambda k: replace(k, scale=2 * k.scale)), "another scale: "),
    "not_run emptied": (lambda c: replace(c, not_run={}), "'fp32' was left out, and not_run does not say so"),
    "not_run of a verdict emptied": (
        lambda c: verdict_with(c, lambda v: replace(v, not_run={})),
        "was left out, and not_run does not say so",
    ),
    "a reason that nobody gives": (
        lambda c: replace(c, not_run=c.not_run | {"fp32": "it passed elsewhere"}),
        "'fp32' was left out because 'it passed elsewhere'; expected 'not asked for'",
    ),
    "another device": (another_device, f"{FIRST[:1]}"[2:-2] + ": was judged on 'cuda:0: H100', the certificate's"),
    "an architecture twice": (lambda c: replace(c, architectures=2 * c.architectures), "lenet: is certified 2 times"),
    "more steps": (lambda c: trajectory_with(c, steps=5), "trajectory: another budget"),
    "a trajectory of nothing": (lambda c: trajectory_with(c, checks={}), "trajectory: nothing is recorded of"),
    "a pair that was not run": (
        lambda c: trajectory_with(c, pairs=(PairRun("torch", "jax", "chaos", 1.0, None, None),)),
        "torch - jax fp32: trajectory: chaos in the certificate, not run here",
    ),
}


@needs_backend
def test_it_verifies_as_it_is(made: Certificate) -> None:
    found = verification.verify(made)
    assert (found.reasons, found.passed) == ([], True)
    assert "trajectory" not in made.not_run
    assert any("how far two runs diverge" in what for what in found.unvouched)


@needs_backend
@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_is_refused(what: str, made: Certificate) -> None:
    forge, reason = FORGERIES[what]
    forged = signed(forge(made))
    found = verification.verify(forged)
    assert not found.passed
    assert any(reason in line for line in found.reasons), found.reasons


# --- one verdict ------------------------------------------------------------------------------------------------------


def test_a_verdict_is_that_of_all_levels_that_were_run(made: Certificate) -> None:
    verdict = made.architectures[0].verdict
    assert verdict.passed
    failed = Check("trajectory", "conv.weight", 1.0, 0.5, 1.0)
    for wrong in (
        LongRun(4, {"torch": (failed,)}, ()),
        LongRun(4, {}, ()),
        replace(verdict.trajectory, pairs=(PairRun("a", "b", "undecided", 0.0, None, 0),)),
    ):
        assert not replace(verdict, trajectory=wrong).passed


@needs_backend
def test_a_failed_trajectory_is_no_architecture_that_conforms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = registry.load(FIRST[0])
    # what forgets the momentum with a state of three steps, and so no single step shows
    with trainer(rates=lambda rates, last: replace(rates, momentum=0.0) if forgets(rates) else rates)(right, "") as (
        wrong,
        _,
    ):
        monkeypatch.setattr(registry, "load", lambda name: wrong)
        options = ["--arch", "lenet", "--backends", FIRST[0], "--precision", "fp64", "--jobs", "1", "--json"]
        assert call("conform", *options, "--trajectory", "8") == 1
        (shown,) = json.loads(capsys.readouterr().out)
        assert (shown["passed"], shown["trajectory"]["passed"]) == (False, False)
        assert all(report["passed"] for report in shown["backends"])
        assert call("conform", *options[:-1], "--trajectory", "8") == 1
        assert capsys.readouterr().out.endswith(f"0 of 1 architectures conform on {FIRST[0]}\n")


def forgets(rates: Any) -> bool:
    """In the last quarter of a trajectory, whose momentum no update has."""
    return bool(rates.momentum > 0.94)


# --- exits ------------------------------------------------------------------------------------------------------------

LEAVING = """
import sys
from torch import nn

class Leaving(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential({layers})
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls > {after}:
            sys.exit(0)
        return self.net(x)
"""
LENET = """nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Sigmoid(),
    nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(),
    nn.Linear(84, 10)"""


@needs_torch
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("command", ["locate --right lenet --left", "conform --backends torch --input 1x28x28 --arch"])
def test_a_network_that_exits_is_no_success(
    command: str, after: int, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"leaving_{command.split()[0]}_{after}"
    Path(f"{name}.py").write_text(LEAVING.format(layers=LENET, after=after))
    monkeypatch.syspath_prepend(str(here))
    status = call(*command.split(), f"{name}:Leaving")
    out, err = capsys.readouterr()
    if command.startswith("conform") and status == 0:  # it was read before it would have left: what was judged is ours
        assert after
        assert "1 of 1 architectures conform" in out
    else:
        assert status in (1, 2)
        assert any(words in out + err for words in ("SystemExit", "ends the program", "ended the program"))
