"""A jaxpr as named calls of primitives in a row: functions that call functions are opened, but for those that are a
layer by themselves, such as `jax.nn.hard_swish`, and those that stand for a module of Flax (`MARKS`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.steps import ImportRefusedError

DROPOUT, BATCH_NORM = "dropout: ", "batch norm: "  # start the names of functions that stand for these modules
PARTS = ("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm", "MultiHeadAttention")  # of Flax, without a leaf
MARKS = (DROPOUT, BATCH_NORM)
HANDED_ON = ("convert_element_type", "copy", "copy_p", "stop_gradient", "reduce_precision", "optimization_barrier")


def _hard_sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.clip(x + 3, 0, 6) / 6)


# Functions of jax.nn by the name that JAX keeps, and what they compute: somebody's own may have the same name.
FUNCTIONS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda x: x * _hard_sigmoid(x),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
}


@dataclass(frozen=True, eq=False)
class JaxCall:
    """One primitive, or a function in the place of one. `inputs` and `outputs`: names of values. `shape` has the batch
    (of the first output). `scope`: the modules around it, where the jaxpr has them (Linen). `run` computes it.
    `function`: of JAX or Flax, which it is part of."""

    primitive: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, Any]
    shape: tuple[int, ...]
    scope: str
    run: Callable[..., list[Any]]
    function: str = ""

    def refused(self, place: str, problem: str) -> ImportRefusedError:
        part = f" in {self.function}" if self.function and self.function != self.primitive else ""
        return ImportRefusedError(f"{place!r} (primitive {self.primitive}{part}): {problem}")


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter, a number, or what was computed of them alone. `sources`: the parameters in it; `computed`: more than
    rearranged."""

    value: Any
    sources: frozenset[str] = frozenset()
    computed: bool = False


@dataclass(frozen=True, eq=False)
class JaxProgram:
    """`input_shape` has the batch. `outputs`: pairs of the key in the dict that the module returns ("" otherwise) and
    the value's name. `updates`: what the statistics become, by their names, as values' names."""

    calls: tuple[JaxCall, ...]
    constants: Mapping[str, Constant]
    input: str
    input_shape: tuple[int, ...]
    outputs: tuple[tuple[str, str], ...]
    updates: Mapping[str, str] = field(default_factory=dict)


def read(traced: Any, arrays: Mapping[str, Any], keys: Sequence[str], statistics: Sequence[str]) -> JaxProgram:
    """The program of a closed jaxpr whose inputs are these arrays, in the order of their sorted names, and the images.
    `keys`: of the outputs, in their order; behind them are new values of these statistics."""
    opened = _Opened()
    jaxpr, names = traced.jaxpr, sorted(arrays)
    for name, var in zip(names, jaxpr.invars, strict=False):
        opened.constants[opened.new(var)] = _constant(arrays[name], frozenset((name,)))
    image = opened.new(jaxpr.invars[len(names)])
    opened.take_over(jaxpr, traced.consts)
    made = [opened.name(var) for var in jaxpr.outvars]
    outputs = tuple(zip(keys, made[: len(keys)], strict=True))
    updates = dict(zip(statistics, made[len(keys) :], strict=True))
    shape = jaxpr.invars[len(names)].aval.shape
    return JaxProgram(tuple(opened.calls), opened.constants, image, shape, outputs, updates)


@dataclass
class _Opened:
    calls: list[JaxCall] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    names: dict[Any, str] = field(default_factory=dict)
    count: int = 0
    function: str = ""

    def new(self, var: Any) -> str:
        self.count += 1
        self.names[var] = f"v{self.count}"
        return self.names[var]

    def name(self, var: Any) -> str:
        if not hasattr(var, "val"):
            return self.names[var]
        self.count += 1
        self.constants[f"v{self.count}"] = _constant(var.val)
        return f"v{self.count}"

    def take_over(self, jaxpr: Any, consts: Iterable[Any], scope: str = "") -> None:
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            self.constants[self.new(var)] = _constant(value)
        for eqn in jaxpr.eqns:
            self._equation(eqn, f"{scope}/{eqn.source_info.name_stack}".strip("/"))

    def _equation(self, eqn: Any, scope: str) -> None:
        inputs = tuple(map(self.name, eqn.invars))
        inside = next((v for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if (v := eqn.params.get(k)) is not None), None)
        function = str(eqn.params.get("name", ""))
        whole = function.startswith(MARKS) or (function in FUNCTIONS and _computes(eqn, FUNCTIONS[function]))
        if inside is None or whole or eqn.primitive.name in ("scan", "while", "cond", "pallas_call"):
            outputs = tuple(map(self.new, eqn.outvars))
            shape = tuple(eqn.outvars[0].aval.shape) if eqn.outvars else ()
            name = function if whole else eqn.primitive.name
            self.calls.append(JaxCall(name, inputs, outputs, eqn.params, shape, scope, _runner(eqn), self.function))
            return
        jaxpr, consts = (inside.jaxpr, inside.consts) if hasattr(inside, "consts") else (inside, ())
        outer, self.function, around = self.names, self.function or _known(function), self.function
        self.names = dict(zip(jaxpr.invars, inputs, strict=True))  # one body may be called at several places
        self.take_over(jaxpr, consts, scope)
        outputs = tuple(map(self.name, jaxpr.outvars))
        self.names, self.function = outer, around
        self.names.update(zip(eqn.outvars, outputs, strict=True))


def _constant(value: Any, sources: frozenset[str] = frozenset()) -> Constant:
    """Raises ImportRefusedError for a value that another transformation traces."""
    import jax  # noqa: TID251

    if isinstance(value, jax.core.Tracer):
        raise ImportRefusedError(
            f"a function that JAX transforms by itself takes a {value.aval.str_short()} of its module that it is not "
            "given; of jax.checkpoint in a Flax module nn.remat or nnx.remat is the right form"
        )
    return Constant(value, sources)


def _known(function: str) -> str:
    """The name of a function of JAX's own, if it is one, or of a module of Flax; of another nothing."""
    import jax  # noqa: TID251

    name = function.removeprefix("_")
    if name in PARTS or hasattr(jax.nn, name):
        return name
    return f"jax.image.{name}" if hasattr(jax.image, name) else ""


def _runner(eqn: Any) -> Callable[..., list[Any]]:
    """Before JAX 0.10 the functions inside a primitive were arguments of it, now they are parameters."""

    def run(*values: Any) -> list[Any]:
        bound = eqn.primitive.get_bind_params(eqn.params)
        functions, parameters = bound if isinstance(bound, tuple) else ((), bound)
        result = eqn.primitive.bind(*functions, *values, **parameters)
        return list(result) if eqn.primitive.multiple_results else [result]

    return run


def _computes(eqn: Any, formula: Callable[[NDArray[Any]], NDArray[Any]]) -> bool:
    """Whether the function makes of numbers from -8 to 8, whatever their place, what the formula does."""
    import jax.numpy as jnp  # noqa: TID251

    if len(eqn.invars) != 1 or len(eqn.outvars) != 1 or hasattr(eqn.invars[0], "val"):
        return False
    aval = eqn.invars[0].aval
    x = jnp.linspace(-8, 8, 1 + aval.size, dtype=aval.dtype)[1:].reshape(aval.shape)
    y = np.asarray(_runner(eqn)(x)[0], np.float64)
    wide = np.asarray(x, np.float64)
    return y.shape == wide.shape and bool(np.allclose(y, formula(wide), 0, 100 * float(jnp.finfo(aval.dtype).eps)))
