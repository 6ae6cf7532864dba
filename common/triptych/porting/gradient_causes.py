"""Why a gradient is another one where what goes forward is right: who hands none back, or another one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.causes import bound_of
from triptych.conformance.diagnosis.explain import Finding
from triptych.conformance.diagnosis.relations import number
from triptych.conformance.reference_run import INPUT, ReferenceRun, layer_of
from triptych.porting.subject import ARRIVING
from triptych.spec.layers import Branches, Residual, children, join
from triptych.utils.arrays import Array, largest

MEANS = "(detach, stop_gradient, BlockGrad, no_grad)"
FEW = 1e-9  # of a fitted factor: as good as 0, or 1
NEARLY = 1e-4  # of a whole number, which a fitted factor is taken for if it explains what is observed as well


def into(path: str, branch: str) -> str:
    """In words, of a merge that hands nothing back to one of its branches."""
    return f"no gradient comes back from '{path}' into its branch '{branch}' {MEANS}"


def branch_of(run: ReferenceRun, still: set[str]) -> tuple[str, str]:
    """The merge, and the name of its branch, whose layers with arrays are exactly these; empty for none."""
    trained = {layer_of(name) for name in run.gradients}
    for path, layer in reversed(list(run.layers.items())):
        for branch in children(layer) if isinstance(layer, Branches | Residual) else ():
            if still and still == {name for name in trained if name.startswith(join(path, branch.name) + ".")}:
                return path, branch.name
    return "", ""


def cut_off(finding: Finding, name: str) -> tuple[str, str]:
    """Where the gradient of a parameter is zero, that none arrives at it, and from where; with the layer to blame. That
    is the merge that hands none back to a branch, or the layer itself, but the next one with parameters where no layer
    before has a gradient either: it hands none on."""
    run, observed, own = finding.run, finding.observed.get(name), layer_of(name)
    if observed is None or finding.check.problem:
        return "", own
    if largest(observed):
        return _by_parameters(finding, own)
    right = run.gradients
    known = [each for each in right if each in finding.observed and each not in ("loss", "input")]
    zero = {layer_of(each) for each in known if not largest(finding.observed[each]) and largest(right[each])}
    where, branch = branch_of(run, zero)
    if where:
        return into(where, branch), where
    trained = [path for path, _ in run.nodes(True) if any(layer_of(each) == path for each in right)]
    place = trained.index(own) if own in trained else len(trained)
    before = [each for each in right if layer_of(each) in trained[:place]]
    source = next(iter(trained[place + 1 :]), "")
    cut = bool(source and before) and not any(largest(finding.observed.get(each, observed)) for each in before)
    return f"no gradient comes back from '{source or 'the loss'}' {MEANS}", source if cut else own


def _by_parameters(finding: Finding, own: str) -> tuple[str, str]:
    """Why the gradients of a layer's parameters are others where what arrives at its output is not seen: the first
    output behind it that several layers take is handed something else back by these, each with a factor."""
    run, path = finding.run, own
    trace, nodes = run.trace(True), dict(run.nodes(True))
    chain = [own]
    while path in trace.inputs:
        takers = [name for name in nodes if trace.inputs[name] is run.outputs(True)[path]]
        if len(takers) != 1 or isinstance(nodes[takers[0]], Branches | Residual):
            break
        path = takers[0]
        chain.append(path)
    names = [name for name in run.gradients if layer_of(name) == own and name in finding.observed]
    terms = []
    for way, name, gradient in _terms(run, path):
        if way == "from" and largest(gradient):
            for each in reversed(chain):
                made = run.alone(each, trace.inputs[each], gradient, True)
                gradient = made[INPUT]
            terms.append((way, name, np.concatenate([made[name].ravel() for name in names])))
    observed = np.concatenate([finding.observed[name].ravel() for name in names])
    return (len(terms) > 1 and _sum(terms, observed, finding.check.budget)) or ("", own)


def what_arrives(finding: Finding, name: str) -> tuple[str, str]:
    """Why another gradient arrives at the output of a layer: the sum of what comes back from those that take it, each
    with a factor; with the layer that is to blame, where that is known."""
    run, observed, budget = finding.run, finding.observed.get(name), finding.check.budget
    path = name.removeprefix(ARRIVING)
    if observed is None or finding.check.problem:
        return "", ""
    right = run.trace(True).arriving[path]
    if not largest(observed) and largest(right):
        return _around(finding, path) or _none(run, path)
    terms = [(text, layer, g) for text, layer, g in _terms(run, path) if g.shape == observed.shape and largest(g)]
    if terms and (found := _sum(terms, observed, budget)):
        return found
    bounded = bound_of(right, observed, budget)
    return bounded.replace("its output", "the gradient that comes back"), ""


def _around(finding: Finding, path: str) -> tuple[str, str] | None:
    """Nothing arrives at what was taken for a layer's output, but something does at what the layer takes: it goes
    around the layer. None where nothing does."""
    run, inputs = finding.run, finding.run.trace(True).inputs
    before = next((name for name, _ in run.nodes(True) if run.outputs(True)[name] is inputs.get(path)), "")
    takers = [name for name, _ in run.nodes(True) if inputs[name] is inputs.get(path)]
    arrived = finding.observed.get(ARRIVING + before)
    if not before or len(takers) > 1:
        return None
    if arrived is None:  # not seen: the gradients of what lies directly before tell
        return ("", path) if _is_trained_before(finding, before) else None
    if not largest(arrived):
        return None
    right = run.trace(True).arriving[path]
    if right.shape == arrived.shape and same(right, arrived, finding.check.budget):
        return _text("through", path, 1.0), path
    return "", path


def _is_trained_before(finding: Finding, path: str) -> bool:
    """Whether the nearest layer with arrays before, all of whose output goes this way, takes a gradient."""
    run = finding.run
    inputs = run.trace(True).inputs
    while path:
        own = [name for name in run.gradients if layer_of(name) == path and name in finding.observed]
        if own:
            return any(largest(finding.observed[name]) for name in own)
        given = inputs.get(path)
        if sum(inputs[name] is given for name, _ in run.nodes(True)) > 1:
            return False
        path = next((name for name, _ in run.nodes(True) if run.outputs(True)[name] is given), "")
    return False


def _none(run: ReferenceRun, path: str) -> tuple[str, str]:
    """Nothing arrives at all: the layer, or the merge at the end of whose branch this stands."""
    given = run.outputs(True)[path]
    for merge, layer in run.nodes(True):
        for branch in children(layer) if isinstance(layer, Branches | Residual) else ():
            if run.outputs(True).get(join(merge, branch.name)) is given:
                return into(merge, branch.name), merge
    behind = next((name for name, _ in run.nodes(True) if run.trace(True).inputs[name] is given), "")
    return (f"no gradient comes back from '{behind}' {MEANS}", behind) if behind else ("", "")


def _terms(run: ReferenceRun, path: str) -> Iterator[tuple[str, str, Array]]:
    """What each that takes the output of a layer hands back, and what it would if it were not there; what a merge
    hands back by itself is what its branches' first layers do not."""
    given, trace = run.outputs(True)[path], run.trace(True)
    takers = {name: layer for name, layer in run.nodes(True) if trace.inputs[name] is given}
    for name, layer in takers.items():
        back = trace.leaving[name]
        if isinstance(layer, Branches | Residual):
            inside = [trace.leaving[other] for other in takers if other.startswith(f"{name}.")]
            yield "from", name, back - sum(inside, np.zeros_like(back))
        else:
            yield "from", name, back
            if trace.arriving[name].shape == given.shape:
                yield "through", name, trace.arriving[name]


def _sum(terms: list[tuple[str, str, Array]], observed: Array, budget: float) -> tuple[str, str] | None:
    """The factors with which these sum up to what arrived, in words, if they do; the fewest that are not 0 or 1."""
    target = observed.ravel()
    whole = [term for term in terms if term[0] == "from"]
    for some in (whole, terms):
        design = np.stack([gradient.ravel() for *_, gradient in some], axis=1)
        factors, _, rank, _ = np.linalg.lstsq(design, target, rcond=1e-10)
        if rank < len(some) or not same((design @ factors).reshape(observed.shape), observed, budget):
            continue
        whole_numbers = np.where(np.abs(factors - factors.round()) < NEARLY, factors.round(), factors)
        if same((design @ whole_numbers).reshape(observed.shape), observed, budget):
            factors = whole_numbers  # in float32 a fit gives them to its roundings only
        said = [(_text(way, name, float(f)), name) for (way, name, _), f in zip(some, factors, strict=True)]
        texts = {text: name for text, name in said if text}
        if any("as it is" in text for text in texts):
            texts = {text: name for text, name in texts.items() if "as it is" in text}
        if texts:
            return "; ".join(texts), next(iter(texts.values()))
    return None


def _text(way: str, name: str, factor: float) -> str:
    if abs(factor - (way == "from")) <= FEW:
        return ""
    if way == "through":
        times = "" if abs(factor - 1) <= FEW else f", multiplied by {number(factor)}"
        return f"the gradient goes through '{name}' as it is, its own derivative is left out (straight-through){times}"
    if abs(factor) <= FEW:
        return f"no gradient comes back from '{name}' {MEANS}"
    return f"the gradient that comes back from '{name}' is multiplied by {number(factor)}"
