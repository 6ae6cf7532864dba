"""What differs between two subjects at one level, and its explanation: the layer it belongs to, the likely cause."""

from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from triptych.conformance.compare import STRANGERS, Arrays, Check, compare_shapes, failures, message, problem
from triptych.conformance.diagnosis import causes, fits, forward_causes, pass_causes
from triptych.conformance.diagnosis.alone import moves_nothing
from triptych.conformance.diagnosis.causes import BOUNDED
from triptych.conformance.diagnosis.value_faults import MISSING
from triptych.conformance.reference_run import INPUT, OUTPUT, ReferenceRun, layer_of
from triptych.conformance.subjects import Subject
from triptych.spec.layers import Flatten, children

T = TypeVar("T")
DRAWS = "random numbers are drawn in training, by no dropout of the framework's: every call gives something else"
BY_BATCH = "what it makes of an image depends on the others of its batch, or on how many they are"
ALSO = "as well explained by: {}"


@dataclass(frozen=True)
class Difference:
    """Where two subjects diverge: `layer` by its path in the spec, `level`, and the tensor that shows it. A fault in
    the images is the first layer's, one in the loss the last layer's. `at_fault`: the subjects that depart from the
    reference. `cause`: the fault that reproduces what was observed, or empty. `note`: what else a reader should
    know."""

    layer: str
    level: str
    check: Check
    at_fault: tuple[str, ...]
    cause: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Finding:
    """Checks that failed at one level, in the order of the computation, and what their `subject` (at fault, or the
    left one) has there. `alone`: before whole passes, every layer was compared by itself and agreed."""

    run: ReferenceRun
    subject: Subject
    level: str
    failed: list[Check]
    expected: Arrays
    observed: Arrays
    at_fault: tuple[str, ...]
    alone: bool = False

    @property
    def check(self) -> Check:
        """The first that failed."""
        return self.failed[0]

    def at(self, layer: str, cause: str = "", note: str = "") -> Difference:
        """The difference, located and explained."""
        return Difference(layer, self.level, self.check, self.at_fault, cause, note)


class SubjectFailedError(Exception):
    """A framework raised an error; `difference` is what to report of it."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.check.problem)
        self.difference = difference


def attempt(subject: Subject, work: Callable[[], T], level: str, place: str = "") -> T:
    """What a piece of work on a subject gives. Raises SubjectFailedError with what a framework raises, and whatever
    the subject itself says of that."""
    try:
        return work()
    except SubjectFailedError:
        raise
    except STRANGERS as error:
        subject.failed(error)
        check = problem(level, place or "(whole pass)", f"failed: {message(error)}")
        raise SubjectFailedError(Difference(place, level, check, (subject.name,))) from error


Explain = Callable[[Finding], Difference]


def structure(finding: Finding) -> Difference:
    """The first layer, in the order of execution, whose parameters or output have another name or shape."""
    run, subject = finding.run, finding.subject
    outputs = attempt(subject, subject.output_shapes, "structure")
    wrong = {c.tensor: c for c in failures(compare_shapes("structure", run.output_shapes, outputs, {}))}
    for check in failures(compare_shapes("structure", run.parameter_shapes, subject.parameter_shapes(), {})):
        wrong.setdefault(layer_of(check.tensor), check)
    order = [*run.layers, *wrong]
    for layer in sorted(wrong, key=order.index):
        if children(run.layers.get(layer, Flatten(""))) and len(wrong) > 1:
            continue  # what is in it says more
        check, shape = wrong[layer], tuple(outputs[layer].tolist()) if layer in outputs else None
        cause = causes.of_shape(run, layer, shape) if check.tensor == layer else ""
        return replace(finding, failed=[check]).at(layer, cause)
    return finding.at(layer_of(finding.check.tensor))


def values(finding: Finding) -> Difference:
    """The layer whose parameters do not arrive as they were given."""
    path = finding.check.tensor
    known = path in finding.observed and path in finding.expected
    cause = causes.of_parameter(finding.run, finding.expected, path, finding.observed[path]) if known else ""
    return finding.at(layer_of(path), cause)


def data(finding: Finding) -> Difference:
    """What is wrong with the images' way to the network."""
    return finding.at("input", causes.of_data(finding.run, finding.failed, finding.observed))


def layer(finding: Finding, path: str, train: bool, backward: bool) -> Difference:
    """What is wrong with one layer that ran alone."""
    budgets = {check.tensor: check.budget for check in finding.failed}
    cause, check = causes.of_layer(finding.run, path, finding.observed, budgets, train, backward), finding.check
    if OUTPUT in budgets and OUTPUT in finding.observed and not check.problem:
        output = finding.observed[OUTPUT], budgets[OUTPUT]
        cause = causes.by_fit(finding.run, path, *output, train=train, known=cause)
    names = {OUTPUT: path, INPUT: f"gradient of the input of {path}"}
    shown = replace(check, tensor=names.get(check.tensor, check.tensor))
    return replace(finding, failed=[shown]).at(cause.layer or path, cause.text)


def loss(finding: Finding) -> Difference:
    """What is wrong with the loss of the right logits."""
    cause = pass_causes.of_loss(finding.run, finding.observed, finding.check.budget, finding.subject.precision)
    return finding.at(cause.layer or finding.run.last, cause.text)


def forward(finding: Finding, train: bool) -> Difference:
    """Which layer of a whole forward pass departs first, or which of those that could not be seen before it."""
    run, check = finding.run, finding.check
    hidden = unseen(run, check.tensor, finding.expected, train)
    finding = finding if hidden or check.problem else _with_whole_layer(finding, train)
    note = _note(finding)
    if hidden:
        cause = causes.of_hidden(run, [*hidden, check.tensor], check, finding.observed, train)
        if not cause.layer:
            note = f"{', '.join(hidden)} cannot be seen from outside: it is one of these or {check.tensor}"
    else:
        cause = forward_causes.of_forward(run, check, finding.observed, train, finding.alone)
    around = run, check.tensor, finding.observed, finding.failed, train
    explained = [] if hidden or check.problem else list(forward_causes.by_follower(*around))
    if cause and not cause.vague and explained and cause.text not in [each.text for each in explained]:
        cause = explained[0]  # the layer behind it is not given that
    if not check.problem and (not cause.text or cause.vague or cause.text == MISSING.text or BOUNDED in cause.text):
        places, made = [*hidden, check.tensor], finding.subject.made(train)
        found = [forward_causes.of_order(run, path, check.budget, made, train) for path in places]
        found.append(forward_causes.of_bound_before(run, check, finding.observed, made, train))
        if not hidden:
            early = forward_causes.of_early_sum(run, check.tensor, check.budget, finding.observed, train)
            found += [early, *explained, forward_causes.of_source(*around)]
        part = forward_causes.of_part(run, check, finding.observed, train)
        cause = next(filter(None, found), cause or part)
        cause = _by_fit(finding, [*hidden, check.tensor], train, cause)
        if not train and finding.subject.depends_on_batch(check.tensor):
            cause = replace(cause, text=BY_BATCH + f": {cause.text}" * bool(cause), vague=False)
    if not check.problem:
        places = [each for each in dict.fromkeys([cause.layer, *hidden, check.tensor]) if each]
        taken = (
            forward_causes.of_another_source(run, each, check.budget, finding.subject.made(train), train)
            for each in places
        )
        cause = next(filter(None, taken), cause)
    if train and not check.problem and finding.subject.draws():  # what was seen is one draw's: nothing fits any other
        cause = causes.Cause(DRAWS, cause.layer)
    note = "; ".join(filter(None, (note, ALSO.format(", or ".join(cause.others)) if cause.others else "")))
    if check.problem.startswith("has the shape"):
        seen = finding.observed[check.tensor]
        cut = forward_causes.of_cut(run, check.tensor, finding.subject.made(train), train)
        texts = (causes.of_shape(run, path, seen.shape[1:], seen, train) for path in (*hidden, check.tensor))
        if cut:
            return finding.at(cut.layer or check.tensor, cut.text, note)
        wrong = replace(finding, level="structure")
        return wrong.at(cause.layer or check.tensor, next(filter(None, texts), ""), note)
    return finding.at(cause.layer or [*hidden, check.tensor][0], cause.text, note)


def _with_whole_layer(finding: Finding, train: bool) -> Finding:
    """What was taken for the output of the layer that departs may be a step of it, the maximum in a CELU: if the layer
    behind it takes something else, which is seen, that is its output."""
    run, path, observed = finding.run, finding.check.tensor, finding.observed
    made = partial(finding.subject.made, train)
    behind = fits.contradicted(run, path, observed, finding.check.budget, train, made)
    seen = fits.revealed(run, [path, behind], observed, finding.check.budget, made(), train) if behind else None
    return finding if seen is None else replace(finding, observed=ChainMap({path: seen[1]}, dict(observed)))


def _by_fit(finding: Finding, paths: list[str], train: bool, known: causes.Cause) -> causes.Cause:
    """What no fault of the catalogue explains, of the last of `paths`, or of the first of which it is known what it
    puts out."""
    run, check, observed = finding.run, finding.check, finding.observed
    if known and not known.vague:
        return known
    made = finding.subject.made(train)
    seen = fits.revealed(run, paths, observed, check.budget, made, train)
    if (
        seen is None
        and known.text != causes.REORDERED
        and fits.contradicted(run, paths[-1], observed, check.budget, train, lambda: made)
    ):
        return known  # it is a step of the layer, of which nothing is known
    path, value = seen or (paths[-1], observed[check.tensor])
    if seen:
        known = causes.of_layer(run, path, {OUTPUT: value}, {OUTPUT: check.budget}, train, False)
        known = replace(known, layer=known.layer or path) if known else known
    cause = causes.by_fit(run, path, value, check.budget, train, known, made)
    if not cause and not seen:
        found = fits.through(run, paths, observed[check.tensor], check.budget, train)
        cause = causes.Cause(found[0][0], found[0][1], others=tuple(text for text, _ in found[1:])) if found else cause
    return replace(cause, layer=cause.layer or path) if cause and (seen or len(paths) > 1) else cause


def unseen(run: ReferenceRun, path: str, seen: Arrays, train: bool) -> list[str]:
    """The layers directly before `path` that are not among the arrays that can be seen."""
    nodes = [name for name, _ in run.nodes(train)]
    before: list[str] = []
    for name in reversed(nodes[: nodes.index(path)] if path in nodes else []):
        if name in seen:
            break
        before.insert(0, name)
    while before and moves_nothing(run, before[0], train):
        del before[0]  # what it puts out is what the seen layer before it does
    return before


def gradient(finding: Finding) -> Difference:
    """Which layer's work a gradient is; the images' own is the first layer's."""
    run, name = finding.run, finding.check.tensor
    cause = pass_causes.of_gradient(run, finding.check, finding.observed, finding.alone)
    layers = {"loss": run.last, INPUT: INPUT if finding.alone else next(path for path, _ in run.nodes(True))}
    return finding.at(cause.layer or layers.get(name, layer_of(name)), cause.text, _note(finding))


def steady(finding: Finding) -> Difference:
    """What is wrong with a gradient in a network whose statistics are fixed, or with a batch norm alone."""
    return finding.at(layer_of(finding.check.tensor), note="float32 can tell it with fixed statistics only")


def _note(finding: Finding) -> str:
    return "every layer alone agrees: it is given something else, or the whole pass differs" if finding.alone else ""


def update(finding: Finding, name: str) -> Difference:
    """What is wrong with the steps of one optimiser: by then the gradients agree."""
    cause = pass_causes.of_update(finding.run, name, finding.observed, finding.failed)
    layers = {layer_of(check.tensor) for check in finding.failed}
    count = f"{len(finding.failed)} of {len(finding.expected)} arrays, of {len(layers)} layers"
    note = f"optimiser steps '{name}': {count}, differ"
    return finding.at(cause.layer or layer_of(finding.check.tensor), cause.text, note)


def training(finding: Finding) -> Difference:
    """What only the trainer does: between steps, batches of other sizes, the dropout that it draws."""
    names = ", ".join(dict.fromkeys(check.tensor for check in finding.failed[:3]))
    note = f"every step alone agrees; over a short life of the trainer {len(finding.failed)} arrays differ: {names}"
    return finding.at("", note=note)
