"""A traced function, primitive by primitive: what each is by the spec's records, and the axes of its arrays."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from triptych.backend.contract import Drawn, dropout_kind
from triptych.importers.jax_program import DROPOUT, HANDED_ON

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
COMPLETED = {
    "Conv": "add",
    "ConvTranspose": "add",
    "Dense": "add",
    "AvgPool": "div",
    "GlobalAvgPool": "div",
}  # by which primitive


class Watch:
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
            if inside is not None and name not in KINDS and not is_mark(name):
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


def _kind(name: str, eqn: Any) -> str:
    spread = name == "conv_general_dilated" and set(eqn.params["lhs_dilation"]) != {1}
    return "ConvTranspose" if spread else name if is_mark(name) else KINDS.get(name, "")


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


def uses(jaxpr: Jaxpr) -> dict[Any, list[int]]:
    """Which of the operations take a variable."""
    used: dict[Any, list[int]] = {}
    for place, eqn in enumerate(jaxpr.eqns):
        for var in eqn.invars:
            if not isinstance(var, Literal):
                used.setdefault(var, []).append(place)
    return used


def in_place(array: Any) -> tuple[int, ...]:
    """The axes of an array in their own order."""
    return tuple(range(jnp.ndim(array)))


def find_axes(
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
            flipped |= find_axes(inside.jaxpr, inner, found)
            outputs = zip(inside.jaxpr.outvars, eqn.outvars, strict=False)
            known |= {o: inner[i] for i, o in outputs if not isinstance(i, Literal) and i in inner}
    return flipped


def needed_by(jaxpr: Jaxpr, places: Sequence[int]) -> set[Any]:
    """The variables that the outputs at these places depend on."""
    chosen = [var for place, var in enumerate(jaxpr.outvars) if place in places]
    needed = {var for var in chosen if not isinstance(var, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            needed |= {var for var in eqn.invars if not isinstance(var, Literal)}
    return needed


def is_mark(name: str) -> bool:
    """Whether a function of this name stands for a dropout that was called (`triptych_jax.starts`)."""
    return name.startswith(DROPOUT)


def drawn_by(name: str) -> Drawn | None:
    """What a mark says."""
    if not is_mark(name):
        return None
    rate, shared, active = name.removeprefix(DROPOUT).split()
    return Drawn(float(rate), dropout_kind(shared.strip("-")), bool(int(active)))
