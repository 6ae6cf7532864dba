"""Schedules: step by step PyTorch's own, MXNet's and optax's where they have them; a pure function; read from text."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import some_schedules
from triptych.backend import registry
from triptych.optim import schedules
from triptych.optim.optimizers import Adam, Rates
from triptych.optim.schedules import (
    Constant,
    Cosine,
    Moment,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Score,
    Step,
    Warmup,
)
from triptych.spec import records
from triptych.training import recipes
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError

STEPS_PER_EPOCH, EPOCHS, GIVEN = 7, 12, 0.1
STEPS = STEPS_PER_EPOCH * EPOCHS
SEED = np.random.default_rng(0)
HISTORY = [Score(float(a), float(b)) for a, b in zip(SEED.random(STEPS) + 1, SEED.random(STEPS), strict=True)]


def ours(schedule, given=GIVEN, epochs=EPOCHS, momentum=0.9):
    """Learning rate and momentum of every batch."""
    moments = [
        Moment(step, STEPS_PER_EPOCH, epochs, HISTORY[: step // STEPS_PER_EPOCH])
        for step in range(epochs * STEPS_PER_EPOCH)
    ]
    return np.array([(schedule.learning_rate(given, at), schedule.momentum(momentum, at)) for at in moments])


def of_torch(make, *, per, epochs=EPOCHS, given=GIVEN, momentum=0.9, measure=None):
    """The same of a PyTorch scheduler, stepped after every batch or epoch."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=given, momentum=momentum)
    native = make(torch.optim.lr_scheduler, optimizer)
    found = []
    for step in range(epochs * STEPS_PER_EPOCH):
        (group,) = optimizer.param_groups
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        if step + 1 == epochs * STEPS_PER_EPOCH:
            break
        if per == "batch":
            native.step()
        elif (step + 1) % STEPS_PER_EPOCH == 0:
            native.step(*([getattr(HISTORY[step // STEPS_PER_EPOCH], measure)] if measure else []))
    return np.array(found)


TORCH = [
    (Constant(), "batch", lambda s, o: s.ConstantLR(o, factor=1)),
    (Step(every=5, factor=0.5), "epoch", lambda s, o: s.StepLR(o, 5, 0.5)),
    (Step(every=10, factor=0.5, per="batch"), "batch", lambda s, o: s.StepLR(o, 10, 0.5)),
    (MultiStep((2, 5, 9), 0.5), "epoch", lambda s, o: s.MultiStepLR(o, [2, 5, 9], 0.5)),
    (MultiStep((1, 30), per="batch"), "batch", lambda s, o: s.MultiStepLR(o, [1, 30])),
    (Warmup(20, 0.25), "batch", lambda s, o: s.LinearLR(o, 0.25, total_iters=20)),
    (Warmup(4, 0.5, "epoch"), "epoch", lambda s, o: s.LinearLR(o, 0.5, total_iters=4)),
    (
        Warmup(30, 0.1, then=Step(10, 0.5, "batch")),
        "batch",
        lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=30), s.StepLR(o, 10, 0.5)]),
    ),
    (Cosine(), "epoch", lambda s, o: s.CosineAnnealingLR(o, EPOCHS)),
    (Cosine(per="batch", minimum=0.01), "batch", lambda s, o: s.CosineAnnealingLR(o, STEPS, 0.01)),
    (Cosine(total_epochs=30), "epoch", lambda s, o: s.CosineAnnealingLR(o, 30)),
    (Polynomial(), "epoch", lambda s, o: s.PolynomialLR(o, EPOCHS)),
    (Polynomial(per="batch", power=0.9), "batch", lambda s, o: s.PolynomialLR(o, STEPS, 0.9)),
    (Polynomial(total_epochs=5, power=2), "epoch", lambda s, o: s.PolynomialLR(o, 5, 2)),  # 0 from there
    (OneCycle(), "batch", lambda s, o: s.OneCycleLR(o, 0.1, STEPS)),
    (OneCycle(per="epoch", maximum=0.3), "epoch", lambda s, o: s.OneCycleLR(o, 0.3, EPOCHS)),
    (
        OneCycle(total_epochs=150, maximum=0.1, div=10, final_div=100, warm_up=0.05),
        "batch",
        lambda s, o: s.OneCycleLR(o, 0.1, 150 * STEPS_PER_EPOCH, pct_start=0.05, div_factor=10, final_div_factor=100),
    ),
]


@pytest.mark.parametrize(("schedule", "per", "make"), TORCH, ids=[str(schedule) for schedule, *_ in TORCH])
def test_step_by_step_as_in_pytorch(schedule, per, make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about a first step
        theirs = of_torch(make, per=per)
    assert ours(schedule) == pytest.approx(theirs, rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_one_cycle_of_few_steps(epochs):
    """Where the peak is not at a whole step, and where the warm-up is shorter than a step."""
    schedule = OneCycle(per="epoch")
    assert ours(schedule, epochs=epochs) == pytest.approx(
        of_torch(lambda s, o: s.OneCycleLR(o, 0.1, epochs), per="epoch", epochs=epochs), rel=1e-11
    )


@pytest.mark.parametrize(
    ("schedule", "mode"),
    [
        (Plateau(patience=1), "min"),
        (Plateau(patience=0, factor=0.5, threshold=0.05), "min"),  # one of the gains is smaller
        (Plateau(measure="accuracy", patience=0, factor=0.5, threshold=0.1, minimum=0.03), "max"),
    ],
)
def test_plateau_as_in_pytorch(schedule, mode):
    options = {name: getattr(schedule, name) for name in ("factor", "patience", "threshold")}
    theirs = of_torch(
        lambda s, o: s.ReduceLROnPlateau(o, mode, min_lr=schedule.minimum, **options),
        per="epoch",
        measure=schedule.measure,
    )
    assert len({rate for rate, _ in theirs}) >= 3  # else nothing was reduced
    assert ours(schedule) == pytest.approx(theirs, rel=1e-12)


def test_a_plateau_never_raises_the_rate():
    """Not even to its minimum: PyTorch leaves a rate that is given below it as it is."""
    schedule = Plateau(patience=0, minimum=2 * GIVEN)
    theirs = of_torch(lambda s, o: s.ReduceLROnPlateau(o, patience=0, min_lr=2 * GIVEN), per="epoch", measure="loss")
    assert ours(schedule) == pytest.approx(theirs, rel=1e-12)


def test_a_rate_beyond_every_float_is_infinite():
    """What then trains diverges, and says so in a line."""
    assert Step(factor=1e12).learning_rate(1.0, Moment(step=100)) == math.inf


def test_as_in_optax():
    optax = pytest.importorskip("optax")
    steps = range(STEPS)
    theirs = {
        Step(every=10, factor=0.5, per="batch"): optax.exponential_decay(GIVEN, 10, 0.5, staircase=True),
        Cosine(per="batch", minimum=0.01): optax.cosine_decay_schedule(GIVEN, STEPS, 0.1),
        Polynomial(per="batch", power=2): optax.polynomial_schedule(GIVEN, 0.0, 2, STEPS),
    }
    for schedule, native in theirs.items():
        assert ours(schedule)[:, 0] == pytest.approx([float(native(step)) for step in steps], rel=2e-5, abs=1e-8)
    # optax rounds the peak to a whole step: equal to PyTorch only where 0.3 of the steps is one.
    native = optax.cosine_onecycle_schedule(9, GIVEN, 0.3)
    found = [OneCycle(per="batch").learning_rate(GIVEN, Moment(step, 10)) for step in range(10)]
    assert abs(np.array(found) - [float(native(step)) for step in range(10)]).max() < 0.2 * GIVEN


@pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")
def test_as_in_mxnet():
    registry.load("mxnet")  # which MXNet needs beside today's NumPy
    from mxnet import lr_scheduler as scheduler

    theirs = {  # step counts of MXNet's begin at 1; a cosine and a polynomial are then a step ahead
        Step(every=10, factor=0.5, per="batch"): (1, scheduler.FactorScheduler(10, 0.5, base_lr=GIVEN)),
        Cosine(per="batch", minimum=0.01): (0, scheduler.CosineScheduler(STEPS, GIVEN, 0.01)),
        Polynomial(per="batch", power=2): (0, scheduler.PolyScheduler(STEPS, GIVEN, 2)),
    }
    for schedule, (first, native) in theirs.items():
        assert ours(schedule)[:, 0] == pytest.approx([native(step + first) for step in range(STEPS)], rel=1e-9)


def test_the_one_cycle_of_the_recipe():
    """What PyTorch does to an SGD of learning rate 1.0 and no momentum, stopped after 60 of 150 epochs of 391 steps."""
    torch = pytest.importorskip("torch")
    recipe = recipes.get_recipe("ascend-cifar10")
    steps = 391
    native = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(native, max_lr=0.1, epochs=150, steps_per_epoch=steps)
    seen = []
    native.step()
    for step in range(60 * steps):
        (group,) = native.param_groups
        seen.append(recipe.rates(step, steps))
        assert seen[-1] == Rates(group["lr"], group["momentum"]), step
        scheduler.step()
    assert (recipe.learning_rate, recipe.optimizer.momentum, recipe.epochs) == (1.0, 0.0, 60)
    assert seen[0] == Rates(0.004, 0.95)
    peak = round(0.3 * 150 * steps) - 1
    assert seen[peak] == Rates(0.1, 0.85)
    assert recipe.rates(150 * steps - 1, steps) == Rates(4e-7, 0.95)


def test_adam_has_no_momentum_to_cycle():
    recipe = Recipe("test", optimizer=Adam(), schedule=OneCycle(), epochs=3)
    assert [recipe.rates(step, 7).momentum for step in range(21)] == [0.0] * 21


def test_behind_its_plan_a_schedule_holds():
    for schedule in (Cosine(total_epochs=3, minimum=0.02), Polynomial(total_epochs=3), OneCycle(total_epochs=3)):
        rates = ours(schedule)
        last = 3 * STEPS_PER_EPOCH
        assert len(set(map(tuple, rates[last:]))) == 1
        assert rates[last, 0] == pytest.approx({"cosine": 0.02, "polynomial": 0.0}.get(schedule.name, 4e-7))


# --- text ------------------------------------------------------------------------------------------------------------


@given(some_schedules)
def test_a_schedule_survives_its_record_and_its_text(schedule):
    assert records.decode(records.encode(schedule), schedules.AnySchedule) == schedule
    assert schedules.parse(text_of(schedule)) == schedule


def text_of(schedule):
    """As one writes it on the command line."""
    settings = {item.name: getattr(schedule, item.name) for item in dataclasses.fields(schedule)}
    written = {key: ",".join(map(str, v)) if isinstance(v, tuple) else v for key, v in settings.items()}
    written |= {"then": text_of(settings["then"])} if "then" in settings else {}
    return f"{schedule.name}:{','.join(f'{key}={value}' for key, value in written.items())}"


@given(some_schedules, st.integers(0, 99), st.integers(1, 9), st.integers(1, 9))
def test_rates_are_never_negative_or_endless(schedule, step, steps_per_epoch, epochs):
    at = Moment(step, steps_per_epoch, epochs, HISTORY[: step // steps_per_epoch])
    assert 0 <= schedule.learning_rate(0.1, at) < math.inf
    assert 0 <= schedule.momentum(0.9, at) < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "did you mean 'cosine'"),
        ("step:evry=2", "did you mean 'every'"),
        ("step:every=1.5", "every '1.5' is not a whole number"),
        ("step:factor=much", "factor 'much' is not a number"),
        ("step:every=0", "every 0 must be at least 1"),
        ("step:factor=nan", "factor nan must be at least"),
        ("cosine:per=hour", "unknown schedule unit 'hour'"),
        ("cosine:total_epochs=-1", "total_epochs -1"),
        ("plateau:measure=luck", "unknown schedule measure"),
        ("cosine:minimum=-1", "minimum -1.0 must be at least 0"),
        ("polynomial:power=0", "power 0.0 must be at least"),
        ("one-cycle:low_momentum=1", "low_momentum 1.0 must be at least 0 and at most"),
        ("one-cycle:div=0", "div 0.0 must be at least"),
        ("one-cycle:warm_up=1.1", "warm_up 1.1 must be at least 0 and at most 1"),
        ("plateau:factor=1.1", "factor 1.1 must be at least .* and at most 1"),
        ("plateau:patience=-1", "patience -1 must be at least 0"),
        ("step:every=2,every=3", "'every' is there twice"),
        ("constant:name=step", "constant has no settings, and 'name=step' was given"),
        ("step:name=step", "unknown setting of schedule 'step' 'name'"),
    ],
)
def test_bad_schedules_are_refused(text, message):
    with pytest.raises(TriptychError, match=message):
        schedules.parse(text)
