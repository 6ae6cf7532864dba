"""What hypothesis draws in more than one test."""

from __future__ import annotations

from hypothesis import strategies as st

from triptych.optim.schedules import MEASURES, UNITS, Cosine, OneCycle, Plateau, Polynomial, Schedule, Step

small = st.floats(1e-6, 0.99)
planned = {"total_epochs": st.integers(0, 999), "per": st.sampled_from(UNITS)}
some_schedules = st.one_of(
    st.builds(Schedule),
    st.builds(Step, every=st.integers(1, 99), factor=small, per=planned["per"]),
    st.builds(Cosine, minimum=small, **planned),
    st.builds(Polynomial, power=small, **planned),
    st.builds(OneCycle, maximum=small, div=small, warm_up=small, high_momentum=small, low_momentum=small, **planned),
    st.builds(Plateau, measure=st.sampled_from(MEASURES), factor=small, patience=st.integers(0, 9)),
)
