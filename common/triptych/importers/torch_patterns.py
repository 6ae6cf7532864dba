"""Several ATen operators that are one layer of the spec: what PyTorch's own modules and functions are made of."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from triptych.importers import formulas
from triptych.importers.torch_program import SAME, Program, Ref, TorchCall, references
from triptych.spec.layers import Layer

_NO_BOUND = 2.0**-126  # the smallest normal number of 32 bits: an image of zeros, NaN in the module, gives zeros
_SETTINGS = {"alpha": 1, "rounding_mode": None, "beta": 1, "threshold": 20}  # where an operator is the plain function
_RESHAPES = ("view", "reshape", "squeeze", "unsqueeze", "expand", "expand_as", "contiguous")


@dataclass(frozen=True)
class _Graph:
    calls: Mapping[str, TorchCall]
    uses: Mapping[str, int]
    constant: frozenset[str]

    def of(self, value: Any, *operators: str) -> TorchCall | None:
        """The call that gives `value`, if its operator is one of these."""
        call = self.calls.get(value.name) if isinstance(value, Ref) else None
        return call if call is not None and call.operator in operators else None

    def behind_reshapes(self, value: Any) -> Any:
        """What `value` is a view of."""
        while call := self.of(value, *_RESHAPES):
            value = next(iter(call.arguments.values()))
        return value

    def is_constant(self, value: Any) -> bool:
        return isinstance(value, Ref) and value.name in self.constant


def recognised(program: Program) -> Program:
    """The program with each pattern as one call at its last operator; what is in it may be no longer needed."""
    uses = Counter(name for call in program.calls.values() for name in references(call.arguments))
    graph = _Graph(program.calls, uses, frozenset(_constant(program)))
    terms = {name: term for name, call in program.calls.items() if (term := _term(call, program))}
    activations = formulas.activations(terms)
    calls = {}
    for name, call in program.calls.items():
        patterns = () if name in graph.constant else PATTERNS.get(call.operator, ())
        found = (match for pattern in patterns if (match := pattern(call, graph)))
        unchanged: tuple[str, Mapping[str, Any]] = call.operator, call.arguments
        operator, arguments = next(found, None) or _activation(activations.get(name)) or unchanged
        calls[name] = replace(call, operator=operator, arguments=arguments)
    return replace(program, calls=calls)


def _constant(program: Program) -> set[str]:
    constant = set(program.constants)
    for name, call in program.calls.items():
        names = set(references(call.arguments))
        if names and names <= constant:
            constant.add(name)
    return constant


Match = tuple[str, dict[str, Any]] | None


def _term(call: TorchCall, program: Program) -> formulas.Term | None:
    """An operator on each number by itself; one tensor that is a number counts as that."""
    values = [value for key, value in call.arguments.items() if key not in _SETTINGS]
    if call.operator in SAME:
        changes = call.operator in ("detach", "type_as") or "float" not in str(call.arguments.get("dtype") or "float")
        return None if changes else formulas.as_it_is(values[0].name)
    inputs = tuple(number for value in values if (number := _number(value, program)) is not None)
    usual = all(call.arguments.get(key, value) in (value, None) for key, value in _SETTINGS.items())
    return formulas.term(call.operator, inputs) if usual and len(inputs) == len(values) else None


def _number(value: Any, program: Program) -> str | float | None:
    if not isinstance(value, Ref):
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    constant = program.constants.get(value.name)
    if constant is None or constant.sources or constant.tensor.numel() != 1:
        return value.name
    return float(constant.tensor)


def _activation(found: tuple[Layer, str] | None) -> Match:
    """Written out in elementary functions."""
    return ("activation", {"self": Ref(found[1]), "layer": found[0]}) if found else None


def _response_norm(call: TorchCall, graph: _Graph) -> Match:
    """nn.LocalResponseNorm: x / (k + alpha * mean of x * x over the channels around) ^ beta."""
    x = call.arguments["self"]
    power = graph.of(call.arguments["other"], "pow")
    total = power and graph.of(power.arguments["self"], "add")
    scaled = total and graph.of(total.arguments["self"], "mul")
    mean = scaled and graph.of(graph.behind_reshapes(scaled.arguments["self"]), "avg_pool3d", "avg_pool2d")
    pad = mean and graph.of(graph.behind_reshapes(mean.arguments["self"]), "pad", "constant_pad_nd")
    square = pad and graph.of(graph.behind_reshapes(pad.arguments["self"]), "mul")
    if not (power and total and scaled and mean and pad and square):
        return None
    size = mean.arguments["kernel_size"][0]
    around = list(pad.arguments["pad"])[-2:] == [size // 2, (size - 1) // 2]
    numbers = scaled.arguments["other"], total.arguments["other"], power.arguments["exponent"]
    if not around or list(square.arguments.values())[:2] != [x, x] or any(isinstance(n, Ref) for n in numbers):
        return None
    return "local_response_norm", {"self": x, "size": size} | dict(zip(("alpha", "k", "beta"), numbers, strict=True))


def _normalize(call: TorchCall, graph: _Graph) -> Match:
    """nn.functional.normalize, or x / x.norm(dim=1, keepdim=True), with or without a bound."""
    x = call.arguments["self"]
    divisor = graph.behind_reshapes(call.arguments["other"])
    bound = graph.of(divisor, "clamp_min", "clamp")
    eps = _NO_BOUND
    if bound:
        eps, divisor = bound.arguments["min"], bound.arguments["self"]
        if bound.arguments.get("max") is not None:
            return None
    norm = graph.of(divisor, "linalg_vector_norm", "norm")
    if norm is None or norm.arguments["self"] != x or "dim" not in norm.arguments:
        return None
    if norm.arguments.get("ord", norm.arguments.get("p")) not in (2, None) or norm.arguments["dim"] not in ([1], 1):
        return None
    return "normalize", {"self": x, "eps": eps}


def _swish(call: TorchCall, graph: _Graph) -> Match:
    for x, gate in (
        (call.arguments["self"], call.arguments["other"]),
        (call.arguments["other"], call.arguments["self"]),
    ):
        sigmoid = graph.of(gate, "sigmoid")
        if sigmoid and sigmoid.arguments["self"] == x:
            return "silu", {"self": x}
    return None


def _product_and_bias(call: TorchCall, graph: _Graph) -> Match:
    """x @ w + b, a dense layer; x * w + b with trained w and b, a trained scale and shift."""
    if call.arguments.get("alpha", 1) != 1:
        return None
    for product, bias in (
        (call.arguments["self"], call.arguments["other"]),
        (call.arguments["other"], call.arguments["self"]),
    ):
        if not graph.is_constant(bias) or not isinstance(product, Ref) or graph.uses[product.name] != 1:
            continue
        if matrix := graph.of(product, "matmul", "mm"):
            return "addmm", {"self": bias, "mat1": matrix.arguments["self"], "mat2": list(matrix.arguments.values())[1]}
        scaled = graph.of(product, "mul")
        for x, w in _either(scaled):
            if graph.is_constant(w) and not graph.is_constant(x):
                return "scale_and_shift", {"self": x, "weight": w, "bias": bias}
    return None


def _either(call: TorchCall | None) -> tuple[tuple[Any, Any], ...]:
    if call is None:
        return ()
    left, right = call.arguments["self"], call.arguments["other"]
    return (left, right), (right, left)


PATTERNS = {"div": (_response_norm, _normalize), "mul": (_swish,), "add": (_product_and_bias,)}
