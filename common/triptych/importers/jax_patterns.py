"""Several primitives of JAX that are one layer of the spec: softmax, activations, normalisation of the channels."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from triptych.importers import formulas
from triptych.importers.jax_numbers import VIEWED
from triptych.importers.jax_program import HANDED_ON, Constant, JaxCall, JaxProgram
from triptych.spec.layers import Layer

_WIDENED = ("broadcast_in_dim", "reshape", "expand_dims", *HANDED_ON)


@dataclass(frozen=True, eq=False)
class _Graph:
    makers: Mapping[str, JaxCall]
    uses: Mapping[str, int]
    constant: frozenset[str]
    constants: Mapping[str, Constant]

    def of(self, value: str, *primitives: str) -> JaxCall | None:
        """The call that gives `value`, if it is one of these primitives."""
        call = self.makers.get(self.behind(value, HANDED_ON))
        return call if call is not None and call.primitive in primitives else None

    def behind(self, value: str, primitives: tuple[str, ...] = _WIDENED) -> str:
        """What `value` is the same as, or a view of."""
        while (call := self.makers.get(value)) is not None and call.primitive in primitives:
            value = call.inputs[0]
        return value

    def same(self, left: str, right: str) -> bool:
        return self.behind(left, HANDED_ON) == self.behind(right, HANDED_ON)

    def is_number(self, value: str, number: float) -> bool:
        """Whether it is this number, and no parameter."""
        constant = self.constants.get(self.behind(value))
        return constant is not None and not constant.sources and bool(np.all(np.asarray(constant.value) == number))

    def number(self, value: str) -> str | float:
        """The number that all of a constant is, or the value's name."""
        constant = self.constants.get(self.behind(value))
        if constant is None or constant.sources or np.unique(np.asarray(constant.value)).size != 1:
            return value
        return float(np.asarray(constant.value).flat[0])

    def apart(self, call: JaxCall) -> tuple[str, str] | None:
        """A constant and a value that is none, in that order, of a call of two."""
        left, right = call.inputs
        if (left in self.constant) == (right in self.constant):
            return None
        return (left, right) if left in self.constant else (right, left)


Match = tuple[str, tuple[str, ...], Mapping[str, object]] | None


def recognised(program: JaxProgram) -> JaxProgram:
    """The program with each pattern as one call in the place of its last; what is in it may be no longer needed."""
    makers = {output: call for call in program.calls for output in call.outputs}
    uses = Counter(name for call in program.calls for name in call.inputs)
    graph = _Graph(makers, uses, frozenset(_constant(program)), program.constants)
    terms = {call.outputs[0]: term for call in program.calls if (term := _term(call, graph))}
    activations = formulas.activations(terms)
    calls = []
    for call in program.calls:
        found = (match for pattern in PATTERNS.get(call.primitive, ()) if (match := pattern(call, graph)))
        unchanged = call.primitive, call.inputs, call.params
        name, inputs, params = next(found, None) or _activation(call, activations) or unchanged
        calls.append(replace(call, primitive=name, inputs=inputs, params=params))
    return replace(program, calls=tuple(calls))


def _term(call: JaxCall, graph: _Graph) -> formulas.Term | None:
    """A primitive on each number by itself; a constant of equal values counts as a number."""
    if call.primitive in HANDED_ON:
        changes = call.primitive == "stop_gradient" or "float" not in str(call.params.get("new_dtype", "float"))
        return formulas.as_it_is(call.inputs[0]) if len(call.inputs) == 1 and not changes else None
    inputs = tuple(graph.number(name) for name in call.inputs)
    if call.primitive == "integer_pow":
        return formulas.Term(np.power, (*inputs, float(call.params["y"])))
    if call.primitive == "select_n" and len(inputs) == 3:
        return formulas.Term(formulas.chosen, (inputs[0], inputs[2], inputs[1]))
    return formulas.term(call.primitive, inputs)


def _activation(call: JaxCall, found: Mapping[str, tuple[Layer, str]]) -> Match:
    """Written out in elementary functions, as JAX does with most of its own."""
    if len(call.outputs) != 1 or call.outputs[0] not in found:
        return None
    layer, source = found[call.outputs[0]]
    return "activation", (source,), {"layer": layer}


def _constant(program: JaxProgram) -> set[str]:
    constant = set(program.constants)
    for call in program.calls:
        if all(name in constant for name in call.inputs):
            constant.update(call.outputs)
    return constant


def _in_place(name: str, total: JaxCall, shape: tuple[int, ...], graph: _Graph) -> bool:
    """Whether the value of that name, put to values of `shape`, has each number of `total` where it was taken from, not
    along another axis of the same length."""
    chain: list[JaxCall] = []
    while name != total.outputs[0]:
        call = graph.makers[name]
        chain.append(call)
        parts = graph.apart(call) if len(call.inputs) == 2 else None
        name = parts[1] if parts else call.inputs[0]
    numbers = np.arange(np.prod(total.shape, dtype=int)).reshape(total.shape)
    expected = np.broadcast_to(np.expand_dims(numbers, tuple(total.params["axes"])), shape)
    for call in reversed(chain):
        view = VIEWED.get(call.primitive)
        numbers = numbers if view is None else view(numbers, call.params)
    try:
        return bool(np.array_equal(np.broadcast_to(numbers, shape), expected))
    except ValueError:  # the numbers are of another shape, so that they are not what is put to these values
        return False


def _softmax(call: JaxCall, graph: _Graph) -> Match:
    """exp(x - max) / sum(exp(x - max))."""
    exponential = graph.of(call.inputs[0], "exp")
    total = graph.of(graph.behind(call.inputs[1]), "reduce_sum")
    if exponential is None or total is None or graph.of(total.inputs[0], "exp") is not exponential:
        return None
    if not _in_place(call.inputs[1], total, call.shape, graph):
        return None
    return _shifted("softmax", exponential.inputs[0], total, graph)


def _log_softmax(call: JaxCall, graph: _Graph) -> Match:
    """(x - max) - log(sum(exp(x - max)))."""
    logarithm = graph.of(graph.behind(call.inputs[1]), "log")
    total = logarithm and graph.of(graph.behind(logarithm.inputs[0]), "reduce_sum")
    exponential = total and graph.of(total.inputs[0], "exp")
    if not total or not exponential or not graph.same(exponential.inputs[0], call.inputs[0]):
        return None
    if not _in_place(call.inputs[1], total, call.shape, graph):
        return None
    return _shifted("log_softmax", call.inputs[0], total, graph)


def _shifted(name: str, difference: str, total: JaxCall, graph: _Graph) -> Match:
    shifted = graph.of(difference, "sub")
    largest = shifted and graph.behind(shifted.inputs[1])
    bounded = largest and graph.of(largest, "max")  # by minus infinity
    if bounded:
        parts = graph.apart(bounded)
        largest = graph.behind(parts[1]) if parts else largest
    maximum = largest and graph.of(largest, "reduce_max")
    if not shifted or not maximum or not graph.same(maximum.inputs[0], shifted.inputs[0]):
        return None
    axes = tuple(total.params["axes"])
    fits = tuple(maximum.params["axes"]) == axes and _in_place(shifted.inputs[1], maximum, shifted.shape, graph)
    return (name, (shifted.inputs[0],), {"axes": axes}) if fits else None


def _silu(call: JaxCall, graph: _Graph) -> Match:
    for x, gate in (call.inputs, call.inputs[::-1]):
        sigmoid = graph.of(gate, "logistic")
        if sigmoid and graph.same(sigmoid.inputs[0], x):
            return "silu", (x,), {}
    return None


def _leaky(call: JaxCall, graph: _Graph) -> Match:
    """select(x > 0, slope * x, x): the first is what is taken where it is false."""
    found = _compared(call, graph)
    if found is None:
        return None
    compared, low, high = found
    scaled = graph.of(low, "mul")
    parts = scaled and graph.apart(scaled)
    if not parts or not graph.same(parts[1], high) or not graph.same(compared.inputs[0], high):
        return None
    return "leaky", (high, parts[0], compared.inputs[1]), {}


def _compared(call: JaxCall, graph: _Graph) -> tuple[JaxCall, str, str] | None:
    """The comparison with a constant, and what is taken below and above of it."""
    compared = graph.of(call.inputs[0], "gt", "ge", "lt", "le") if len(call.inputs) == 3 else None
    if compared is None or compared.inputs[1] not in graph.constant:
        return None
    low, high = call.inputs[1:] if compared.primitive in ("gt", "ge") else call.inputs[:0:-1]
    return compared, low, high


def _clip(call: JaxCall, graph: _Graph) -> Match:
    """min(high, max(low, x))."""
    outer = graph.apart(call)
    inner = outer and graph.of(outer[1], "max")
    parts = inner and graph.apart(inner)
    if not outer or not inner or not parts or graph.uses[inner.outputs[0]] != 1:
        return None
    return "clamp", (parts[0], parts[1], outer[0]), {}


def _one_sided(call: JaxCall, graph: _Graph) -> Match:
    """ReLU as select(x > 0, x, 0)."""
    found = _compared(call, graph)
    if found is None:
        return None
    compared, low, high = found
    zeros = [graph.behind(name) for name in (low, compared.inputs[1])]
    same = graph.same(compared.inputs[0], high)
    return ("max", (high, low), {}) if same and all(graph.is_number(zero, 0) for zero in zeros) else None


def _sigmoid(call: JaxCall, graph: _Graph) -> Match:
    """1 / (1 + exp(-x)), and x / (1 + exp(-x))."""
    total = graph.of(call.inputs[1], "add")
    parts = total and graph.apart(total)
    exponential = parts and graph.of(parts[1], "exp")
    minus = exponential and graph.of(exponential.inputs[0], "neg")
    if not parts or not minus or not graph.is_number(parts[0], 1):
        return None
    x = minus.inputs[0]
    if graph.is_number(call.inputs[0], 1):
        return "logistic", (x,), {}
    return ("silu", (x,), {}) if graph.same(call.inputs[0], x) else None


def _normalize(call: JaxCall, graph: _Graph) -> Match:
    """x over the root of the sum of its squares along one axis, with eps below the root, as a bound, or without."""
    x, divisor = call.inputs
    factor = divisor
    if call.primitive == "mul":
        x, factor = next((p for p in (call.inputs, call.inputs[::-1]) if graph.of(graph.behind(p[1]), "rsqrt")), (x, x))
        bound, root = "", graph.of(graph.behind(factor), "rsqrt")
    else:
        bounded = graph.of(graph.behind(divisor), "max")
        parts = bounded and graph.apart(bounded)
        bound, divisor = parts or ("", divisor)
        root = graph.of(graph.behind(divisor), "sqrt")
    added = root and graph.of(graph.behind(root.inputs[0]), "add")
    parts = added and graph.apart(added)
    under, total = parts or ("", root.inputs[0] if root else "")
    squares = graph.of(graph.behind(total), "reduce_sum")
    if not root or not squares or (bound and under) or not _square_of(squares.inputs[0], x, graph):
        return None
    if not _in_place(factor, squares, call.shape, graph):
        return None
    params = {"axes": tuple(squares.params["axes"]), "bound": not under}
    return "l2 normalize", (x, *(name for name in (bound or under,) if name)), params


def _square_of(name: str, x: str, graph: _Graph) -> bool:
    square = graph.of(name, "square", "integer_pow", "mul")
    return square is not None and square.params.get("y", 2) == 2 and all(graph.same(n, x) for n in square.inputs)


def _response_norm(call: JaxCall, graph: _Graph) -> Match:
    """x / (k + alpha * sum of squares over the channels around) ^ beta, or times its power of -beta."""
    for x, factor in (call.inputs, call.inputs[::-1])[: 1 + (call.primitive == "mul")]:
        power = graph.of(factor, "pow")
        total = power and graph.of(power.inputs[0], "add")
        parts = total and graph.apart(total)
        scaled = parts and graph.of(parts[1], "mul", "div")
        inner = scaled and graph.apart(scaled)
        squares = inner and graph.of(inner[1], "reduce_window_sum")
        ordered = scaled and inner and (scaled.primitive == "mul" or scaled.inputs[1] == inner[0])
        if power and parts and scaled and inner and ordered and squares and _square_of(squares.inputs[0], x, graph):
            params = {**squares.params, "signs": (call.primitive == "div", scaled.primitive == "mul")}
            return "response norm", (x, parts[0], inner[0], power.inputs[1]), params
    return None


def _not_empty(call: JaxCall, graph: _Graph) -> Match:
    """What pads by nothing concatenates nothing."""
    makers = ((name, graph.makers.get(name)) for name in call.inputs)
    return call.primitive, tuple(name for name, maker in makers if maker is None or 0 not in maker.shape), call.params


PATTERNS: Mapping[str, tuple[Callable[[JaxCall, _Graph], Match], ...]] = {
    "concatenate": (_not_empty,),
    "div": (_softmax, _sigmoid, _normalize, _response_norm),
    "sub": (_log_softmax,),
    "mul": (_silu, _normalize, _response_norm),
    "select_n": (_leaky, _one_sided),
    "min": (_clip,),
}
