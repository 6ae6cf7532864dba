"""What one call of a Keras layer takes, by its entry in `inbound_nodes`: tensors, numbers, the mode.

Keras 2 writes `[[name, call, output, {...}], ...]`, Keras 3 `{"args": [...], "kwargs": {...}}`. An operation of
TensorFlow's that Keras 2 took into a network (a TFOpLambda) has its other operand among the keywords, and a number that
comes first as `["_CONSTANT_VALUE", -1, 1.0, {...}]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from triptych.importers.steps import ImportRefusedError

Reference: TypeAlias = tuple[str, int, int]
TENSORFLOW = "TFOpLambda"
# Operations of TensorFlow's by their `function`, as those of Keras 3 that compute the same.
OPERATIONS: Mapping[str, str] = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.multiply": "Multiply",
    "math.sigmoid": "Sigmoid",
    "math.subtract": "Subtract",
    "math.tanh": "Tanh",
    "math.truediv": "TrueDivide",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.silu": "Silu",
}


@dataclass(frozen=True)
class Arguments:
    """What one call takes: tensors, numbers, whether a number comes first, and the mode."""

    references: tuple[Reference, ...] = ()
    numbers: tuple[float, ...] = ()
    number_first: bool = False
    training: bool | None = None


def short(value: object) -> str:
    """What a message shows of a value of the file."""
    return repr(value)[:60] if isinstance(value, str | int | float) else type(value).__name__


def _is_reference(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part < 1 << 31 for part in value[1:3])
    )


def references(value: object, where: str, depth: int = 0) -> list[Reference]:
    """`["a", 0, 0]`, a list of these, or an object of them by name."""
    if _is_reference(value):
        assert isinstance(value, list)
        return [(value[0], value[1], value[2])]
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inner, list) or depth > 2:
        raise ImportRefusedError(f"{where} names a tensor by {short(value)}, expected [layer, call, output]")
    return [reference for each in inner for reference in references(each, where, depth + 1)]


def arguments_of(node: object, where: str) -> Arguments:
    """Keras 3 records `training`, too, but goes by the mode of the network around; Keras 2 goes by it."""
    training = None
    if isinstance(node, dict):
        given = [*_list(node.get("args", [])), *_list(list(_dict(node.get("kwargs", {})).values()))]
        found = _tensors(given, where)
    else:
        found = list(references(node, where))
        listed = node if isinstance(node, list) and not _is_reference(node) else [node]
        if any(len(each) == 4 and _numeric(each[3]) for each in listed if isinstance(each, list)):
            raise ImportRefusedError(f"{where} is called with numbers of its own, which cannot be imported")
        modes = [_dict(each[3]).get("training") for each in listed if isinstance(each, list) and len(each) == 4]
        training = next((mode for mode in map(_mode, modes) if mode is not None), None)
    tensors = tuple(each for each in found if isinstance(each, tuple))
    numbers = tuple(float(each) for each in found if not isinstance(each, tuple))
    return Arguments(tensors, numbers, bool(found) and not isinstance(found[0], tuple), training)


def _mode(training: object) -> bool | None:
    return None if training is None else bool(training)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numeric(keywords: object) -> bool:
    return any(type(value) in (int, float) for value in _dict(keywords).values())


def _tensors(values: Sequence[Any], where: str, depth: int = 0) -> list[Reference | float]:
    found: list[Reference | float] = []
    for value in values:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            found.extend(references(_dict(value.get("config")).get("keras_history"), where))
        elif isinstance(value, list) and depth < 3:
            found.extend(_tensors(value, where, depth + 1))
        elif type(value) in (int, float):
            found.append(value)
        elif value is not None and not isinstance(value, bool | str):
            raise ImportRefusedError(f"{where} is called with {short(value)}, expected tensors and numbers")
    return found


def of_tensorflow(node: object, where: str) -> Arguments:
    """What one call of an operation of TensorFlow's takes. Raises ImportRefusedError for more than two operands."""
    listed = node if isinstance(node, list) and len(node) == 4 else [node, {}]
    keywords = {key: value for key, value in _dict(listed[-1]).items() if key != "name" and value is not None}
    if unknown := keywords.keys() - {"x", "y"}:
        raise ImportRefusedError(f"{where} is called with {sorted(unknown)[0][:40]}, which is not supported")
    operands = [_operand(each, where) for each in (listed[:-1], *keywords.values())]
    tensors = tuple(each for each in operands if isinstance(each, tuple))
    numbers = tuple(each for each in operands if not isinstance(each, tuple))
    return Arguments(tensors, numbers, not isinstance(operands[0], tuple))


def _operand(value: object, where: str) -> Reference | float:
    if _is_reference(value):
        return references(value, where)[0]
    if isinstance(value, list) and len(value) == 3 and value[0] == "_CONSTANT_VALUE":
        value = value[2]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ImportRefusedError(f"{where} is called with {short(value)}, expected tensors and numbers")
    return float(value)
