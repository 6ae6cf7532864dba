"""A PyTorch program as a network: which calls count, which softmax goes, whether training is the same network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triptych.importers.assemble import assemble
from triptych.importers.steps import Imported, ImportRefusedError, Request, Step, needed
from triptych.importers.torch_maps import Map
from triptych.importers.torch_patterns import recognised
from triptych.importers.torch_program import Program, references
from triptych.importers.torch_walk import Walk
from triptych.spec.layers import INPUT, BatchNorm, Dropout, Layer


@dataclass(frozen=True, eq=False)
class ProgramSteps:
    """What a program becomes: its steps, and the names of those that it ends in."""

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    remarks: tuple[str, ...]


def network(
    program: Program, training: Program | None, request: Request, *, name: str, source: str, remarks: Sequence[str] = ()
) -> Imported:
    """The network of a module's program for evaluation, with what only its program for training tells: dropouts, frozen
    statistics. Without the latter `program` is the only one, for whichever. Raises ImportRefusedError for what is no
    network of the spec's layers."""
    if training is None:
        made = steps_of(program, request, training=_is_for_training(program))
    else:
        made = _with_training(steps_of(program, request, training=False), training, request)
    shape = program.input_shape[1:]
    if len(shape) != 3:
        raise ImportRefusedError(
            f"the input has the shape {shape} without the batch; expected (channels, height, width)"
        )
    return assemble(
        made.steps,
        made.outputs,
        request,
        name=name,
        source=source,
        input_shape=(shape[0], shape[1], shape[2]),
        remarks=(*remarks, *made.remarks),
    )


def _is_for_training(program: Program) -> bool:
    flags = (call.arguments.get("training", call.arguments.get("train")) for call in program.calls.values())
    return any(flag is True for flag in flags)


def steps_of(program: Program, request: Request, *, training: bool) -> ProgramSteps:
    """The steps of one program, as it is for training or not."""
    program = recognised(program)
    outputs = _requested(program, request.outputs) if request.outputs else program.outputs
    inputs = {name: tuple(references(call.arguments)) for name, call in program.calls.items()}
    wanted = needed(inputs, [name for _, name in outputs])
    walk = Walk(program, training=training)
    walk.run([call for name, call in program.calls.items() if name in wanted])
    ends = [_without_logarithm(walk, _end(walk, program, key or name, name), request) for key, name in outputs]
    used = needed({name: step.inputs for name, step in walk.steps.items()}, ends)
    steps = tuple(step for name, step in walk.steps.items() if name in used)
    logarithm = next((name for name in walk.logarithms if name in used), None)
    if logarithm is not None:
        raise ImportRefusedError(
            f"{logarithm!r} (operator log_softmax): supported only at the end, where it is taken off"
        )
    return _renamed(ProgramSteps(steps, tuple(ends), tuple(walk.remarks)), [key for key, _ in outputs])


def _requested(program: Program, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The calls that the user names: by module, by module and operator, or as the program does."""
    found = []
    for name in names:
        inside = [
            c for c in program.calls.values() if c.place == name or c.place.startswith(f"{name}.") or c.name == name
        ]
        if not inside:
            modules = sorted({call.place for call in program.calls.values()})
            raise ImportRefusedError(f"there is no node {name!r} to end in; nodes: {', '.join(modules)[:2000]}")
        found.append(("", inside[-1].name))
    return tuple(found)


def _end(walk: Walk, program: Program, title: str, name: str) -> str:
    """The step whose output is one of the network's."""
    value = walk.values.get(name)
    value = value[0] if isinstance(value, list) else value
    call = program.calls.get(name)
    if call is None or not isinstance(value, Map):
        raise ImportRefusedError(f"the output {title!r} is not computed from the images by a layer")
    step = walk.settled(replace(call, place=walk.unique(call.place)), value).step
    if step == INPUT:
        raise ImportRefusedError(f"the output {title!r} is the input itself")
    return step


def _without_logarithm(walk: Walk, end: str, request: Request) -> str:
    """The output before a log_softmax that ends the network; a softmax there is taken off like every importer's."""
    taken = {source for step in walk.steps.values() for source in step.inputs}
    if end not in walk.logarithms or end in taken or request.keep_softmax:
        return end
    walk.remarks[f"log_softmax {end!r} at the end is taken off; the loss has it"] = None
    return walk.steps[end].inputs[0]


def _renamed(made: ProgramSteps, keys: Sequence[str]) -> ProgramSteps:
    """The outputs called as the module's own dict has them, where it has several."""
    names = {end: key for end, key in zip(made.outputs, keys, strict=True) if key}
    steps = {step.name for step in made.steps}
    names = {end: key for end, key in names.items() if key not in steps | {INPUT}} if len(keys) > 1 else {}

    def new(name: str) -> str:
        return names.get(name, name)

    renamed = (replace(step, name=new(step.name), inputs=tuple(map(new, step.inputs))) for step in made.steps)
    return ProgramSteps(tuple(renamed), tuple(map(new, made.outputs)), made.remarks)


def _with_training(evaluation: ProgramSteps, program: Program, request: Request) -> ProgramSteps:
    """The steps for training, if they are the same network; a remark on it otherwise."""
    number = len(evaluation.outputs)
    more = len(program.outputs) - number
    program = replace(program, outputs=program.outputs[:number]) if more > 0 else program
    try:
        training = steps_of(program, request, training=True)
    except ImportRefusedError as error:
        return _remarked(evaluation, f"in training the module does what is not taken over: {error}")
    if _fingerprint(training) != _fingerprint(evaluation):
        return _remarked(evaluation, "in training the module computes something else; taken over is its evaluation")
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
