"""Several primitives of JAX that are one layer of the spec: softmax, SiLU, leaky and parametric ReLU, clip."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from triptych.importers.jax_program import HANDED_ON, JaxCall, JaxProgram

_WIDENED = ("broadcast_in_dim", "reshape", "expand_dims", *HANDED_ON)


@dataclass(frozen=True, eq=False)
class _Graph:
    makers: Mapping[str, JaxCall]
    uses: Mapping[str, int]
    constant: frozenset[str]

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
    graph = _Graph(makers, uses, frozenset(_constant(program)))
    calls = []
    for call in program.calls:
        found = (match for pattern in PATTERNS.get(call.primitive, ()) if (match := pattern(call, graph)))
        name, inputs, params = next(found, (call.primitive, call.inputs, call.params))
        calls.append(replace(call, primitive=name, inputs=inputs, params=params))
    return replace(program, calls=tuple(calls))


def _constant(program: JaxProgram) -> set[str]:
    constant = set(program.constants)
    for call in program.calls:
        if all(name in constant for name in call.inputs):
            constant.update(call.outputs)
    return constant


def _softmax(call: JaxCall, graph: _Graph) -> Match:
    """exp(x - max) / sum(exp(x - max))."""
    exponential = graph.of(call.inputs[0], "exp")
    total = graph.of(graph.behind(call.inputs[1]), "reduce_sum")
    if exponential is None or total is None or graph.of(total.inputs[0], "exp") is not exponential:
        return None
    return _shifted("softmax", exponential.inputs[0], total, graph)


def _log_softmax(call: JaxCall, graph: _Graph) -> Match:
    """(x - max) - log(sum(exp(x - max)))."""
    logarithm = graph.of(graph.behind(call.inputs[1]), "log")
    total = logarithm and graph.of(graph.behind(logarithm.inputs[0]), "reduce_sum")
    exponential = total and graph.of(total.inputs[0], "exp")
    if not total or not exponential or not graph.same(exponential.inputs[0], call.inputs[0]):
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
    return (name, (shifted.inputs[0],), {"axes": axes}) if tuple(maximum.params["axes"]) == axes else None


def _silu(call: JaxCall, graph: _Graph) -> Match:
    for x, gate in (call.inputs, call.inputs[::-1]):
        sigmoid = graph.of(gate, "logistic")
        if sigmoid and graph.same(sigmoid.inputs[0], x):
            return "silu", (x,), {}
    return None


def _leaky(call: JaxCall, graph: _Graph) -> Match:
    """select(x > 0, slope * x, x): the first is what is taken where it is false."""
    if len(call.inputs) != 3:
        return None
    compared = graph.of(call.inputs[0], "gt", "ge", "lt", "le")
    if compared is None or compared.inputs[1] not in graph.constant:
        return None
    positive = compared.primitive in ("gt", "ge")
    low, high = call.inputs[1:] if positive else call.inputs[:0:-1]
    scaled = graph.of(low, "mul")
    parts = scaled and graph.apart(scaled)
    if not parts or not graph.same(parts[1], high) or not graph.same(compared.inputs[0], high):
        return None
    return "leaky", (high, parts[0], compared.inputs[1]), {}


def _clip(call: JaxCall, graph: _Graph) -> Match:
    """min(high, max(low, x))."""
    outer = graph.apart(call)
    inner = outer and graph.of(outer[1], "max")
    parts = inner and graph.apart(inner)
    if not outer or not inner or not parts or graph.uses[inner.outputs[0]] != 1:
        return None
    return "clamp", (parts[0], parts[1], outer[0]), {}


PATTERNS: Mapping[str, tuple[Callable[[JaxCall, _Graph], Match], ...]] = {
    "div": (_softmax,),
    "sub": (_log_softmax,),
    "mul": (_silu,),
    "select_n": (_leaky,),
    "min": (_clip,),
}
