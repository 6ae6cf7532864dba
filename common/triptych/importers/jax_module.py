"""Flax modules as programs: dropouts and batch norms are marked while JAX traces, for what they do in training."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from triptych.importers.jax_program import BATCH_NORM, PARTS, JaxProgram, read

IMAGES = 2  # of the example: one would be taken for another axis of one


@contextmanager
def _batch_norms(nnx: Any, linen: Any, jax: Any) -> Iterator[None]:
    """Every BatchNorm of Flax is marked in here, in training too, where it does nothing else."""
    original = nnx.BatchNorm.__call__

    def marked(self: Any, x: Any, use_running_average: Any = None, *, mask: Any = None) -> Any:
        frozen = self.use_running_average if use_running_average is None else use_running_average
        if mask is not None or frozen is None or not isinstance(self.axis, int):
            return original(self, x, use_running_average, mask=mask)
        arrays = {"running_mean": self.mean, "running_var": self.var, "weight": self.scale, "bias": self.bias}
        return _mark(jax, self, x, frozen, {key: value[...] for key, value in arrays.items() if value is not None})

    def intercepted(following: Callable[..., Any], arguments: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        if not isinstance(module, linen.BatchNorm) or context.method_name != "__call__":
            return following(*arguments, **keywords)
        given = [*arguments[1:], keywords.get("use_running_average")][0]
        frozen = module.use_running_average if given is None else given
        if keywords.get("mask") is not None or frozen is None or not isinstance(module.axis, int):
            return following(*arguments, **keywords)
        found = {key: module.get_variable(*place) for key, place in _LINEN.items() if module.has_variable(*place)}
        x = arguments[0] if arguments else keywords["x"]
        return _mark(jax, module, x, frozen, found)

    others = {kind: kind.__call__ for name in PARTS if (kind := getattr(nnx, name, None))}
    nnx.BatchNorm.__call__ = marked
    for kind, call in others.items():
        kind.__call__ = _called(jax, kind.__name__, call)
    try:
        with linen.intercept_methods(intercepted):
            yield
    finally:
        nnx.BatchNorm.__call__ = original
        for kind, call in others.items():
            kind.__call__ = call


def _called(jax: Any, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a module through a function of its name, for the line that refuses what is in it."""

    def marked(self: Any, *arguments: Any, **keywords: Any) -> Any:
        def part(arguments: Any) -> Any:
            return call(self, *arguments, **keywords)

        part.__name__ = name
        return jax.jit(part)(arguments)

    return marked


_LINEN = {
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
}


def _mark(jax: Any, norm: Any, x: Any, frozen: bool, arrays: Mapping[str, Any]) -> Any:
    """`x` itself, through a function that is called as what the layer is."""

    def marked(x: Any, *_: Any) -> Any:
        return x

    axis = norm.axis % x.ndim
    marked.__name__ = f"{BATCH_NORM}{axis} {norm.epsilon} {norm.momentum} 0 {int(frozen)} {','.join(arrays)}"
    return jax.jit(marked)(x, *arrays.values())


def program(function: Callable[..., Any], arrays: Mapping[str, Any], x: Any) -> JaxProgram:
    """What `function(arrays, x)` runs, which gives outputs, and new values of statistics by their names."""
    import jax  # noqa: TID251
    from flax import linen, nnx  # noqa: TID251

    keys: list[str] = []
    statistics: list[str] = []

    def flat(arrays: Mapping[str, Any], x: Any) -> Any:
        y, moved = function(arrays, x)
        keys[:], statistics[:] = _keys(y), moved
        return jax.tree.leaves(list(y.values()) if isinstance(y, Mapping) else y), list(moved.values())

    with _batch_norms(nnx, linen, jax):
        traced = jax.make_jaxpr(flat)(dict(arrays), x)
    number = len(traced.jaxpr.outvars) - len(statistics)
    return read(traced, arrays, keys if len(keys) == number else [""] * number, statistics)


def _keys(y: Any) -> list[str]:
    return [str(key) for key in y] if isinstance(y, Mapping) else []
