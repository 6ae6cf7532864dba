"""Somebody's own Flax module (NNX or Linen) or JAX function, taken apart into its primitives."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from triptych.backend.contract import Captured, PortParameter, PortRun
from triptych.backend.execution import Execution, dtype_of
from triptych.importers.steps import Imported, Request
from triptych.optim.optimizers import Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import FLAX
from triptych_jax.device import DTYPES
from triptych_jax.precision import apply_execution
from triptych_jax.weights import to_numpy

# JAX's primitives by the spec's record or merge. Functions of jax.nn are found by their name.
KINDS = {
    "conv_general_dilated": "Conv",
    "dot_general": "Dense",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "LeakyReLU",
    "max": "ReLU",
    "relu6": "Clip",
    "hard_tanh": "Clip",
    "clip": "Clip",
    "clamp": "Clip",
    "silu": "SiLU",
    "swish": "SiLU",
    "gelu": "SiLU",
    "hard_sigmoid": "HardSigmoid",
    "hard_silu": "HardSwish",
    "hard_swish": "HardSwish",
    "logistic": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
    "reduce_window_max": "MaxPool",
    "reduce_window_sum": "AvgPool",
    "reduce_window": "MaxPool",
    "reduce_sum": "GlobalAvgPool",
    "reduce_max": "GlobalMaxPool",
    "reshape": "Flatten",
    "pad": "Pad",
    "slice": "Slice",
    "concatenate": "concatenate",
    "add": "add",
    "mul": "multiply",
}
Outputs: TypeAlias = tuple[jax.Array, ...]
# A function of arrays, images and train, to the outputs and what the running statistics are then; the arrays by name.
Started: TypeAlias = tuple[Callable[..., tuple[Any, dict[str, Any]]], dict[str, Any]]
COMPLETED = {
    "Conv": "add",
    "ConvTranspose": "add",
    "Dense": "add",
    "AvgPool": "div",
    "GlobalAvgPool": "div",
}  # by which primitive
OPENS: tuple[str, ...] = ()
SWITCHES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}

_compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def matches(candidate: Any) -> bool:
    """A module of Flax, or a pair of a function of `(parameters, images)` and its parameters."""
    pair = isinstance(candidate, tuple) and len(candidate) == 2 and callable(candidate[0])
    return isinstance(candidate, nnx.Module | linen.Module) or (pair and not callable(candidate[1]))


def import_network(candidate: Any, request: Request) -> Imported:
    """Not yet: a jaxpr is not taken apart."""
    raise TriptychError(
        "a JAX network cannot be imported; give its architecture, and compare the two with `triptych locate`"
    )


def open_file(path: Path, weights: Path | None, *, bare: bool) -> Any:
    """There are none: Flax keeps a network's code and its arrays apart."""
    raise TriptychError("Flax has no files of whole networks")


class Port:
    """See `triptych.backend.contract.Port`."""

    def __init__(self, candidate: Any, layout: str | None, execution: Execution, outputs: int = 1) -> None:
        self.layout = layout or "NHWC"
        self.count = outputs
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("jax", execution.precision, DTYPES)
        self.candidate = candidate

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of their first use."""
        kind = next(start for type_, start in STARTS if isinstance(self.candidate, type_))
        self.function, arrays = kind(self.candidate, self._native(images))
        self.arrays = {name: jnp.asarray(value, self.dtype) for name, value in arrays.items()}
        inner = jax.make_jaxpr(partial(self._all_outputs, train=False))(self.arrays, self._native(images)).jaxpr
        self.returned = len(inner.outvars)
        variables = dict(zip(sorted(self.arrays), inner.invars, strict=False))  # as JAX flattens a dictionary
        used, needed = _first_uses(inner), _needed(inner, self.count)
        order = sorted(variables, key=lambda name: used.get(variables[name], len(used)))
        return [
            PortParameter(
                name,
                to_numpy(self.arrays[name]).shape or (1,),
                _role(name.rpartition(".")[2]),
                variables[name] in needed or variables[name] not in used,
            )
            for name in order
        ]

    def _all_outputs(self, arrays: Mapping[str, jax.Array], x: jax.Array, train: bool) -> Outputs:
        """The network's outputs, in its order."""
        return tuple(jax.tree.leaves(_in_order(self.function(arrays, x, train=train)[0])))

    def _outputs(self, arrays: Mapping[str, jax.Array], x: jax.Array, train: bool) -> Outputs:
        """Those of them that are compared."""
        return self._all_outputs(arrays, x, train)[: self.count]

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        for name, value in values.items():
            native = jnp.asarray(FLAX.from_canonical(value), self.dtype)
            self.arrays[name] = native if jnp.ndim(self.arrays[name]) else native.reshape(())  # a PReLU's one slope

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """One pass; with `cotangents`, the gradient of every output that is compared, backward too."""
        x = self._native(images)
        traced = jax.make_jaxpr(partial(self._outputs, train=train))(self.arrays, x)
        kinds: list[str] = []

        def whole(arrays: Any, x: jax.Array, probes: list[jax.Array] | None) -> tuple[Outputs, list[jax.Array]]:
            watch = _Watch(len(images), probes)
            outputs = watch.run(traced.jaxpr, traced.consts, jax.tree.leaves((arrays, x)))
            kinds[:] = watch.kinds
            return tuple(outputs), watch.values

        outputs, values = _compiled(partial(whole, probes=None))(self.arrays, x)
        captured = [Captured(kind, self._channels_first(y)) for kind, y in zip(kinds, values, strict=True)]
        run = PortRun(captured, tuple(map(self._channels_first, outputs)))
        if cotangents:
            probes = [jnp.zeros_like(value) for value in values]
            dy = tuple(self._native(cotangent) for cotangent in cotangents[: len(outputs)])

            @_compiled
            def backward(arrays: Any, x: jax.Array, probes: list[jax.Array]) -> Any:
                _, pull = jax.vjp(lambda *arguments: whole(*arguments)[0], arrays, x, probes)
                return pull(dy)

            gradients, dx, arrived = backward(self.arrays, x, probes)
            run.gradients = {name: np.atleast_1d(to_numpy(value)) for name, value in gradients.items()}
            run.input_gradient = self._channels_first(dx)
            for entry, gradient in zip(captured, arrived, strict=True):
                entry.gradient = self._channels_first(gradient)
        return run

    def train(self, images: Array, cotangents: Sequence[Array], rates: Sequence[Rates]) -> dict[str, Array]:
        """What steps of optax.sgd make of it."""
        x, optimizer = self._native(images), optax.sgd(rates[0].learning_rate, rates[0].momentum)
        kept = jax.eval_shape(partial(self.function, train=True), self.arrays, x)[1]

        def loss(trained: Any, arrays: Any) -> tuple[jax.Array, Any]:
            y, moved = self.function({**arrays, **trained}, x, train=True)
            outputs = jax.tree.leaves(_in_order(y))[: self.count]
            return sum((y * self._native(dy)).sum() for y, dy in zip(outputs, cotangents, strict=False)), moved

        @_compiled
        def step(arrays: Any, state: Any) -> tuple[Any, Any]:
            trained = {name: value for name, value in arrays.items() if name not in kept}
            gradients, moved = jax.grad(loss, has_aux=True)(trained, arrays)
            updates, state = optimizer.update(gradients, state, trained)
            return {**optax.apply_updates(trained, updates), **moved}, state

        state = optimizer.init({name: value for name, value in self.arrays.items() if name not in kept})
        for _ in rates:
            self.arrays, state = step(self.arrays, state)
        return {name: np.atleast_1d(to_numpy(value)) for name, value in self.arrays.items()}

    def _native(self, images: Array) -> jax.Array:
        """Images, or a map or vector of an output, as the network has them."""
        turned = self.layout == "NHWC" and images.ndim == 4
        return jnp.asarray(images.transpose(0, 2, 3, 1) if turned else images, self.dtype)

    def _channels_first(self, value: jax.Array) -> Array:
        """A copy on the host, channels first."""
        array = np.array(value)
        return array.transpose(0, 3, 1, 2) if self.layout == "NHWC" and array.ndim == 4 else array


class _Watch:
    """Runs a traced function primitive by primitive and keeps what has a row for each of the images.

    `probes` are added to what is kept: zeros, by which the derivative is the gradient that arrives there.
    """

    def __init__(self, images: int, probes: list[jax.Array] | None) -> None:
        self.images = images
        self.probes = probes
        self.kinds: list[str] = []
        self.values: list[Any] = []
        self.open: dict[int, tuple[str, Any]] = {}  # by identity: a sum that its bias or its division completes

    def run(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """The outputs of `jaxpr`."""
        known: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

        def read(var: Any) -> Any:
            return var.val if isinstance(var, Literal) else known[var]

        for number, eqn in enumerate(jaxpr.eqns):
            inputs = [read(var) for var in eqn.invars]
            name, inside = _named(eqn)
            if inside is not None and name not in KINDS:
                outputs = self.run(inside.jaxpr, inside.consts, inputs)
            else:
                outputs = _bind(eqn, inputs)
                outputs = list(outputs) if eqn.primitive.multiple_results else [outputs]
                if len(outputs) == 1:
                    takers = (later for later in jaxpr.eqns[number + 1 :] if eqn.outvars[0] in later.invars)
                    following = next((taker.primitive.name for taker in takers), "")
                    outputs[0] = self.see(_kind(name, eqn), name, inputs, outputs[0], following)
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def see(self, kind: str, name: str, inputs: Sequence[Any], y: Any, following: str) -> Any:
        """Keep `y` if it may be a layer's output; what completes another's output takes its place."""
        for value in inputs:
            before = self.open.pop(id(value), ("", None))[0]
            if before and name == COMPLETED[before]:
                return self.keep(before, y)
        if jnp.ndim(y) < 2 or len(y) != self.images or not jnp.issubdtype(y.dtype, jnp.floating):
            return y
        kind = kind if _fits(kind, inputs, y) else "Reshape" * (kind == "Flatten" and y.ndim == 4)
        if COMPLETED.get(kind) and following in (COMPLETED[kind], "reshape", "broadcast_in_dim", "pjit", "jit"):
            self.open[id(y)] = (kind, y)
            return y
        return self.keep(kind, y)

    def keep(self, kind: str, y: Any) -> Any:
        """Note it; with probes, what goes on is the sum."""
        if self.probes is not None:
            y = y + self.probes[len(self.values)]
        self.kinds.append(kind)
        self.values.append(y)
        return y


def _bind(eqn: Any, inputs: Sequence[Any]) -> Any:
    """Run one primitive. Before JAX 0.10 the functions inside it were arguments, now they are parameters."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)
    return eqn.primitive.bind(*functions, *inputs, **parameters)


def _fits(kind: str, inputs: Sequence[Any], y: Any) -> bool:
    """Shapes rule out most of what only looks like a layer."""
    if kind in ("Dense", "Flatten"):
        return y.ndim == 2 and (kind == "Dense" or inputs[0].ndim == 4)
    if kind == "GlobalAvgPool":
        return inputs[0].ndim == 4 and y.ndim == 2 and len(inputs[0]) == len(y)
    if kind == "GlobalMaxPool":
        return inputs[0].ndim == 4 and y.ndim == 2 and len(inputs[0]) == len(y)
    if kind == "add":
        return y.ndim == 4 and all(jnp.shape(value) == y.shape for value in inputs)
    if kind == "multiply":  # a map of one pixel counts at every place
        return all(jnp.ndim(value) == y.ndim and len(value) == len(y) for value in inputs)
    return y.ndim in (2, 4)


def _role(name: str) -> str:
    return "slope" if name == FLAX.names["slope"] else FLAX.canonical_name(name)


def _kind(name: str, eqn: Any) -> str:
    spread = name == "conv_general_dilated" and set(eqn.params["lhs_dilation"]) != {1}
    return "ConvTranspose" if spread else KINDS.get(name, "")


def _named(eqn: Any) -> tuple[str, ClosedJaxpr | None]:
    """A primitive's name, or that of the function which a call runs, with its body."""
    inside = next((v for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if (v := eqn.params.get(k)) is not None), None)
    if inside is None or eqn.primitive.name.startswith("custom_vjp"):
        return eqn.primitive.name, None
    closed = inside if isinstance(inside, ClosedJaxpr) else ClosedJaxpr(inside, ())
    names = [str(eqn.params.get("name", "")), *(str(e.params.get("name", "")) for e in closed.jaxpr.eqns)]
    known = next((name for name in names[:2] if name in KINDS), "")
    if eqn.primitive.name.startswith("custom_jvp"):  # its derivative must stay with it
        return known or eqn.primitive.name, None
    return names[0], closed


def _first_uses(jaxpr: Jaxpr) -> dict[Any, int]:
    used: dict[Any, int] = {}
    for eqn in jaxpr.eqns:
        for var in eqn.invars:
            if not isinstance(var, Literal):
                used.setdefault(var, len(used))
    return used


def _needed(jaxpr: Jaxpr, count: int) -> set[Any]:
    """The variables that the first `count` outputs depend on."""
    needed = {var for var in jaxpr.outvars[:count] if not isinstance(var, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            needed |= {var for var in eqn.invars if not isinstance(var, Literal)}
    return needed


def _start_nnx(module: nnx.Module, x: jax.Array) -> Started:
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Dropout):
            node.rate = 0.0
    flat = dict(nnx.to_flat_state(nnx.state(module)))
    kept = [path for path, variable in flat.items() if isinstance(variable, nnx.Param | nnx.BatchStat)]
    state = {".".join(map(str, path)): path for path in kept}
    others = {path: variable for path, variable in flat.items() if path not in state.values()}
    definitions = {}
    for mode in (True, False):  # not while JAX traces: dropout and batch norms refuse to be switched there
        module.train() if mode else module.eval()
        definitions[mode] = nnx.graphdef(module)

    def function(arrays: Mapping[str, jax.Array], x: jax.Array, train: bool) -> Any:
        filled = {path: type(flat[path])(arrays[name]) for name, path in state.items()}  # new ones can be set
        network = nnx.merge(definitions[train], nnx.from_flat_state({**others, **filled}))
        y, after = network(x), dict(nnx.to_flat_state(nnx.state(network, nnx.BatchStat)))
        return y, {name: after[path][...] for name, path in state.items() if path in after}

    return function, {name: flat[path][...] for name, path in state.items()}


def _start_linen(module: linen.Module, x: jax.Array) -> Started:
    def skip(following: Callable[..., Any], arguments: Any, keywords: Any, context: Any) -> Any:
        dropout = isinstance(context.module, linen.Dropout) and context.method_name == "__call__"
        return arguments[0] if dropout else following(*arguments, **keywords)

    switches = _switches_of(type(module).__call__)
    with linen.intercept_methods(skip):
        arrays, fill = _taken_apart(module.init(jax.random.key(0), x, **switches(False)))

    def function(arrays: Mapping[str, jax.Array], x: jax.Array, train: bool) -> Any:
        filled = fill(arrays)
        with linen.intercept_methods(skip):
            mutable = [name for name in filled if name != "params"] if train else False
            y = module.apply(filled, x, mutable=mutable, **switches(train))
        return (y[0], _taken_apart(dict(y[1]))[0]) if train else (y, {})

    return function, arrays


def _start_function(pair: tuple[Callable[..., Any], Any], x: jax.Array) -> Started:
    network, parameters = pair
    arrays, fill = _taken_apart(parameters)
    switches = _switches_of(network)
    return (lambda arrays, x, train: (network(fill(arrays), x, **switches(train)), {})), arrays


def _taken_apart(tree: Any) -> tuple[dict[str, Any], Callable[[Mapping[str, jax.Array]], Any]]:
    """The arrays of a tree by dotted path, and the function that makes such a tree of others."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path, _ in leaves]
    arrays = dict(zip(paths, (value for _, value in leaves), strict=True))
    return arrays, lambda others: jax.tree.unflatten(structure, [others[path] for path in paths])


def _switches_of(function: Callable[..., Any]) -> Callable[[bool], dict[str, bool]]:
    """What the function is told of training, by the names that it accepts."""
    accepted = [name for name in SWITCHES if name in inspect.signature(function).parameters]
    return lambda train: {name: train == SWITCHES[name] for name in accepted}


STARTS = ((nnx.Module, _start_nnx), (linen.Module, _start_linen), (tuple, _start_function))


def _in_order(output: Any) -> Any:
    """The outputs as lists: JAX takes a dictionary's by their names, not in its order."""
    if isinstance(output, Mapping):
        return [_in_order(value) for value in output.values()]
    return [_in_order(value) for value in output] if isinstance(output, list | tuple) else output
