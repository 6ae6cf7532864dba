"""What a traced program becomes, and whether the one for training is the same network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from triptych.importers.steps import EVALUATION_ALONE, ImportRefusedError, Step
from triptych.spec.layers import INPUT, BatchNorm, Dropout, Layer


@dataclass(frozen=True, eq=False)
class ProgramSteps:
    """What a program becomes: its steps, and the names of those that it ends in."""

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    remarks: tuple[str, ...]


def renamed(made: ProgramSteps, keys: Sequence[str]) -> ProgramSteps:
    """The outputs called as the module's own dict has them, where it has several."""
    names = {end: key for end, key in zip(made.outputs, keys, strict=True) if key}
    steps = {step.name for step in made.steps}
    names = {end: key for end, key in names.items() if key not in steps | {INPUT}} if len(keys) > 1 else {}

    def new(name: str) -> str:
        return names.get(name, name)

    changed = (replace(step, name=new(step.name), inputs=tuple(map(new, step.inputs))) for step in made.steps)
    return ProgramSteps(tuple(changed), tuple(map(new, made.outputs)), made.remarks)


def with_training(evaluation: ProgramSteps, make: Callable[[], ProgramSteps], more: int) -> ProgramSteps:
    """The steps for training that `make` gives, if they are the same network; a remark on it otherwise. `more`: outputs
    that the module has in training alone."""
    try:
        training = make()
    except ImportRefusedError as error:
        return _remarked(evaluation, f"in training the module does what is not taken over: {error}; {EVALUATION_ALONE}")
    if _fingerprint(training) != _fingerprint(evaluation):
        return _remarked(evaluation, f"in training the module computes something else; {EVALUATION_ALONE}")
    made = replace(training, remarks=evaluation.remarks)
    return (
        _remarked(made, f"in training the module has {more} outputs more, which are not taken over")
        if more > 0
        else made
    )


def _remarked(made: ProgramSteps, remark: str) -> ProgramSteps:
    return replace(made, remarks=(*made.remarks, remark))


def _fingerprint(made: ProgramSteps) -> tuple[object, ...]:
    """The layers and who takes whose output, without names and without what acts in training alone."""
    places: dict[str, int] = {INPUT: 0}
    rows: list[object] = []
    for step in made.steps:
        inputs = [places[name] for name in step.inputs]
        if isinstance(step.layer, Dropout):
            places[step.name] = inputs[0]
            continue
        places[step.name] = len(rows) + 1
        rows.append((_unnamed(step.layer), *inputs, step.merge, *sorted(step.arrays)))
    return (*rows, *(places[name] for name in made.outputs))


def _unnamed(layer: Layer) -> Layer:
    layer = replace(layer, name="")
    return replace(layer, frozen=False) if isinstance(layer, BatchNorm) else layer
