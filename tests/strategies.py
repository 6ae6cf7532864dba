"""What hypothesis draws in more than one test."""

from __future__ import annotations

from hypothesis import strategies as st

from triptych.optim.optimizers import SGD, Adam, AdamW
from triptych.optim.schedules import MEASURES, UNITS, Constant, Cosine, OneCycle, Plateau, Polynomial, Step

positive = st.floats(1e-6, 1e6)
small = st.floats(1e-6, 0.99)
planned = {"total_epochs": st.integers(0, 999), "per": st.sampled_from(UNITS)}
some_schedules = st.one_of(
    st.builds(Constant),
    st.builds(Step, every=st.integers(1, 99), factor=small, per=planned["per"]),
    st.builds(Cosine, minimum=small, **planned),
    st.builds(Polynomial, power=small, **planned),
    st.builds(OneCycle, maximum=small, div=small, warm_up=small, high_momentum=small, low_momentum=small, **planned),
    st.builds(Plateau, measure=st.sampled_from(MEASURES), factor=small, patience=st.integers(0, 9)),
)
share = st.floats(0, 0.999)
decay = {"weight_decay": positive, "decayed": st.sampled_from(["all", "weights"])}
some_optimizers = st.one_of(
    st.builds(SGD, momentum=share, **decay),
    st.builds(SGD, momentum=small, nesterov=st.just(True)),
    *(st.builds(kind, beta1=share, beta2=share, eps=small, **decay) for kind in (Adam, AdamW)),
)
