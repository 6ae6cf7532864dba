"""A PyTorch program as a network: which calls count, which softmax goes, whether training is the same network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triptych.importers.assemble import assemble
from triptych.importers.steps import Imported, ImportRefused, Request, Step, merge_only, needed
from triptych.importers.torch_maps import Map
from triptych.importers.torch_patterns import recognised
from triptych.importers.torch_program import Program, references
from triptych.importers.torch_walk import Walk
from triptych.spec.layers import INPUT, BatchNorm, Dropout, Layer, Softmax


@dataclass(frozen=True, eq=False)
class Steps:
    """What a program becomes: its steps, and the names of those that it ends in."""

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    remarks: tuple[str, ...]


def network(
    evaluation: Program, training: Program | None, request: Request, *, name: str, source: str, remarks: Sequence[str] = ()
) -> Imported:
    """The network of a module's program, with what only its program for training tells: dropouts, frozen statistics.
    Raises ImportRefused for what is no network of the spec's layers."""
    made = steps_of(evaluation, request, training=False)
    if training is not None:
        made = _with_training(made, training, request)
    shape = evaluation.input_shape[1:]
    if len(shape) != 3:
        raise ImportRefused(f"the input has the shape {shape} without the batch; expected (channels, height, width)")
    return assemble(
        made.steps,
        made.outputs,
        request,
        name=name,
        source=source,
        input_shape=(shape[0], shape[1], shape[2]),
        remarks=(*remarks, *made.remarks),
    )


def steps_of(program: Program, request: Request, *, training: bool) -> Steps:
    """The steps of one program, as it is for training or not."""
    program = recognised(program)
    outputs = _requested(program, request.outputs) if request.outputs else program.outputs
    inputs = {name: tuple(references(call.arguments)) for name, call in program.calls.items()}
    wanted = needed(inputs, [name for _, name in outputs])
    walk = Walk(program, training=training)
    walk.run([call for name, call in program.calls.items() if name in wanted])
    ends = [_end(walk, program, key, name) for key, name in outputs]
    ends = _without_softmax(walk, ends, request)
    used = needed({name: step.inputs for name, step in walk.steps.items()}, ends)
    steps = tuple(step for name, step in walk.steps.items() if name in used)
    logarithm = next((name for name in walk.logarithms if name in used), None)
    if logarithm is not None:
        raise ImportRefused(f"{logarithm!r} (operator log_softmax): supported only at the end, where it is taken off")
    return Steps(steps, tuple(ends), tuple(walk.remarks))


def _requested(program: Program, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The calls that the user names: by module, by module and operator, or as the program does."""
    found = []
    for name in names:
        inside = [c for c in program.calls.values() if c.place == name or c.place.startswith(f"{name}.") or c.name == name]
        if not inside:
            modules = sorted({call.place for call in program.calls.values()})
            raise ImportRefused(f"there is no node {name!r} to end in; nodes: {', '.join(modules)[:2000]}")
        found.append(("", inside[-1].name))
    return tuple(found)


def _end(walk: Walk, program: Program, key: str, name: str) -> str:
    value = walk.values.get(name)
    value = value[0] if isinstance(value, list) else value
    call = program.calls.get(name)
    if call is None or not isinstance(value, Map):
        raise ImportRefused(f"the output {key or name!r} is not computed from the images by a layer")
    step = walk.settled(replace(call, place=walk.unique(call.place)), value).step
    if step == INPUT:
        raise ImportRefused(f"the output {key or name!r} is the input itself")
    if key and len(program.outputs) > 1 and key != step:
        named = merge_only(walk.unique(key), (step,), "concatenate")
        walk.steps[named.name] = named
        return named.name
    return step


def _without_softmax(walk: Walk, ends: list[str], request: Request) -> list[str]:
    """The outputs before a softmax that ends the network, if it is not to be kept and nothing else is given out there."""
    if request.keep_softmax:
        return ends
    kept = []
    taken = {source for step in walk.steps.values() for source in step.inputs}
    for end in ends:
        step = walk.steps[end]
        last = walk.steps[step.inputs[0]] if _is_name_only(step) and step.inputs[0] in walk.steps else step
        before = last.inputs[0]
        others = {e for e in ends if e != end} | set(kept)
        if not isinstance(last.layer, Softmax) or (last is step and end in taken) or before in (INPUT, *others):
            kept.append(end)
            continue
        if last is not step:
            walk.steps[end] = replace(step, inputs=(before,))
        kept.append(end if last is not step else before)
        what = "log_softmax" if last.name in walk.logarithms else "softmax"
        walk.remarks[f"{last.name}: the {what} at the end was taken off; the loss has it (--keep-softmax keeps it)"] = None
    return kept


def _is_name_only(step: Step) -> bool:
    return not getattr(step.layer, "layers", (step.layer,)) and len(step.inputs) == 1


def _with_training(evaluation: Steps, program: Program, request: Request) -> Steps:
    """The steps for training, if they are the same network; a remark on it otherwise."""
    try:
        training = steps_of(program, request, training=True)
    except ImportRefused as error:
        return _remarked(evaluation, f"in training the module does what is not taken over: {error}")
    if _fingerprint(training) != _fingerprint(evaluation):
        return _remarked(evaluation, "in training the module computes something else; taken over is what it does in evaluation")
    return replace(training, remarks=evaluation.remarks)


def _remarked(made: Steps, remark: str) -> Steps:
    return replace(made, remarks=(*made.remarks, remark))


def _fingerprint(made: Steps) -> tuple[object, ...]:
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


