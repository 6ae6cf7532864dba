"""Somebody's network of NNX, of Linen or of plain functions, as one function of its arrays and images."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen, nnx

from triptych.importers.jax_program import DROPOUT

Outputs: TypeAlias = tuple[jax.Array, ...]
Arrays: TypeAlias = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Started:
    """A network as a function of arrays by name, images and train, which gives its output and the running statistics
    after it by name; those arrays; a call in evaluation as a user makes it, and how to undo what that leaves; and what
    an optimiser is given of the arrays: a tree of them as the network has it."""

    function: Callable[..., tuple[Any, Arrays]]
    arrays: dict[str, Any]
    call: Callable[[Arrays, jax.Array], Any]
    trained: Callable[[Arrays], Any]
    restore: Callable[[], None] = lambda: None


SWITCHES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}


def _start_nnx(module: nnx.Module, x: jax.Array) -> Started:
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

    return Started(function, {name: flat[path][...] for name, path in state.items()}, call, trained, restore)


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


def _start_linen(module: linen.Module, x: jax.Array, variables: Any = None) -> Started:
    switches = _switches_of(type(module).__call__)
    variables = initial(module, x) if variables is None else variables
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

    return Started(function, arrays, call, lambda arrays: fill(arrays)["params"])


def initial(module: linen.Module, x: jax.Array) -> Any:
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


def start_function(pair: tuple[Callable[..., Any], Any], x: jax.Array) -> Started:
    """Of a pair of a function, or a Linen module, or its `apply`, and its parameters."""
    network, parameters = pair
    module = network if isinstance(network, linen.Module) else getattr(network, "__self__", None)
    if isinstance(module, linen.Module) and network in (module, module.apply):
        return _start_linen(module, x, _variables(parameters))
    arrays, fill = _taken_apart(parameters)
    switches = _switches_of(network)

    def call(arrays: Arrays, x: jax.Array) -> Any:
        return network(fill(arrays), x, **switches(False))

    return Started(lambda arrays, x, train: (network(fill(arrays), x, **switches(train)), {}), arrays, call, fill)


def _variables(tree: Any) -> Any:
    """Those of a Linen module; of its parameters alone, too, as a TrainState has them."""
    alone = isinstance(tree, Mapping) and tree and not {"params", "batch_stats"} & set(tree)
    return {"params": tree} if alone else tree


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


STARTS = ((nnx.Module, _start_nnx), (linen.Module, _start_linen), (tuple, start_function))
