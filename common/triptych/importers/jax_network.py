"""A JAX program as a network: which calls count, which softmax goes, whether training is the same network."""

from collections.abc import Sequence
from dataclasses import replace

from triptych.importers.assemble import assemble
from triptych.importers.jax_norms import with_norms
from triptych.importers.jax_patterns import recognised
from triptych.importers.jax_program import JaxCall, JaxProgram
from triptych.importers.jax_walk import JaxWalk
from triptych.importers.network_builder import Tensor, with_axes
from triptych.importers.program_steps import ProgramSteps, renamed, with_training
from triptych.importers.steps import Imported, ImportRefusedError, Request, needed
from triptych.spec.layers import INPUT

LAYOUTS = {"NHWC": (1, 2, 0), "NCHW": (0, 1, 2)}  # the axes of a canonical image as a module takes it


def network(
    evaluation: JaxProgram,
    training: JaxProgram,
    shape: tuple[int, int, int],
    layout: str,
    request: Request,
    *,
    name: str,
    source: str,
    remarks: Sequence[str] = (),
) -> Imported:
    """The network of a module's program for evaluation, with what only its program for training tells: dropouts, frozen
    statistics. `shape`: of the images, channels first, which the module takes as `layout`, NHWC or NCHW.
    Raises ImportRefusedError for what is no network of the spec's layers."""
    start = with_axes(Tensor(INPUT, shape), LAYOUTS[layout])
    evaluation, training = with_norms(evaluation, training)
    made = _steps(evaluation, start, request, training=False)
    more = len(training.outputs) - len(evaluation.outputs)
    if more > 0:
        training = replace(training, outputs=training.outputs[: len(evaluation.outputs)])
    made = with_training(made, lambda: _steps(training, start, request, training=True), more)
    return assemble(
        made.steps,
        made.outputs,
        request,
        name=name,
        source=source,
        input_shape=shape,
        remarks=(*remarks, *made.remarks),
    )


def _steps(program: JaxProgram, start: Tensor, request: Request, *, training: bool) -> ProgramSteps:
    program = recognised(program)
    walk = JaxWalk(program, start, training=training)
    takes = {output: call.inputs for call in program.calls for output in call.outputs}
    wanted = needed(takes, [name for _, name in program.outputs])
    for call in program.calls:
        if not wanted.isdisjoint(call.outputs):
            try:
                walk.run(call)
            except ImportRefusedError:
                if not _has(walk, request):
                    raise
                break  # what the requested outputs do not need
    if request.outputs:
        return _used(walk, _requested(walk, request))
    ends = tuple(_end(walk, program.calls, key, name, request) for key, name in program.outputs)
    return renamed(_used(walk, ends), [key for key, _ in program.outputs])


def _used(walk: JaxWalk, ends: tuple[str, ...]) -> ProgramSteps:
    used = needed({step.name: step.inputs for step in walk.network.steps}, ends)
    if logarithm := next((name for name in sorted(walk.logarithms) if name in used), None):
        raise ImportRefusedError(f"{logarithm!r} (log_softmax): supported only at the end, where it is taken off")
    return ProgramSteps(tuple(s for s in walk.network.steps if s.name in used), ends, tuple(walk.network.remarks))


def _has(walk: JaxWalk, request: Request) -> bool:
    return bool(request.outputs) and set(request.outputs) <= {step.name for step in walk.network.steps}


def _requested(walk: JaxWalk, request: Request) -> tuple[str, ...]:
    names = [step.name for step in walk.network.steps]
    for name in request.outputs:
        if name not in names:
            raise ImportRefusedError(f"there is no node {name!r} to end in; nodes: {', '.join(names)[:2000]}")
    return request.outputs


def _end(walk: JaxWalk, calls: Sequence[JaxCall], key: str, name: str, request: Request) -> str:
    """The step whose output is one of the network's."""
    maker = next((call for call in calls if name in call.outputs), None)
    if maker is None:
        raise ImportRefusedError(f"the output {key!r} is not computed from the images by a layer")
    x = walk.tensor(maker, walk.values[name])
    step = walk.settled(maker, x, walk.axes(x)).step
    if step == INPUT:
        raise ImportRefusedError(f"the output {key!r} is the input itself")
    taken = {source for each in walk.network.steps for source in each.inputs}
    if step not in walk.logarithms or step in taken or request.keep_softmax:
        return step
    walk.remark(f"log_softmax {step!r} at the end is taken off; the loss has it")
    return next(each for each in walk.network.steps if each.name == step).inputs[0]
