"""`locate` between backends and the reference: planted faults are named by layer, level and cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marks import every_backend, later, needs_backend
from mutants import CATALOGUE
from triptych.__main__ import main
from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.conformance import trained
from triptych.conformance.case import make_case
from triptych.conformance.conform import PRECISIONS
from triptych.conformance.diagnosis.explain import Difference
from triptych.conformance.levels import ALL_LEVELS, TRAINING
from triptych.conformance.locate import BATCH, MODES, locate
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import BackendSubject, ReferenceSubject
from triptych.optim.optimizers import SGD, Rates
from triptych.reference import network as reference
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
    Sigmoid,
    children,
)
from triptych.zoo import Options, build_with

CONV = Conv("conv", 4, (3, 3), padding=(1, 1))
HEAD = Auxiliary("head", (GlobalAvgPool("mean"), Flatten("flat"), Dense("out", 3)), 0.3)
# One of nearly everything, so that a fault has something before and behind it that could be blamed.
NET = Architecture(
    "everything",
    (2, 9, 12),
    3,
    (
        Block("stem", (Conv("conv", 4, (3, 3), bias=False), BatchNorm("norm"), ReLU("relu"))),
        LocalResponseNorm("lrn", 3, 0.5, 0.75, 2.0),
        MaxPool("pool", (3, 3), (2, 2)),
        HEAD,
        Residual("unit", Block("body", (CONV,)), scale=0.3),
        Branches("mixed", (Block("a", (CONV,)), Block("b", (replace(CONV, name="other"), Sigmoid("sigmoid"))))),
        Flatten("flatten"),
        Dense("hidden", 6),
        Dropout("dropout", 0.5),
        Dense("dense", 3),
    ),
    Initializer("kaiming_normal"),
)


def change(layer: Any, target: str, make: Callable[[Any], Any]) -> Any:
    """The tree with the record at path `target` replaced by what `make` makes of it."""
    name, _, rest = target.partition(".")
    for key in ("layers", "branches", "body"):
        below = getattr(layer, key, ())
        found = tuple(
            child if child.name != name else change(child, rest, make) if rest else make(child)
            for child in (below if isinstance(below, tuple) else (below,))
        )
        if below:
            layer = replace(layer, **{key: found if isinstance(below, tuple) else found[0]})
    return layer


@dataclass(frozen=True)
class Fault:
    """What is planted; where it must be found, and a word of the cause."""

    layer: str
    level: str
    cause: str
    record: Callable[[Any], Any] | None = None  # another record in the spec that the backend builds
    target: str = ""
    trainer: Callable[[Any, Any], tuple[Any, Any]] | None = None  # other optimiser and rates
    forward: Callable[..., Any] | None = None  # another whole pass


def fields(path: str, level: str, cause: str, **values: Any) -> Fault:
    return Fault(path, level, cause, lambda layer: replace(layer, **values), path)


def reversed_branches(layer: Branches) -> Branches:
    return replace(layer, branches=layer.branches[::-1])


FAULTS = {
    "name": Fault("mixed.b.sigmoid", "structure", "", lambda layer: Sigmoid("gate"), "mixed.b.sigmoid"),
    "more channels": fields("mixed.b.other", "structure", "", channels=5),
    "ceil": fields("pool", "structure", "ceil for floor", ceil=True),
    "eps": fields("stem.norm", "forward eval", "eps is 0.001", eps=1e-3),
    "alpha": fields("lrn", "forward eval", "constant factor 3 in the LRN term: alpha not divided", divide_alpha=False),
    "k": fields("lrn", "forward eval", "k is 1, not 2", k=1.0),
    "sigmoid": Fault("stem.relu", "forward eval", "a sigmoid is applied", lambda layer: Sigmoid("relu"), "stem.relu"),
    "scale": fields("unit", "forward eval", "scale is 1, not 0.3", scale=1.0),
    "branch order": Fault("mixed", "forward eval", "in the order b, a", reversed_branches, "mixed"),
    "dropout rate": fields("dropout", "forward train", "as at a rate of 0.4", rate=0.4),
    "auxiliary weight": fields("head", "gradient", "weighted by 0.4, not 0.3", weight=0.4),
    "momentum": fields("stem.norm", "update", "weight of the old statistics", momentum=0.9),
    "biased": fields("stem.norm", "update", "kept biased", unbiased=False),
    "no decay": Fault("stem.conv", "update", "no weight decay", trainer=lambda o, r: (replace(o, weight_decay=0.0), r)),
    "decay of biases": Fault(
        "stem.norm", "update", "reaches biases", trainer=lambda o, r: (replace(o, decayed="all"), r)
    ),
    "summed loss": Fault(
        "stem.conv",
        "update",
        "as for a summed loss",
        trainer=lambda o, r: (o, replace(r, learning_rate=2 * r.learning_rate)),
    ),
    "order of the images": Fault(
        "stem.conv",
        "forward eval",
        "reverse order",
        forward=lambda right, network, images, **mode: right(network, images[::-1].copy(), **mode),
    ),
}
# JAX compiles for seconds per fault: there the rest runs later.
QUICK = ("eps", "scale", "auxiliary weight", "no decay")


def planted(fault: Fault | None, framework: Backend, run: ReferenceRun) -> BackendSubject:
    """The backend with the fault in it."""
    wrong = SimpleNamespace(**vars(framework))
    architecture = run.case.architecture
    if fault is not None and fault.record is not None:
        architecture = change(architecture, fault.target, fault.record)
    if fault is not None and (alter := fault.trainer) is not None:

        class Trainer(framework.Trainer):  # type: ignore[misc, name-defined]
            def __init__(self, network: Any, optimizer: Any, *more: Any) -> None:
                super().__init__(network, alter(optimizer, Rates(0.0))[0], *more)

            def step(self, images: Any, labels: Any, rates: Any, number: int, **more: Any) -> Any:
                return super().step(images, labels, alter(SGD(), rates)[1], number, **more)

        wrong.Trainer = Trainer
    if fault is not None and (forward := fault.forward) is not None:
        wrong.forward = lambda *given, **mode: forward(framework.forward, *given, **mode)
    return BackendSubject(wrong, lambda _: framework.build(architecture, execution=exact("fp64")), run)  # type: ignore[arg-type]


@cache
def run_of(architecture: Architecture) -> ReferenceRun:
    return ReferenceRun(make_case(architecture, 0, BATCH))


@cache
def found(name: str, fault: str, mode: str) -> Difference | None:
    run = run_of(NET)
    subject = planted(FAULTS.get(fault), registry.load(name), run)
    return locate(subject, ReferenceSubject(run), mode).difference


def cases() -> list[Any]:
    return [
        pytest.param(name, fault, marks=() if fault in QUICK or name == "torch" else later)
        for name in registry.installed()
        for fault in FAULTS
    ]


@pytest.mark.parametrize(("name", "fault"), cases())
def test_a_planted_fault_is_named_by_layer_level_and_cause(name: str, fault: str) -> None:
    expected, difference = FAULTS[fault], found(name, fault, MODES[0])
    assert difference is not None
    assert (difference.layer, difference.level) == (expected.layer, expected.level)
    assert expected.cause in difference.cause
    assert difference.at_fault == (name,)


@pytest.mark.parametrize("name", registry.installed()[:1])
def test_accumulated_passes_name_the_layer_of_most_and_the_level_of_all(name: str) -> None:
    differences = {fault: found(name, fault, MODES[1]) for fault in FAULTS}
    levels = [fault for fault, d in differences.items() if d is None or d.level != FAULTS[fault].level]
    layers = [fault for fault, d in differences.items() if d is None or d.layer != FAULTS[fault].layer]
    assert levels == []
    assert len(layers) <= 0.05 * len(FAULTS), layers


@every_backend
@pytest.mark.parametrize("mode", MODES)
def test_without_a_fault_there_is_no_difference(name: str, mode: str) -> None:
    assert found(name, "", mode) is None


@needs_backend
def test_subjects_that_agree_need_no_perturbed_pass_and_none_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a whole network a pass in each mode; at 224x224 one of VGG-16 takes 10 s."""
    passes = []
    forward = ReferenceRun._forward

    def counted(self: ReferenceRun, *given: Any, train: bool, **mode: Any) -> reference.ReferencePass:
        passes.append((self.origin is self, train))
        return forward(self, *given, train=train, **mode)

    monkeypatch.setattr(ReferenceRun, "_forward", counted)
    run = ReferenceRun(make_case(NET, 0, BATCH))
    subject = planted(None, registry.load(registry.installed()[0]), run)
    assert locate(subject, ReferenceSubject(run), updates=("momentum",)).difference is None
    assert passes == [(True, False), (True, True)]


@needs_backend
def test_what_is_above_the_least_budget_alone_is_within_the_whole_one() -> None:
    """Perturbed executions have the last word: here nothing at all is allowed without them."""
    run = ReferenceRun(make_case(NET, 0, BATCH))
    subject = planted(None, registry.load(registry.installed()[0]), run)
    subject.loaded()
    strict = replace(TRAINING, least=lambda run, precision, arrays: dict.fromkeys(arrays, 0.0))
    assert locate(subject, ReferenceSubject(run), levels=[strict]).difference is None
    arrays = trained.expected(run)
    for precision in PRECISIONS:
        seen = trained.visible(arrays, precision)
        least, most = trained.least(run, precision, seen), trained.budgets(run, precision, seen)
        assert least.keys() == most.keys() == seen.keys()
        assert [name for name in seen if least[name] > most[name]] == []


@needs_backend
def test_a_later_layer_is_not_blamed_for_an_earlier_one() -> None:
    """Two faults: resynchronised, the second layer alone is right where only the first is wrong, and both are seen."""
    framework, run = registry.load(registry.installed()[0]), run_of(NET)
    subject = planted(FAULTS["eps"], framework, run)
    subject.loaded()
    for path, _ in run.nodes(False):
        expected = run.layer(path, False, False)["output"]
        difference = np.abs(subject.layer(path, False, False)["output"] - expected).max()
        assert (difference > 1e-9) == (path == "stem.norm"), path


@every_backend
def test_every_layer_alone_is_the_reference(name: str) -> None:
    """`layer_pass` of every record, composites too: output, gradient of the input, gradients of the parameters."""
    run = run_of(NET)
    subject = planted(None, registry.load(name), run)
    subject.loaded()
    for path, layer in run.layers.items():
        expected = run.layer(path, True, True)
        values = subject.layer(path, True, True)
        assert set(values) == set(expected), path
        for key, value in values.items():
            np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-12 * max(1, np.abs(expected[key]).max()))
        assert children(layer) or len(values) >= 2


def test_a_reference_layer_alone_is_what_it_is_in_the_whole_pass() -> None:
    run = run_of(NET)
    for path, layer in run.layers.items():
        whole = run.layer(path, True, True)
        trace = run.trace(True)
        y, dx, gradients = reference.layer_pass(
            layer,
            path,
            run.parameters,
            trace.inputs[path],
            trace.arriving[path],
            train=True,
            masks=run.case.masks(0),
        )
        assert dx is not None
        np.testing.assert_array_equal(y, whole["output"])
        np.testing.assert_array_equal(dx, whole["input"])
        assert set(gradients) == set(whole) - {"output", "input"}


def test_two_backends_and_which_of_them_is_wrong() -> None:
    names = registry.installed()
    if len(names) < 2:
        pytest.skip("needs two frameworks")
    run = run_of(NET)
    right = planted(None, registry.load(names[1]), run)
    wrong = planted(FAULTS["k"], registry.load(names[0]), run)
    for left, other in ((wrong, right), (right, wrong)):
        difference = locate(left, other).difference
        assert difference is not None
        assert (difference.layer, difference.at_fault) == ("lrn", (names[0],))


@needs_backend
def test_a_crash_is_a_difference_not_a_trace() -> None:
    def crash(*given: Any, **mode: Any) -> Any:
        raise ArithmeticError("as frameworks raise them")

    run = run_of(NET)
    subject = planted(None, registry.load(registry.installed()[0]), run)
    subject.backend.layer_pass = crash  # type: ignore[method-assign]
    difference = locate(subject, ReferenceSubject(run)).difference
    assert difference is not None
    assert difference.layer == "stem.conv"
    assert difference.check.problem == "failed: ArithmeticError: as frameworks raise them"


@later
@pytest.mark.parametrize("mode", MODES)
@every_backend
def test_the_catalogue_is_located(name: str, mode: str) -> None:
    """The exact layer of at least 95 in 100 planted faults, the level of all."""
    framework = registry.load(name)
    wrong_layer, wrong_level = [], []
    mutants = [mutant for mutant in CATALOGUE.values() if name not in mutant.impossible]
    for mutant in mutants:
        run = ReferenceRun(make_case(mutant.architecture))
        with mutant.plant(framework, "fp64") as (wrong, build):
            network = (build or partial(wrong.build, execution=exact("fp64")))(mutant.architecture)
            difference = locate(
                BackendSubject(wrong, lambda _, network=network: network, run), ReferenceSubject(run), mode
            ).difference
        if difference is None or difference.layer != mutant.path:
            wrong_layer.append(mutant.name)
        if difference is None or not difference.level.startswith(mutant.phase):
            wrong_level.append(mutant.name)
    assert wrong_level == []
    assert len(wrong_layer) <= 0.05 * len(mutants), wrong_layer


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["locate", *arguments])
    return int(exit_.value.code or 0)


@needs_backend
def test_the_command_says_that_they_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--arch", "lenet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["agree"], found["difference"]) == (True, None)
    assert found["levels"] == list(ALL_LEVELS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mode", "guessed"), "unknown --mode 'guessed'"),
        (("--left", "torch", "--right", "torch"), "name two subjects"),
        (("--left", "reference"), "both 'reference'"),
        (("--left", "vgg11", "--right", "reference"), "both are the reference"),
        (("--left", "torch", "--right", "vgg11", "--arch", "vgg16"), "several architectures"),
        (("--left", "reference", "--right", "torhc"), "unknown backend 'torhc'; did you mean 'torch'?"),
        (("--precision", "bf16"), "cannot be judged"),
        (("--layout", "NHWC"), "are for your own network"),
        (("--left", "no_such_module:net", "--right", "lenet"), "there is no module 'no_such_module'"),
        (("--left", "json:nothing", "--right", "lenet"), "unknown name in 'json' 'nothing'"),
        (("--left", "json:dumps", "--right", "lenet"), "needs arguments (obj)"),
        (("--left", "json:JSONDecoder", "--right", "lenet"), "is no network of"),
        (("--left", "a b:c", "--right", "lenet"), "is not module:name"),
        (("--left", "no_such_module:net", "--right", "lenet", "--layout", "NHCW"), "unknown --layout 'NHCW'"),
        (("--left", "no_such_module:net", "--right", "lenet", "--mapping", "missing.json"), "cannot read the mapping"),
        (("--right", "torhc", "--optimizers", "adam"), "--optimizers 'adam' must be all or momentum"),
        (("--left", "json:dumps", "--right", "torch", "--arch", "lenet"), "is compared with an architecture"),
    ],
)
def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@later
@every_backend
def test_a_network_of_full_width_agrees(name: str) -> None:
    """VGG-16 at 64x64: 40 million parameters, whose gradients are long sums."""
    framework = registry.load(name)
    run = ReferenceRun(make_case(build_with("vgg16", Options(10, (3, 64, 64))), 0, BATCH))
    subject = BackendSubject(framework, partial(framework.build, execution=exact("fp64")), run)
    assert locate(subject, ReferenceSubject(run), updates=("momentum",)).difference is None
