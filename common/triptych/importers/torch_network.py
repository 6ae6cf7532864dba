"""A PyTorch program as a network: which calls count, which softmax goes, whether training is the same network."""

from collections.abc import Sequence
from dataclasses import replace

from triptych.importers.assemble import assemble
from triptych.importers.moves import as_map, output_remark
from triptych.importers.program_steps import ProgramSteps, renamed, with_training
from triptych.importers.steps import Imported, ImportRefusedError, Request, needed
from triptych.importers.torch_maps import Map
from triptych.importers.torch_patterns import recognised
from triptych.importers.torch_program import Program, references
from triptych.importers.torch_walk import Walk
from triptych.spec.layers import INPUT


def network(
    program: Program, training: Program | None, request: Request, *, name: str, source: str, remarks: Sequence[str] = ()
) -> Imported:
    """The network of a module's program for evaluation, with what only its program for training tells: dropouts, frozen
    statistics. Without the latter `program` is the only one, for whichever. Raises ImportRefusedError for what is no
    network of the spec's layers."""
    if training is None:
        made = steps_of(program, request, training=is_for_training(program))
    else:
        more = len(training.outputs) - len(program.outputs)
        others = replace(training, outputs=training.outputs[: len(program.outputs)])
        evaluation = steps_of(program, request, training=False)
        made = with_training(evaluation, lambda: steps_of(others, request, training=True), more)
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


def is_for_training(program: Program) -> bool:
    """Whether a dropout in it draws, or a batch norm takes the statistics of the batch."""
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
    return renamed(ProgramSteps(steps, tuple(ends), tuple(walk.remarks)), [key for key, _ in outputs])


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
    if (shape := as_map(value.shape)) != value.shape:
        walk.remarks[output_remark(title, value.shape)] = None
        value = replace(value, order=value.places().reshape(shape))
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
