"""Batch norms that are written out in a JAX program. They are found by what they compute, not by how they are written:
the calls from a map on are run on drawn numbers, in evaluation and in training, and compared with the layer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from triptych.importers.jax_numbers import ARITHMETIC, Numbers, slice_of, values_of, written
from triptych.importers.jax_program import BATCH_NORM, HANDED_ON, JaxCall, JaxProgram
from triptych.importers.steps import needed

_TRAINED = ((), ("weight",), ("bias",), ("weight", "bias"))
_STATISTICS = ("running_mean", "running_var")
_EXACT = 1e-6  # of the scale: constants of float32, as 1 / n; another formula differs by more


@dataclass(frozen=True)
class _Norm:
    """From `x` to `y`; `arrays`: the parameters by what they are in the layer."""

    x: str
    y: str
    axis: int
    arrays: Mapping[str, str]
    eps: float
    frozen: bool = False
    momentum: float = 0.0
    unbiased: bool = False


@dataclass(eq=False)
class _Part:
    """A program, and what its values are made of."""

    program: JaxProgram
    makers: dict[str, JaxCall] = field(init=False)
    shapes: dict[str, tuple[int, ...]] = field(init=False)
    sources: dict[str, str] = field(init=False)  # parameters by the name of their value
    constant: set[str] = field(init=False)
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        program = self.program
        self.makers = {output: call for call in program.calls for output in call.outputs}
        self.shapes = {call.outputs[0]: call.shape for call in program.calls if call.outputs}
        self.shapes[program.input] = program.input_shape
        self.sources = {name: next(iter(c.sources)) for name, c in program.constants.items() if len(c.sources) == 1}
        self.constant = set(program.constants)
        for call in program.calls:
            if all(name in self.constant for name in call.inputs):
                self.constant.update(call.outputs)

    def used(self, y: str, x: str) -> tuple[list[str], list[JaxCall]]:
        """The values that are parameters, and the calls, by which `y` is computed of `x`."""
        calls = slice_of(self.makers, [y], {x: None, **dict.fromkeys(self.sources)})
        names = dict.fromkeys(name for call in calls for name in call.inputs if name in self.sources)
        return list(names), calls

    def drawn(self, names: Sequence[str]) -> dict[str, Numbers]:
        """Values above 0, of which small ones let an eps be told."""
        return {n: self.generator.uniform(0.01, 0.02, np.shape(self.program.constants[n].value)) for n in names}

    def signs(self, shape: tuple[int, ...]) -> Numbers:
        """Some -1, some 1."""
        return self.generator.choice((-1.0, 1.0), shape)

    def number(self, found: float, calls: Sequence[JaxCall]) -> float:
        """What was found, as the program writes it."""
        constants = self.program.constants
        numbers = (written(constants[n].value) for call in calls for n in call.inputs if n in constants)
        return next((n for n in numbers if n is not None and abs(n - found) <= _EXACT * abs(found)), found)


def with_norms(evaluation: JaxProgram, training: JaxProgram) -> tuple[JaxProgram, JaxProgram]:
    """Both programs with such batch norms as one call each, like Flax's own."""
    here, there = _Part(evaluation), _Part(training)
    moving = list(_moving(there))
    momenta = {norm.arrays["running_mean"]: norm for norm in moving}
    still = []
    for norm in _still(here, set(training.updates)):
        moved = momenta.get(norm.arrays["running_mean"])
        taken = (moved.momentum, moved.unbiased) if moved else (0.0, False)
        still.append(replace(norm, frozen=True, momentum=taken[0], unbiased=taken[1]))
    frozen = [replace(norm, frozen=True) for norm in _still(there, set(training.updates))]
    return _replaced(here, still), _replaced(there, [*moving, *frozen])


def _replaced(part: _Part, norms: Sequence[_Norm]) -> JaxProgram:
    if not norms:
        return part.program
    constants, marks = dict(part.program.constants), dict[str, JaxCall]()
    names = {source: name for name, source in part.sources.items()}
    for norm in norms:
        inputs = [norm.x]
        for key, source in norm.arrays.items():
            given = constants[names[source]]
            constants[f"{norm.y}.{key}"] = replace(given, value=np.asarray(given.value).reshape(-1))
            inputs.append(f"{norm.y}.{key}")
        attributes = (norm.axis, norm.eps, 1 - norm.momentum, int(norm.unbiased), int(norm.frozen))
        name = f"{BATCH_NORM}{' '.join(map(str, attributes))} {','.join(norm.arrays)}"
        marks[norm.y] = replace(part.makers[norm.y], primitive=name, inputs=tuple(inputs))
    calls = [marks.get(call.outputs[0], call) if call.outputs else call for call in part.program.calls]
    takes = {output: call.inputs for call in calls for output in call.outputs}
    wanted = needed(takes, [name for _, name in part.program.outputs])
    kept = tuple(call for call in calls if not wanted.isdisjoint(call.outputs))
    return replace(part.program, calls=kept, constants=constants)


def _still(part: _Part, statistics: set[str]) -> Iterator[_Norm]:
    """With the running statistics, which no optimiser trains."""
    done = set[str]()
    for row in _rows(part):
        pairs = [(x, y) for x in range(len(row)) for y in range(len(row) - 1, x, -1)]
        for x, y in sorted(pairs, key=lambda pair: pair[0] - pair[1]):
            if not done.isdisjoint(row[x + 1 : y + 1]):
                continue
            names, calls = part.used(row[y], row[x])
            if 2 <= len(names) <= 4 and (found := _fitting(part, row[x], row[y], names, calls, _STATISTICS)):
                if {source for source in found.arrays.values() if source in statistics} != _kept(found):
                    continue
                done.update(row[x + 1 : y + 1])
                yield found


def _kept(norm: _Norm) -> set[str]:
    return {norm.arrays[key] for key in _STATISTICS}


def _rows(part: _Part) -> list[list[str]]:
    """Values of one shape, each of the one before it and constants by arithmetic."""
    rows: dict[str, list[str]] = {}
    for call in part.program.calls:
        taken = [name for name in call.inputs if name not in part.constant]
        if (
            call.primitive in ("add", "sub", "mul", "div", *HANDED_ON)
            and call.primitive != "stop_gradient"
            and len(taken) == 1
            and part.shapes.get(taken[0]) == call.shape
        ):
            row = rows.pop(taken[0], None) or [taken[0]]
            rows[call.outputs[0]] = [*row, call.outputs[0]]
    return list(rows.values())


def _moving(part: _Part) -> Iterator[_Norm]:
    """With the batch's own statistics, which move running ones."""
    done = set[str]()
    for call in part.program.calls:
        x = _summed(part, call)
        if x is None or x in done:
            continue
        reached = _reached(part, x)
        done.update(reached)
        maps = [name for name in reversed(reached) if part.shapes[name] == part.shapes[x] and name != x]
        for y in maps:
            names, calls = part.used(y, x)
            if len(names) > 2 or any(each.primitive == "stop_gradient" for each in calls):
                continue
            found = _fitting(part, x, y, names, calls, ())
            moved = found and _moved(part, found, reached)
            if moved:
                yield moved
                break


def _summed(part: _Part, call: JaxCall) -> str | None:
    """Of what a sum over the batch, and all else but the channels, is taken."""
    if call.primitive != "reduce_sum" or call.inputs[0] in part.constant:
        return None
    x = call.inputs[0]
    rank = len(part.shapes.get(x, ()))
    if rank not in (2, 4) or len(call.params["axes"]) != rank - 1 or 0 not in call.params["axes"]:
        return None
    while (maker := part.makers.get(x)) is not None and maker.primitive in ("square", "integer_pow", *HANDED_ON):
        x = maker.inputs[0]
    return x


def _reached(part: _Part, x: str) -> list[str]:
    """`x`, and what is computed of it, and of constants, by arithmetic alone."""
    reached, shape = {x: None}, part.shapes[x]
    for call in part.program.calls:
        inside = [name in reached for name in call.inputs]
        fits = call.primitive in ARITHMETIC and not (call.primitive in ("max", "select_n") and call.shape == shape)
        batch = call.primitive != "reduce_sum" or 0 in call.params["axes"]
        if (
            fits
            and batch
            and any(inside)
            and all(i or n in part.constant for i, n in zip(inside, call.inputs, strict=True))
        ):
            reached[call.outputs[0]] = None
    return list(reached)


def _fitting(
    part: _Part, x: str, y: str, names: Sequence[str], calls: Sequence[JaxCall], statistics: Sequence[str]
) -> _Norm | None:
    """The layer that does what `y` is of `x`, if there is one."""
    shape = part.shapes[x]
    if any(call.primitive not in ARITHMETIC for call in calls):
        return None
    known = part.drawn(names)
    known[x] = part.generator.normal(0.01, 0.03, shape)
    result = values_of(part.program, part.makers, y, known)
    for axis in range(len(shape) - 1, 0, -1):
        channels = shape[axis]
        if len(shape) not in (2, 4) or any(known[name].size != channels for name in names):
            continue
        before, after = (np.moveaxis(value, axis, 0).reshape(channels, -1) for value in (known[x], result))
        for keys in (keys for trained in _TRAINED for keys in permutations((*statistics, *trained))):
            if len(keys) != len(names):
                continue
            given = {key: known[name].reshape(-1, 1) for key, name in zip(keys, names, strict=True)}
            eps = _eps(before, after, given)
            if eps is not None and _is_so(part, x, y, axis, eps, dict(zip(keys, names, strict=True))):
                arrays = {key: part.sources[name] for key, name in zip(keys, names, strict=True)}
                return _Norm(x, y, axis, arrays, part.number(eps, calls) if eps else 0.0)
    return None


def _is_so(part: _Part, x: str, y: str, axis: int, eps: float, names: Mapping[str, str]) -> bool:
    """Whether it is that layer for numbers of either sign, too: a bound, or a root, of a parameter is none."""
    known = part.drawn(list(names.values()))
    known |= {name: known[name] * part.signs(known[name].shape) for key, name in names.items() if key != "running_var"}
    known[x] = part.generator.normal(1.0, 3.0, part.shapes[x])
    result = values_of(part.program, part.makers, y, known)
    channels = part.shapes[x][axis]
    before, after = (np.moveaxis(value, axis, 0).reshape(channels, -1) for value in (known[x], result))
    return _fits(before, after, {key: known[name].reshape(-1, 1) for key, name in names.items()}, eps)


def _eps(x: Numbers, y: Numbers, given: Mapping[str, Numbers]) -> float | None:
    """That with which a batch norm of rows makes `y`; None if there is none."""
    if not np.isfinite(y).all():
        return None
    mean, variance, weight, bias = _layer(x, given)
    with np.errstate(all="ignore"):
        slope = ((y - bias) * (x - mean)).sum(1, keepdims=True) / ((x - mean) ** 2).sum(1, keepdims=True)
        eps = float(np.median((weight / slope) ** 2 - variance))
    eps = 0.0 if abs(eps) < 1e-14 else eps
    return eps if 0 <= eps < 1 and _fits(x, y, given, eps) else None


def _fits(x: Numbers, y: Numbers, given: Mapping[str, Numbers], eps: float) -> bool:
    mean, variance, weight, bias = _layer(x, given)
    expected = (x - mean) / np.sqrt(variance + eps) * weight + bias
    return bool(abs(y - expected).max() <= _EXACT * abs(expected).max())


def _layer(x: Numbers, given: Mapping[str, Numbers]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Mean, variance, weight and bias: those of the layer, or the batch's own and none."""
    mean = given.get("running_mean", x.mean(1, keepdims=True))
    variance = given.get("running_var", x.var(1, keepdims=True))
    return mean, variance, given.get("weight", np.ones(())), given.get("bias", np.zeros(()))


def _moved(part: _Part, norm: _Norm, reached: Sequence[str]) -> _Norm | None:
    """The norm with the statistics that it moves, and how."""
    found: dict[str, tuple[str, float, bool]] = {}
    for source, update in part.program.updates.items():
        names, calls = part.used(update, norm.x)
        if len(names) != 1 or part.sources[names[0]] != source or any(c.primitive not in ARITHMETIC for c in calls):
            continue
        if update not in reached:
            continue
        for key in _STATISTICS:
            if (moves := _moves(part, norm, key, names[0], update)) is not None:
                found[key] = (source, part.number(moves[0], calls), moves[1])
    if set(found) != set(_STATISTICS):
        return None
    (mean, momentum, _), (variance, other, unbiased) = (found[key] for key in _STATISTICS)
    if abs(momentum - other) > _EXACT:
        return None
    arrays = {"running_mean": mean, "running_var": variance, **norm.arrays}
    return replace(norm, arrays=arrays, momentum=momentum, unbiased=unbiased)


def _moves(part: _Part, norm: _Norm, key: str, name: str, update: str) -> tuple[float, bool] | None:
    """The momentum by which the batch moves a statistic, and whether its variance is taken by n - 1."""
    known = part.drawn([name])
    known[norm.x] = part.generator.normal(0.5, 2.0, part.shapes[norm.x])
    after = values_of(part.program, part.makers, update, known).ravel()
    rows = np.moveaxis(known[norm.x], norm.axis, 0).reshape(part.shapes[norm.x][norm.axis], -1)
    before = known[name].ravel()
    if after.shape != before.shape or before.size != len(rows):
        return None
    for unbiased in (False, True)[: 1 + (key == "running_var")]:
        batch = rows.mean(1) if key == "running_mean" else rows.var(1, ddof=int(unbiased))
        momentum = float(np.median((after - before) / (batch - before)))
        if abs(before + momentum * (batch - before) - after).max() <= _EXACT * abs(after).max():
            return momentum, unbiased
    return None
