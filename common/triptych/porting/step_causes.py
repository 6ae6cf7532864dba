"""Why an optimiser's steps are not those of its plan: the numbers, or the form, with which they would be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from triptych.conformance.diagnosis.explain import Difference, Finding
from triptych.conformance.diagnosis.update_faults import Wrong, other_kinds, step_faults, walk_steps
from triptych.conformance.reference_run import ReferenceRun, layer_of
from triptych.conformance.tolerance import Budgets
from triptych.optim.optimizers import SGD
from triptych.porting.own_training import Plan, begin, budgets, drawn_gradient, moves_of, path_of, right_steps, sample
from triptych.utils.arrays import Array, Arrays, largest

NORMS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 35.0, 40.0)  # that gradients are clipped to
NEAR = 1e-3  # of a budget


def explain(finding: Finding, plan: Plan | None) -> Difference:
    """The parameter that moves otherwise, and by which steps it would."""
    check = finding.check
    paths = {path_of(each.tensor) for each in finding.failed}
    note = f"of {len(finding.expected)} moves {len(finding.failed)} differ, of {len(paths)} parameters"
    if check.problem or plan is None:
        return finding.at(layer_of(path_of(check.tensor)), "", note)
    return finding.at(layer_of(path_of(check.tensor)), next(_causes(finding, plan, paths), ""), note)


def _causes(finding: Finding, plan: Plan, paths: set[str]) -> Iterator[str]:
    run, observed = finding.run, finding.observed
    allowed = budgets(run, finding.subject.precision, finding.expected, plan)
    checked = [name for name in finding.expected if name in observed]
    still = {path for path in paths if not any(largest(observed[n]) for n in checked if path_of(n) == path)}
    if still and still == paths:
        yield "it does not move: the optimiser was not given it"
    right = right_steps(run, plan)
    some = replace(right, decay={path: value for path, value in right.decay.items() if path in paths})
    all_paths = {path_of(name) for name in checked}
    of = (
        ""
        if paths == all_paths
        else f": in {len(paths)} of {len(all_paths)} parameters, {', '.join(sorted(paths)[:3])}"
    )
    yield from (text + of for text in _rates_that_fit(run, some, plan, observed, allowed))
    faults = (*step_faults(right, run.case.architecture), *other_kinds(right, run.case.architecture))
    yield from _nearest(finding, right, allowed, checked, faults)
    for text, wrong in faults:
        yield from (f"{text}, and {rate}" for rate in _rates_that_fit(run, wrong, plan, observed, allowed))


def _nearest(
    finding: Finding, right: Wrong, allowed: Budgets, checked: list[str], faults: Sequence[tuple[str, Wrong]]
) -> Iterator[str]:
    """The fault that explains what was seen. Several may, within the budget: the first that is about as near as any."""
    run, away = finding.run, partial(_away, finding, allowed, checked)
    with np.errstate(all="ignore"):  # a fault may divide by zero
        made = [(away(moves_of(run, wrong)), text) for text, wrong in faults]
        for norm in dict.fromkeys((*NORMS, *_bound_that_fits(finding, right))):
            by_norm, by_value = partial(_clipped, run, norm), partial(_cut, norm)
            made.append((away(moves_of(run, right, by_norm)), f"gradients are clipped to a norm of {norm:g}"))
            made.append((away(moves_of(run, right, by_value)), f"gradients are clipped to {norm:g}, value by value"))
    nearest = min(distance for distance, _ in made)
    if nearest <= 1:
        yield next(text for distance, text in made if distance <= 10 * nearest + NEAR)


def _bound_that_fits(finding: Finding, right: Wrong) -> Iterator[float]:
    """The largest value that is left of the gradients in the first step, where that tells it: of plain SGD, whose first
    move is the gradient, decayed, times the rate."""
    if not isinstance(right.optimizer, SGD) or right.optimizer.nesterov or right.dampening:
        return
    rate, start = right.rates[0].learning_rate, begin(finding.run)
    left = [
        largest(finding.observed[name] / -rate - right.decay[path] * sample(start[path]))
        for path in right.decay
        if (name := f"{path} (step 1)") in finding.observed
    ]
    if left:
        yield float(f"{max(left):.6g}")


def _cut(most: float, arrays: dict[str, Array]) -> dict[str, Array]:
    return {path: np.clip(g, -most, most) for path, g in arrays.items()}


def _clipped(run: ReferenceRun, most: float, arrays: dict[str, Array]) -> dict[str, Array]:
    squares = sum(float((np.resize(g, run.parameters[path].size) ** 2).sum()) for path, g in arrays.items())
    factor = min(1.0, most / max(squares**0.5, 1e-300))
    return {path: factor * g for path, g in arrays.items()}


def _away(finding: Finding, allowed: Budgets, names: list[str], made: Arrays) -> float:
    """How many budgets these moves are away from what was seen; budgets grow with moves larger than the right ones."""

    def ratio(name: str) -> float:
        right = largest(finding.expected[name])
        growth = max(1.0, largest(made[name]) / right) if right else 1.0
        return largest(made[name] - finding.observed[name]) / (growth * allowed[name])

    if any(not np.isfinite(made[name]).all() for name in names):
        return np.inf
    return max(ratio(name) for name in names)


def _rates_that_fit(run: ReferenceRun, right: Wrong, plan: Plan, observed: Arrays, allowed: Budgets) -> Iterator[str]:
    """The learning rates, step by step, with which the right steps are what was seen; as a rule where there is one."""
    values: dict[str, Array] = {p: sample(value) for p, value in begin(run).items() if p in right.decay}
    state: dict[str, Array] = {}
    seen: list[float] = []
    for step, rates in enumerate(right.rates):
        names = {path: f"{path} (step {step + 1})" for path in right.decay}
        if not all(name in observed for name in names.values()):
            return
        drawn = {path: drawn_gradient(run, path, step) for path in right.decay}
        one = replace(right, rates=(rates,), state=state)
        ((moved, _),) = walk_steps(one, values, lambda *_, g=drawn: g)
        expected = {path: moved[path] - values[path] for path in right.decay}
        square = sum(float((e * e).sum()) for e in expected.values())
        product = sum(float((e * observed[names[path]]).sum()) for path, e in expected.items())
        factor = product / square if square else 1.0
        seen.append(factor * rates.learning_rate)
        one = replace(one, rates=(replace(rates, learning_rate=max(seen[-1], 0.0)),))
        ((after, state),) = walk_steps(one, values, lambda *_, g=drawn: g)
        for path, name in names.items():
            if largest(after[path] - values[path] - observed[name]) > 4 * max(1.0, factor) * allowed[name]:
                return
        values = after
    text = _about(seen, [rates.learning_rate for rates in right.rates], plan)
    if text:
        yield text


def _about(seen: list[float], right: list[float], plan: Plan) -> str:
    """What rates other than the right ones have in common."""
    if _near(seen, right):
        return ""
    later = plan.rates(len(right)).learning_rate
    if _near(seen, [right[0], *right[:-1]]):
        return "the schedule is late by a step"
    if _near(seen, [*right[1:], later]):
        return "the schedule is early by a step"
    if _near(seen[:1], right[:1]) and _near(seen, seen[:1] * len(seen)):
        return "the learning rate does not change"
    factors = [one / other for one, other in zip(seen, right, strict=True) if other]
    if _near(factors, factors[:1] * len(factors)):
        if len(set(right)) == 1:
            return f"the learning rate is {seen[0]:.4g}, not {right[0]:.4g}"
        text = f"every learning rate is {factors[0]:.4g} times as large: {seen[0]:.4g} at first, not {right[0]:.4g}"
        momenta = [plan.rates(step).momentum for step in range(len(right))]
        damped = _near(factors, [1 - momentum for momentum in momenta])
        return text + f", or the momentum has a dampening of {momenta[0]:g} from the first step on" * damped
    first = next(step for step, pair in enumerate(zip(seen, right, strict=True)) if not _near(pair[:1], pair[1:]))
    return f"the learning rate in step {first + 1} is {seen[first]:.4g}, not {right[first]:.4g}"


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    return bool(np.allclose(one, other, rtol=1e-3, atol=0))
