"""TorchScript, scripted or traced, as a plain module that torch.export takes: its graph, node by node.

Conditions and loops over numbers are followed, those over images refused. Operators run only where the importer knows
them, so that a stranger's file runs nothing else."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from triptych.importers.steps import ImportRefusedError
from triptych.importers.torch_walk import COMPUTED, supported

MOST_OPERATORS = 5_000  # loops included
_MOST_TURNS = 100_000  # of nodes that only compute with numbers


def replayed(script: Any) -> tuple[Any, bool]:
    """A torch.nn.Module with the script's parameters under their names, and whether it knows training from evaluation,
    which what was traced does not. Raises ImportRefusedError for an operator that is not known."""
    graph = script.inlined_graph
    text = str(graph)
    return _module(script, graph), 'GetAttr[name="training"]' in text


def _module(script: Any, graph: Any) -> Any:
    import torch  # noqa: TID251

    class Replay(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            inputs = list(graph.inputs())
            if len(inputs) != 2:
                raise ImportRefusedError(f"the script takes {len(inputs) - 1} inputs; a network has one, images")
            return _Replay().run(graph, (_Part(script, self), x))

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            for part in saved if mode else ():  # what was saved for training knows what is frozen in it
                part.training = saved[part]
            return self

    saved: dict[Any, bool] = {}
    replay = Replay()
    parts = {"": replay}
    for path, part in script.named_modules():
        if path:
            owner, _, name = path.rpartition(".")
            parts[path] = torch.nn.Module()
            parts[owner].add_module(name, parts[path])
        for name, parameter in part.named_parameters(recurse=False):
            parts[path].register_parameter(name, torch.nn.Parameter(parameter.detach(), parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            parts[path].register_buffer(name, buffer)
        parts[path].training = bool(getattr(part, "training", False))
    if any(part.training for part in parts.values()):
        saved.update((part, part.training) for part in parts.values())
    return replay


class _Part:
    """A module of the script, and what stands for it."""

    def __init__(self, script: Any, module: Any) -> None:
        self.script = script
        self.module = module

    def get(self, name: str) -> Any:
        import torch  # noqa: TID251

        if name == "training":
            return self.module.training
        value = getattr(self.module, name, None)
        if value is None:
            return getattr(self.script, name)
        return _Part(getattr(self.script, name), value) if isinstance(value, torch.nn.Module) else value


class _Replay:
    """One run of a graph."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.turns = 0
        self.operators = 0

    def run(self, graph: Any, inputs: Sequence[Any]) -> Any:
        results = self.block(graph, inputs)
        return results[0] if len(results) == 1 else tuple(results)

    def block(self, block: Any, inputs: Sequence[Any]) -> list[Any]:
        self.values.update(zip((value.debugName() for value in block.inputs()), inputs, strict=True))
        for node in block.nodes():
            self.turns += 1
            if self.turns > _MOST_TURNS:
                raise ImportRefusedError(f"the script runs more than {_MOST_TURNS} nodes")
            results = self.node(node)
            self.values.update(zip((value.debugName() for value in node.outputs()), results, strict=True))
        return [self.values[value.debugName()] for value in block.outputs()]

    def node(self, node: Any) -> Sequence[Any]:
        kind = node.kind()
        inputs = [self.values[value.debugName()] for value in node.inputs()]
        if kind == "prim::If":
            return self.block(list(node.blocks())[0 if _known(inputs[0], node) else 1], ())
        if kind == "prim::Loop":
            return self.loop(node, inputs)
        if kind == "prim::GetAttr":
            return [inputs[0].get(node.s("name"))]
        if kind == "prim::Constant":
            return [_number(next(iter(node.outputs())).toIValue())]
        if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            return list(inputs[0])
        if kind in STRUCTURE:
            return [STRUCTURE[kind](inputs)]
        self.operators += any(hasattr(value, "requires_grad") for value in inputs)
        if self.operators > MOST_OPERATORS:
            raise ImportRefusedError(f"the script runs more than {MOST_OPERATORS} operators")
        return _operator(node, kind, inputs)

    def loop(self, node: Any, inputs: list[Any]) -> list[Any]:
        most, going, *carried = inputs
        (body,) = node.blocks()
        turn = 0
        while turn < most and _known(going, node):
            going, *carried = self.block(body, (turn, *carried))
            turn += 1
        return carried


def _number(value: Any) -> Any:
    """A trace has its numbers as tensors without axes."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _known(condition: Any, node: Any) -> bool:
    if not isinstance(condition, (bool, int)):
        raise ImportRefusedError(f"the script's {node.kind()} depends on the images; control flow is not supported")
    return bool(condition)


def _raise(inputs: Sequence[Any]) -> Any:
    raise ImportRefusedError(f"the script refuses its input: {str(inputs[0])[:200] if inputs else ''}")


def _pairs(inputs: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(inputs[::2], inputs[1::2], strict=True))


STRUCTURE: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "prim::ListConstruct": list,
    "prim::TupleConstruct": tuple,
    "prim::DictConstruct": _pairs,
    "prim::TupleIndex": lambda inputs: inputs[0][inputs[1]],
    "prim::NumToTensor": lambda inputs: inputs[0],
    "prim::unchecked_cast": lambda inputs: inputs[0],
    "prim::Uninitialized": lambda inputs: None,
    "prim::RaiseException": _raise,
    "prim::dtype": lambda inputs: inputs[0].dtype,
    "prim::device": lambda inputs: inputs[0].device,
    "prim::min": lambda inputs: min(inputs) if len(inputs) > 1 else min(inputs[0]),
    "prim::max": lambda inputs: max(inputs) if len(inputs) > 1 else max(inputs[0]),
}


def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


def _text(*values: Any) -> str:
    return " ".join(str(value)[:100] for value in values)


_NUMBERS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "__is__": operator.is_,
    "__isnot__": operator.is_not,
    "__not__": operator.not_,
    "__contains__": operator.contains,
    "__getitem__": lambda values, place: values[place],
    "Int": int,
    "Float": float,
    "Bool": bool,
    "ScalarImplicit": lambda value: value,
    "IntImplicit": int,
    "len": len,
    "size": lambda x, *axis: x.shape[axis[0]] if axis else list(x.shape),
    "dim": lambda x: x.dim(),
    "is_floating_point": lambda x: x.is_floating_point(),
    "append": _append,
    "format": _text,
    "warn": lambda *values: None,
    "slice": lambda values, start, stop, step: values[start:stop:step],
    "list": list,
}
_OF_TENSORS = (
    "size",
    "dim",
    "len",
    "is_floating_point",
    "__is__",
    "__isnot__",
    "append",
    "__getitem__",
    "format",
    "warn",
)


def _operator(node: Any, kind: str, inputs: list[Any]) -> Sequence[Any]:
    import torch  # noqa: TID251

    space, _, name = kind.partition("::")
    tensors = any(isinstance(value, torch.Tensor) for value in _flat(inputs))
    known = _NUMBERS.get(name) if space == "aten" and (not tensors or name in _OF_TENSORS) else None
    if known is not None:
        large = any(isinstance(value, int) and abs(value) > 1 << 40 for value in inputs if name == "mul")
        if large or (name == "mul" and any(isinstance(value, (str, list)) for value in inputs)):
            raise ImportRefusedError(f"the script multiplies {_text(*inputs)}; refused")
        result = known(*inputs)
        return [result] if node.outputsSize() else []
    plain = name.removesuffix("_")
    if space != "aten" or plain not in {*supported(), *COMPUTED, "_convolution", "_unsafe_view", "_to_copy"}:
        raise ImportRefusedError(f"{kind!r}: this operator is not supported; supported are {', '.join(supported())}")
    schema = torch._C.parse_schema(node.schema())
    named = {a.name: value for a, value in zip(schema.arguments, inputs, strict=True) if a.kwarg_only}
    function = getattr(getattr(torch.ops.aten, name), schema.overload_name or "default")
    results = function(*inputs[: len(inputs) - len(named)], **named)
    return list(results) if node.outputsSize() > 1 else [results]


def _flat(values: Iterable[Any]) -> list[Any]:
    return [each for value in values for each in (_flat(value) if isinstance(value, (list, tuple)) else [value])]
