"""Somebody's own Flax module (NNX or Linen) or JAX function, taken apart into its primitives."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from numpy.typing import NDArray

from triptych.backend.contract import Captured, Drawn, PortParameter, PortRun, dropout_kind
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import jax_module, jax_network
from triptych.importers.jax_program import DROPOUT, HANDED_ON, JaxProgram
from triptych.importers.steps import Imported, ImportRefusedError, Request
from triptych.optim.optimizers import Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.utils.frames import selves
from triptych.utils.process import memory_is_short, return_large_memory
from triptych.utils.shelf import Shelf
from triptych.weights.layouts import FLAX
from triptych_jax.device import DTYPES
from triptych_jax.precision import apply_execution

# JAX's primitives by the spec's record or merge. Functions of jax.nn are found by their name.
KINDS = {
    "conv_general_dilated": "Conv",
    "dot_general": "Dense",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "max": "ReLU",
    "relu6": "Clip",
    "hard_tanh": "Clip",
    "clip": "Clip",
    "clamp": "Clip",
    "silu": "SiLU",
    "swish": "SiLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "softplus": "Softplus",
    "logaddexp": "Softplus",
    "soft_sign": "Softsign",
    "mish": "Mish",
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
    "sub": "add",
    "mul": "multiply",
}
SIZES, CHANNELS = (224, 299, 32, 28), (3, 1)  # of images, where nothing says it
Outputs: TypeAlias = tuple[jax.Array, ...]
Arrays: TypeAlias = Mapping[str, jax.Array]


@dataclass(frozen=True)
class _Started:
    """A network as a function of arrays by name, images and train, which gives its output and the running statistics
    after it by name; those arrays; a call in evaluation as a user makes it, and how to undo what that leaves; and what
    an optimiser is given of the arrays: a tree of them as the network has it."""

    function: Callable[..., tuple[Any, Arrays]]
    arrays: dict[str, Any]
    call: Callable[[Arrays, jax.Array], Any]
    trained: Callable[[Arrays], Any]
    restore: Callable[[], None] = lambda: None


COMPLETED = {
    "Conv": "add",
    "ConvTranspose": "add",
    "Dense": "add",
    "AvgPool": "div",
    "GlobalAvgPool": "div",
}  # by which primitive
OPENS: tuple[str, ...] = ()
FILES_TRAIN = False
SWITCHES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}

LARGE = 2**20  # values of all arrays


def _compiled(function: Callable[..., Any], arrays: Arrays, donate: tuple[int, ...] = ()) -> Callable[..., Any]:
    """For a run or two: without optimisation it takes half the time to compile, but a convolution in float64, a plain
    loop in XLA, five times as long; in a large network that is nearly all of it. Where memory is short, the programs
    that have run are let go of before: of ResNet-50 forward they take nearly as much as its weights in float64."""
    _let_programs_go()
    level = int(sum(value.size for value in arrays.values()) >= LARGE)
    return jax.jit(function, donate_argnums=donate, compiler_options={"xla_backend_optimization_level": level})


def _let_programs_go() -> None:
    if memory_is_short():
        jax.clear_caches()
        return_large_memory()


def matches(candidate: Any) -> bool:
    """A module of Flax, or a pair of a function of `(parameters, images)` (or a Linen module, or its `apply`) and its
    parameters."""
    pair = isinstance(candidate, tuple) and len(candidate) == 2 and callable(candidate[0])
    return isinstance(candidate, nnx.Module | linen.Module) or (pair and _is_tree(candidate[1]))


def _is_tree(parameters: Any) -> bool:
    """Whether there are arrays in it; an equinox module is a tree that can be called, too."""
    return any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(parameters)) or not callable(parameters)


def import_network(candidate: Any, request: Request) -> Imported:
    """The module as its jaxpr has it. Without `request.input` images of the first of the usual sizes that it takes."""
    return _imported(candidate, request, None)


def _imported(candidate: Any, request: Request, arrays: Arrays | None) -> Imported:
    """The same with other arrays by name than its own, if they are given."""
    bare = isinstance(candidate, linen.Module) and candidate.scope is None
    candidate = candidate.unbind() if isinstance(candidate, linen.Module) and not bare else candidate
    owner = candidate[0] if isinstance(candidate, tuple) else candidate
    title = getattr(owner, "__qualname__", type(owner).__qualname__)
    shapes = [request.input] if request.input else [(n, size, size) for size in SIZES for n in CHANNELS]
    problems = []
    for layout, shape in product(jax_network.LAYOUTS, shapes):
        try:
            evaluation, training = (_program(candidate, shape, layout, train, arrays) for train in (False, True))
        except Exception as error:  # whatever somebody's own code raises
            problems.append(f"{shape}: {next(iter(str(error).splitlines()), '')[:300]} ({type(error).__name__})")
            continue
        remarks = ["a Linen module alone has no weights; give a pair (module, variables)"] * bare
        if not request.input:
            size = "x".join(map(str, shape))
            remarks.append(f"the module does not say its input; {size} was assumed (--input says another)")
        imported = jax_network.network(
            evaluation, training, shape, layout, request, name=title.lower(), source=f"Flax: {title}", remarks=remarks
        )
        return replace(imported, parameters=None) if bare and arrays is None else imported
    raise ImportRefusedError(f"JAX does not trace {title} on images {problems[0]}; see --input")


def _program(
    candidate: Any, shape: tuple[int, int, int], layout: str, train: bool, arrays: Arrays | None
) -> JaxProgram:
    start = next(start for type_, start in STARTS if isinstance(candidate, type_))
    sizes = tuple(shape[axis] for axis in jax_network.LAYOUTS[layout])
    leaves = [
        leaf for leaf in jax.tree.leaves(arrays or _state_of(candidate)) if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    x = jnp.zeros((jax_module.IMAGES, *sizes), leaves[0].dtype if leaves else jnp.float32)
    if isinstance(candidate, linen.Module):  # nothing is drawn
        shapes = jax.eval_shape(partial(_initial, candidate), x)
        start, candidate = _start_function, (candidate, jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes))
    started = start(candidate, x)
    try:
        return jax_module.program(partial(started.function, train=train), arrays or started.arrays, x)
    finally:
        started.restore()


def _state_of(candidate: Any) -> Any:
    """The arrays that are in it."""
    if isinstance(candidate, nnx.Module):
        return nnx.state(candidate, nnx.Param)
    return candidate[1] if isinstance(candidate, tuple) else ()


def open_file(path: Path, weights: Path | None, *, bare: bool, training: bool = True) -> Any:
    """There are none: Flax keeps a network's code and its arrays apart."""
    raise TriptychError("Flax has no files of whole networks")


class Port:
    """See `triptych.backend.contract.Port`."""

    pure = True

    def __init__(self, candidate: Any, layout: str | None, execution: Execution, outputs: int = 1) -> None:
        self.layout = layout or "NHWC"
        self.count = outputs
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("jax", execution.precision, DTYPES)
        self.candidate = candidate
        self.forgotten = False

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of their first use."""
        kind = next(start for type_, start in STARTS if isinstance(self.candidate, type_))
        self.started = kind(self.candidate, self._native(images))
        self.arrays = {name: jnp.asarray(value, self.dtype) for name, value in self.started.arrays.items()}
        if self.forgotten:
            self._let_go()
        inner = jax.make_jaxpr(partial(self._all_outputs, train=False))(self.arrays, self._native(images)).jaxpr
        self.returned = len(inner.outvars)
        variables = dict(zip(sorted(self.arrays), inner.invars, strict=False))  # as JAX flattens a dictionary
        used, needed = _uses(inner), _needed(inner, self.count)
        self.axes: dict[str, tuple[int, ...]] = {}
        known = {var: (name, _in_place(self.arrays[name])) for name, var in variables.items()}
        self.flipped = _find_axes(inner, known, self.axes)
        order = sorted(variables, key=lambda name: min(used.get(variables[name], [len(inner.eqns)])))
        return [
            PortParameter(
                name,
                self._canonical(name, self.arrays[name]).shape,
                _role(name.rpartition(".")[2]),
                variables[name] in needed or variables[name] not in used,
                tuple(used.get(variables[name], ())),
            )
            for name in order
        ]

    def _let_go(self) -> None:
        """Of the network's own values."""
        self.started = replace(self.started, arrays={})
        if isinstance(self.candidate, nnx.Module):
            for _, variable in nnx.to_flat_state(nnx.state(self.candidate, nnx.Param)):
                variable.set_value(np.broadcast_to(np.zeros((), variable.dtype), variable.shape))

    def _all_outputs(self, arrays: Arrays, x: jax.Array, train: bool) -> Outputs:
        """The network's outputs, in its order."""
        return tuple(jax.tree.leaves(_in_order(self.started.function(arrays, x, train=train)[0])))

    def _watched(self, arrays: Arrays, x: jax.Array, train: bool) -> tuple[Outputs, dict[str, jax.Array]]:
        """Those of them that are compared, and in training the running statistics."""
        output, statistics = self.started.function(arrays, x, train=train)
        return tuple(jax.tree.leaves(_in_order(output)))[: self.count], dict(statistics) if train else {}

    def _canonical(self, name: str, value: Any) -> Array:
        """A copy on the host in canonical axes: those by which the network uses it, else Flax's."""
        array = np.atleast_1d(np.array(value))
        if name not in self.axes:
            return FLAX.to_canonical(array)
        array = array.transpose(self.axes[name])
        return np.array(array[:, :, ::-1, ::-1] if name in self.flipped else array, order="C")

    def _from_canonical(self, name: str, value: Array) -> Array:
        value = value[:, :, ::-1, ::-1] if name in self.flipped else value
        return value.transpose(np.argsort(self.axes[name])) if name in self.axes else FLAX.from_canonical(value)

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        for name, value in values.items():
            native = jnp.asarray(self._from_canonical(name, value), self.dtype)
            self.arrays[name] = native if jnp.ndim(self.arrays[name]) else native.reshape(())  # a PReLU's one slope

    def values(self) -> dict[str, Array]:
        """As the network was given."""
        return {name: self._canonical(name, value) for name, value in self.started.arrays.items()}

    def imported(self, request: Request) -> Imported:
        """As `import_network` of the module with the parameters that are set."""
        return _imported(self.candidate, request, self.arrays)

    def forget(self) -> None:
        """A module of NNX keeps arrays of zeros, which take no memory."""
        self.forgotten = True

    def restore(self) -> None:
        """The values and modes that the network had."""
        self.started.restore()

    def call(self, images: Array) -> tuple[Array, ...]:
        """As a user calls it in evaluation."""
        output = _compiled(self._called, self.arrays)(self.arrays, self._native(images))
        return tuple(map(self._channels_first, output[: self.count]))

    def raised_in(self, error: BaseException) -> str:
        """The path of the module that the error went through last. What runs is a copy of the network, which the frames
        hold."""
        went = selves(error)
        network = next((one for one in reversed(went) if type(one) is type(self.candidate)), None)
        if not isinstance(network, nnx.Module):
            return ""
        paths = {id(node): ".".join(map(str, path)) for path, node in nnx.iter_graph(network)}
        return next((paths[id(one)] for one in went if id(one) in paths), "")

    def _called(self, arrays: Arrays, x: jax.Array) -> Outputs:
        """All outputs in the network's order, which a compiled function does not keep of a dictionary."""
        return tuple(jax.tree.leaves(_in_order(self.started.call(arrays, x))))

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """One pass; with `cotangents`, the gradient of every output that is compared, backward too."""
        x = self._native(images)
        traced = jax.make_jaxpr(partial(self._watched, train=train))(self.arrays, x)
        shapes = jax.eval_shape(partial(self._watched, train=train), self.arrays, x)
        kinds: list[str] = []

        def whole(arrays: Any, x: jax.Array, probes: list[jax.Array] | None) -> tuple[Any, list[jax.Array]]:
            watch = _Watch(len(images), probes)
            made = watch.run(traced.jaxpr, traced.consts, jax.tree.leaves((arrays, x)))
            kinds[:] = watch.kinds
            return jax.tree.unflatten(jax.tree.structure(shapes), made), watch.values

        (outputs, statistics), values = _compiled(partial(whole, probes=None), self.arrays)(self.arrays, x)
        captured = [
            Captured(
                "Dropout" if _is_mark(kind) else kind,
                self._channels_first(y),
                drawn=_drawn(kind),
            )
            for kind, y in zip(kinds, values, strict=True)
        ]
        run = PortRun(captured, tuple(map(self._channels_first, outputs)))
        run.statistics = {name: self._canonical(name, value) for name, value in statistics.items()}
        if cotangents:
            probes = [jnp.zeros_like(value) for value in values]
            del values, outputs, statistics  # the host has them
            dy = tuple(self._native(cotangent) for cotangent in cotangents[: len(run.outputs)])

            def backward(arrays: Any, x: jax.Array, probes: list[jax.Array]) -> Any:
                _, pull = jax.vjp(lambda *arguments: whole(*arguments)[0][0], arrays, x, probes)
                return pull(dy)

            compiled = _compiled(backward, self.arrays, donate=(0, 2))
            with self._given_away():
                gradients, dx, arrived = compiled(self.arrays, x, probes)
                run.gradients = Shelf((name, self._canonical(name, gradients.pop(name))) for name in list(gradients))
            run.input_gradient = self._channels_first(dx)
            for entry, gradient in zip(captured, arrived, strict=True):
                entry.gradient = self._channels_first(gradient)
            del compiled
            _let_programs_go()
        return run

    def train(self, images: Array, cotangents: Sequence[Array], rates: Sequence[Rates]) -> Mapping[str, Array]:
        """What steps of optax.sgd make of it."""
        x, optimizer = self._native(images), optax.sgd(rates[0].learning_rate, rates[0].momentum)
        kept = jax.eval_shape(partial(self.started.function, train=True), self.arrays, x)[1]

        def loss(trained: Any, arrays: Any) -> tuple[jax.Array, Any]:
            y, moved = self.started.function({**arrays, **trained}, x, train=True)
            outputs = jax.tree.leaves(_in_order(y))[: self.count]
            return sum((y * self._native(dy)).sum() for y, dy in zip(outputs, cotangents, strict=False)), moved

        def backward(arrays: Any) -> Any:
            trained = {name: value for name, value in arrays.items() if name not in kept}
            return jax.grad(loss, has_aux=True)(trained, arrays)

        compiled, states = _compiled(backward, self.arrays, donate=(0,)), Shelf()
        for _ in rates:
            with self._given_away():
                gradients, moved = compiled(self.arrays)
            self.arrays |= moved
            for name in list(gradients):
                value = self.arrays[name]
                state = optimizer.init(value)
                if name in states:
                    state = jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(states[name])])
                moves, state = optimizer.update(gradients.pop(name), state, value)
                self.arrays[name] = optax.apply_updates(value, moves)
                (states[name],) = map(np.array, jax.tree.leaves(state))
        return Shelf((name, self._canonical(name, value)) for name, value in self.arrays.items())

    @contextmanager
    def _given_away(self) -> Iterator[None]:
        """The arrays are given away in here, so that gradients can take their place; afterwards they are there again,
        of which the large ones lay on the disk."""
        stored = Shelf((name, np.array(value)) for name, value in self.arrays.items())
        self.arrays = {name: jnp.asarray(stored[name]) for name in stored}  # they may be the network's own
        try:
            yield
        finally:
            self.arrays = {name: jnp.asarray(stored[name]) for name in stored}

    def optimize(self, optimizer: Any, gradients: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """What each step of an optax.GradientTransformation makes of it."""
        tree = self.started.trained(self.arrays)
        places = self.started.trained({name: np.asarray(place) for place, name in enumerate(self.arrays)})
        names = [list(self.arrays)[int(place)] for place in jax.tree.leaves(places)]
        transformation = _made(optimizer, self.candidate, tree)
        state = transformation.init(tree)
        for given in gradients:
            zeros = [jnp.zeros_like(value) for value in jax.tree.leaves(tree)]
            leaves = [
                jnp.asarray(self._from_canonical(name, given[name]), zero.dtype).reshape(zero.shape)
                if name in given
                else zero
                for name, zero in zip(names, zeros, strict=True)
            ]
            moves, state = transformation.update(jax.tree.unflatten(jax.tree.structure(tree), leaves), state, tree)
            tree = optax.apply_updates(tree, moves)
            self.arrays |= dict(zip(names, jax.tree.leaves(tree), strict=True))
            yield {name: self._canonical(name, value) for name, value in self.arrays.items()}

    def loss(self, loss: Any, outputs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
        """A loss function's value and gradient."""
        y = jnp.asarray(outputs, self.dtype)
        value, gradient = jax.value_and_grad(lambda y: loss(y, jnp.asarray(labels)).mean())(y)
        return np.array(value), np.array(gradient)

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
            if inside is not None and name not in KINDS and not _is_mark(name):
                outputs = self.run(inside.jaxpr, inside.consts, inputs)
            else:
                outputs = _bind(eqn, inputs)
                outputs = list(outputs) if eqn.primitive.multiple_results else [outputs]
                if len(outputs) == 1:
                    takers = (later for later in jaxpr.eqns[number + 1 :] if eqn.outvars[0] in later.invars)
                    taker = next(takers, None)
                    following = "" if taker is None or _is_a_sum(taker, jaxpr) else taker.primitive.name
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


def _is_a_sum(eqn: Any, jaxpr: Jaxpr) -> bool:
    """Whether it adds two maps: a bias is a vector, which is spread before it is added."""
    if eqn.primitive.name != "add":
        return False
    spread = {e.outvars[0]: e.invars[0] for e in jaxpr.eqns if e.primitive.name in ("broadcast_in_dim", "reshape")}
    given = [spread.get(var, var) for var in eqn.invars if not isinstance(var, Literal)]
    return len(given) == 2 and all(var.aval.size > eqn.outvars[0].aval.shape[-1] for var in given)


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
    return "ConvTranspose" if spread else name if _is_mark(name) else KINDS.get(name, "")


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


def _uses(jaxpr: Jaxpr) -> dict[Any, list[int]]:
    """Which of the operations take a variable."""
    used: dict[Any, list[int]] = {}
    for place, eqn in enumerate(jaxpr.eqns):
        for var in eqn.invars:
            if not isinstance(var, Literal):
                used.setdefault(var, []).append(place)
    return used


def _in_place(array: Any) -> tuple[int, ...]:
    return tuple(range(jnp.ndim(array)))


def _find_axes(
    jaxpr: Jaxpr, known: dict[Any, tuple[str, tuple[int, ...]]], found: dict[str, tuple[int, ...]]
) -> set[str]:
    """The axes by which convolutions and products use the parameters `known`, by name; canonical axes come of them.
    `known`: the variables that are a parameter, with the order in which they have its axes. Returns the names of the
    kernels that a transposed convolution takes as they are (transpose_kernel=False), flipped beside canonical ones."""
    flipped: set[str] = set()

    def of(var: Any) -> tuple[str, tuple[int, ...]] | None:
        return None if isinstance(var, Literal) else known.get(var)

    for eqn in jaxpr.eqns:
        primitive, inside = eqn.primitive.name, _named(eqn)[1]
        first = of(eqn.invars[0]) if eqn.invars else None
        if primitive == "transpose" and first:
            known[eqn.outvars[0]] = (first[0], tuple(first[1][axis] for axis in eqn.params["permutation"]))
        elif primitive in HANDED_ON and first:
            known[eqn.outvars[0]] = first
        elif primitive == "conv_general_dilated" and (kernel := of(eqn.invars[1])):
            out, taken, *place = (kernel[1][axis] for axis in eqn.params["dimension_numbers"].rhs_spec)
            if spread := set(eqn.params["lhs_dilation"]) != {1}:
                flipped.add(kernel[0])
            found[kernel[0]] = (taken, out, *place) if spread else (out, taken, *place)
        elif primitive == "dot_general":
            contracted, _ = eqn.params["dimension_numbers"]
            for var, axes in zip(eqn.invars, contracted, strict=True):
                if (matrix := of(var)) and len(matrix[1]) == 2 and len(axes) == 1:
                    found[matrix[0]] = (matrix[1][1 - axes[0]], matrix[1][axes[0]])
        elif inside is not None:
            inner = {i: given for i, o in zip(inside.jaxpr.invars, eqn.invars, strict=False) if (given := of(o))}
            flipped |= _find_axes(inside.jaxpr, inner, found)
            outputs = zip(inside.jaxpr.outvars, eqn.outvars, strict=False)
            known |= {o: inner[i] for i, o in outputs if not isinstance(i, Literal) and i in inner}
    return flipped


def _needed(jaxpr: Jaxpr, count: int) -> set[Any]:
    """The variables that the first `count` outputs depend on."""
    needed = {var for var in jaxpr.outvars[:count] if not isinstance(var, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            needed |= {var for var in eqn.invars if not isinstance(var, Literal)}
    return needed


def _start_nnx(module: nnx.Module, x: jax.Array) -> _Started:
    flat = dict(nnx.to_flat_state(nnx.state(module)))
    kept = [path for path, variable in flat.items() if isinstance(variable, nnx.Param | nnx.BatchStat)]
    state = {".".join(map(str, path)): path for path in kept}
    others = {path: variable for path, variable in flat.items() if path not in state.values()}
    modes = [(node, _modes_of(node)) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Module)]
    switches = _switches_of(type(module).__call__)
    definitions = {}
    for mode in (True, False):  # not while JAX traces: dropout and batch norms refuse to be switched there
        module.train() if mode else module.eval()
        definitions[mode] = nnx.graphdef(module)

    def filled(arrays: Arrays) -> nnx.State:
        made = {path: type(flat[path])(arrays[name]) for name, path in state.items()}  # new ones can be set
        return nnx.from_flat_state({**others, **made})

    def function(arrays: Arrays, x: jax.Array, train: bool) -> tuple[Any, Arrays]:
        network = nnx.merge(definitions[train], filled(arrays))
        with _nnx_dropouts(train):
            y = network(x, **switches(train))
        after = dict(nnx.to_flat_state(nnx.state(network, nnx.BatchStat)))
        return y, {name: after[path][...] for name, path in state.items() if path in after}

    def call(arrays: Arrays, x: jax.Array) -> Any:
        return nnx.merge(definitions[False], filled(arrays))(x, **switches(False))

    def restore() -> None:
        for node, mode in modes:
            vars(node).update(mode)

    def trained(arrays: Arrays) -> nnx.State:
        wanted = {name: path for name, path in state.items() if isinstance(flat[path], nnx.Param)}
        return nnx.from_flat_state({path: nnx.Param(jnp.asarray(arrays[name])) for name, path in wanted.items()})

    return _Started(function, {name: flat[path][...] for name, path in state.items()}, call, trained, restore)


def _modes_of(node: nnx.Module) -> dict[str, Any]:
    """The switches that `train` and `eval` set."""
    return {name: value for name, value in vars(node).items() if name in SWITCHES}


@contextmanager
def _nnx_dropouts(train: bool) -> Iterator[None]:
    """Every `nnx.Dropout` is marked in here; in training it is off, in evaluation the network's fault."""
    original = nnx.Dropout.__call__

    def marked(self: Any, inputs: jax.Array, *arguments: Any, **keywords: Any) -> Any:
        given = keywords.get("deterministic")
        active = not (self.deterministic if given is None else given)
        x = inputs if train or not active else original(self, inputs, *arguments, **keywords)
        return _mark(x, float(self.rate), _shared(self.broadcast_dims, x), active)

    nnx.Dropout.__call__ = marked
    try:
        yield
    finally:
        nnx.Dropout.__call__ = original


def _shared(axes: Sequence[int], x: jax.Array) -> str:
    """The axes along which a dropout has one mask for all, as letters."""
    letters = {2: "NC", 3: "NWC", 4: "NHWC"}.get(x.ndim, "N" * x.ndim)
    return "".join(letters[axis] for axis in axes)


def _mark(x: jax.Array, rate: float, shared: str, active: bool) -> jax.Array:
    """The same, through a function that is called as what a dropout draws."""

    def dropout(x: jax.Array) -> jax.Array:
        return x

    dropout.__name__ = f"{DROPOUT}{rate} {shared or '-'} {int(active)}"
    return jax.jit(dropout)(x)


def _is_mark(name: str) -> bool:
    return name.startswith(DROPOUT)


def _drawn(name: str) -> Drawn | None:
    """What a mark says."""
    if not _is_mark(name):
        return None
    rate, shared, active = name.removeprefix(DROPOUT).split()
    return Drawn(float(rate), dropout_kind(shared.strip("-")), bool(int(active)))


def _start_linen(module: linen.Module, x: jax.Array, variables: Any = None) -> _Started:
    switches = _switches_of(type(module).__call__)
    variables = _initial(module, x) if variables is None else variables
    arrays, fill = _taken_apart(variables)

    def function(arrays: Arrays, x: jax.Array, train: bool) -> tuple[Any, Arrays]:
        filled = fill(arrays)
        mutable = [name for name in filled if name != "params"] if train else False
        with _linen_dropouts(train):
            y = module.apply(filled, x, mutable=mutable, **switches(train))
        if not train:
            return y, {}
        after, _ = _taken_apart(y[1])
        return y[0], {name: value for name, value in after.items() if name in arrays}

    def call(arrays: Arrays, x: jax.Array) -> Any:
        return module.apply(fill(arrays), x, **switches(False))

    return _Started(function, arrays, call, lambda arrays: fill(arrays)["params"])


def _initial(module: linen.Module, x: jax.Array) -> Any:
    """The variables with which a module begins."""
    with _linen_dropouts(train=True):
        return module.init(jax.random.key(0), x, **_switches_of(type(module).__call__)(False))


@contextmanager
def _linen_dropouts(train: bool) -> Iterator[None]:
    """As `_nnx_dropouts`."""

    def marked(following: Callable[..., Any], arguments: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        if not isinstance(module, linen.Dropout) or context.method_name != "__call__":
            return following(*arguments, **keywords)
        given = keywords.get("deterministic", arguments[1] if len(arguments) > 1 else None)
        active = not (module.deterministic if given is None else given)
        x = arguments[0] if train or not active else following(*arguments, **keywords)
        return _mark(x, float(module.rate), _shared(module.broadcast_dims, x), active)

    with linen.intercept_methods(marked):
        yield


def _start_function(pair: tuple[Callable[..., Any], Any], x: jax.Array) -> _Started:
    network, parameters = pair
    module = network if isinstance(network, linen.Module) else getattr(network, "__self__", None)
    if isinstance(module, linen.Module) and network in (module, module.apply):
        return _start_linen(module, x, _variables(parameters))
    arrays, fill = _taken_apart(parameters)
    switches = _switches_of(network)

    def call(arrays: Arrays, x: jax.Array) -> Any:
        return network(fill(arrays), x, **switches(False))

    return _Started(lambda arrays, x, train: (network(fill(arrays), x, **switches(train)), {}), arrays, call, fill)


def _variables(tree: Any) -> Any:
    """Those of a Linen module; of its parameters alone, too, as a TrainState has them."""
    alone = isinstance(tree, Mapping) and tree and not {"params", "batch_stats"} & set(tree)
    return {"params": tree} if alone else tree


def _made(optimizer: Any, network: Any, tree: Any) -> Any:
    """The transformation, or what somebody's function makes of a network, or of its parameters. Raises TriptychError
    for what is none."""
    made = optimizer
    if callable(optimizer):
        try:
            made = optimizer(network)
        except (TypeError, AttributeError, ValueError):
            made = optimizer(tree)
    made = made.tx if isinstance(made, nnx.Optimizer) else made
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise TriptychError(f"a {type(made).__name__} is no optax.GradientTransformation, nor an nnx.Optimizer")
    return made


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
