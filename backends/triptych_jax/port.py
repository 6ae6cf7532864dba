"""Somebody's own Flax module (NNX or Linen) or JAX function, taken apart into its primitives."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from numpy.typing import NDArray

from triptych.backend.contract import Captured, PortParameter, PortRun
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import jax_module, jax_network
from triptych.importers.jax_program import JaxProgram
from triptych.importers.steps import Imported, ImportRefusedError, Request
from triptych.optim.optimizers import Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.utils.frames import selves
from triptych.utils.process import memory_is_short, return_large_memory
from triptych.utils.shelf import Shelf
from triptych.weights.layouts import FLAX
from triptych_jax.device import DTYPES
from triptych_jax.jaxpr import Watch, drawn_by, find_axes, in_place, is_mark, needed_by, uses
from triptych_jax.precision import apply_execution
from triptych_jax.starts import STARTS, Arrays, Outputs, initial, start_function

SIZES, CHANNELS = (224, 299, 32, 28), (3, 1)  # of images, where nothing says it
OPENS: tuple[str, ...] = ()
FILES_TRAIN = False
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
        except ImportRefusedError:  # of no input would it be another
            raise
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
        shapes = jax.eval_shape(partial(initial, candidate), x)
        start, candidate = start_function, (candidate, jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes))
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
        self.places: Sequence[int] = range(outputs)
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
        self.shapes = [self._canonical_shape(var.aval.shape) for var in inner.outvars]
        variables = dict(zip(sorted(self.arrays), inner.invars, strict=False))  # as JAX flattens a dictionary
        used, needed = uses(inner), needed_by(inner, self.places)
        self.axes: dict[str, tuple[int, ...]] = {}
        known = {var: (name, in_place(self.arrays[name])) for name, var in variables.items()}
        self.flipped = find_axes(inner, known, self.axes)
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
        return self._compared(output), dict(statistics) if train else {}

    def _compared(self, output: Any) -> Outputs:
        """The outputs that were chosen."""
        return tuple(self._chosen(jax.tree.leaves(_in_order(output))))

    def choose(self, places: Sequence[int]) -> None:
        """Of its outputs."""
        self.places = places

    def _chosen(self, outputs: Sequence[Any]) -> list[Any]:
        """Those of all outputs that are compared."""
        return [outputs[place] for place in self.places if place < len(outputs)]

    def _canonical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        n, *rest = shape or (0,)
        return (n, rest[2], *rest[:2]) if self.layout == "NHWC" and len(rest) == 3 else (n, *rest)

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
        return tuple(map(self._channels_first, self._chosen(output)))

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
            watch = Watch(len(images), probes)
            made = watch.run(traced.jaxpr, traced.consts, jax.tree.leaves((arrays, x)))
            kinds[:] = watch.kinds
            return jax.tree.unflatten(jax.tree.structure(shapes), made), watch.values

        (outputs, statistics), values = _compiled(partial(whole, probes=None), self.arrays)(self.arrays, x)
        captured = [
            Captured(
                "Dropout" if is_mark(kind) else kind,
                self._channels_first(y),
                drawn=drawn_by(kind),
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
            pairs = zip(self._compared(y), cotangents, strict=False)
            return sum((y * self._native(dy)).sum() for y, dy in pairs), moved

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
        del compiled
        _let_programs_go()
        return Shelf((name, self._canonical(name, value)) for name, value in self.arrays.items())

    @contextmanager
    def _given_away(self) -> Iterator[None]:
        """The arrays are given away in here, so that gradients can take their place; afterwards they are there again,
        of which the large ones lay on the disk."""
        stored = Shelf((name, np.array(value)) for name, value in self.arrays.items())
        self._take(stored)  # they may be the network's own
        try:
            yield
        finally:
            self._take(stored)

    def _take(self, stored: Mapping[str, Array]) -> None:
        """These in place of the arrays, one after the other: never are all there twice."""
        for name in stored:
            self.arrays[name] = jnp.asarray(stored[name])

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


def _role(name: str) -> str:
    return "slope" if name == FLAX.names["slope"] else FLAX.canonical_name(name)


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


def _in_order(output: Any) -> Any:
    """The outputs as lists: JAX takes a dictionary's by their names, not in its order."""
    if isinstance(output, Mapping):
        return [_in_order(value) for value in output.values()]
    return [_in_order(value) for value in output] if isinstance(output, list | tuple) else output
