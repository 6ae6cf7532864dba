"""What hypothesis draws in more than one test."""

from __future__ import annotations

from hypothesis import strategies as st

from triptych.optim.multipliers import Multiplier
from triptych.optim.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from triptych.optim.schedules import (
    MEASURES,
    UNITS,
    Constant,
    Cosine,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Step,
    Warmup,
)

positive = st.floats(1e-6, 1e6)
small = st.floats(1e-6, 0.99)
planned = {"total_epochs": st.integers(0, 999), "per": st.sampled_from(UNITS)}
some_schedules = st.one_of(
    st.builds(Constant),
    st.builds(Step, every=st.integers(1, 99), factor=small, per=planned["per"]),
    st.builds(Cosine, minimum=small, **planned),
    st.builds(Polynomial, power=small, **planned),
    st.builds(OneCycle, maximum=small, div=small, warm_up=small, high_momentum=small, low_momentum=small, **planned),
    st.builds(MultiStep, milestones=st.sampled_from([(1,), (3, 8)]), factor=small, per=planned["per"]),
    st.builds(Warmup, over=st.integers(1, 99), start=small, per=planned["per"], then=st.builds(Cosine, **planned)),
    st.builds(Plateau, measure=st.sampled_from(MEASURES), factor=small, patience=st.integers(0, 9)),
)
share = st.floats(0, 0.999)
some_multipliers = st.lists(st.builds(Multiplier, pattern=st.just("*"), rate=positive, decay=share), max_size=2)
decay = {
    "weight_decay": positive,
    "decayed": st.sampled_from(["all", "weights"]),
    "multipliers": some_multipliers.map(tuple),
}
some_optimizers = st.one_of(
    st.builds(SGD, momentum=share, **decay),
    st.builds(SGD, momentum=small, nesterov=st.just(True)),
    st.builds(RMSprop, momentum=share, alpha=share, eps=small, **decay),
    st.builds(Adagrad, eps=small, **decay),
    st.builds(Adam, beta1=share, beta2=share, eps=small, eps_added=st.sampled_from(["after", "before"]), **decay),
    st.builds(AdamW, beta1=share, beta2=share, eps=small, **decay),
)
