"""A program that torch.export made, as named calls of ATen operators without side effects.

What a call changes in place is what later calls take: `relu_(x)` also changes `x` where that is used again."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import join

BATCH = 2  # images of the example: one would fail in a batch norm, and be taken for another axis of one
SAME = frozenset(("alias", "clone", "contiguous", "detach", "to", "_to_copy", "type_as", "lift_fresh_copy", "lift"))
_SLICES = "slice select narrow chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split unbind"
_VIEWS = (
    "view reshape _unsafe_view view_as reshape_as flatten unflatten squeeze unsqueeze permute transpose swapaxes"
    " swapdims movedim t numpy_T expand expand_as channel_shuffle native_channel_shuffle"
)
_COPIES = "pixel_shuffle pixel_unshuffle flip roll repeat tile repeat_interleave index index_select"
SLICES = frozenset(_SLICES.split())
COPIES = frozenset(_COPIES.split())  # which also only move values, into memory of their own
VIEWS = SLICES | frozenset(_VIEWS.split())


@dataclass(frozen=True)
class Ref:
    """The value called `name`: the input, a constant, or what a call gives."""

    name: str


@dataclass(frozen=True, eq=False)
class TorchCall:
    """One operator. `arguments` by the names of its schema, defaults filled in, values as `Ref`. `shape` has the batch
    (of the first result, where there are several). `place`: the module it is in and what it is there."""

    name: str
    operator: str
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    place: str = ""
    function: Callable[..., Any] | None = None

    def refused(self, problem: str) -> ImportRefusedError:
        return ImportRefusedError(f"{self.place or self.name!r} (operator {self.operator}): {problem}")


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter, a buffer, or what was computed of them alone. `sources`: the trained parameters in it; `computed`:
    more than rearranged; `exact`: then the same in float64."""

    tensor: Any
    sources: frozenset[str] = frozenset()
    computed: bool = False
    exact: Any = None


@dataclass(frozen=True, eq=False)
class Program:
    """`input_shape` has the batch. `outputs`: pairs of the key in the dict that the module returns ("" otherwise) and
    the value's name."""

    calls: Mapping[str, TorchCall]
    constants: Mapping[str, Constant]
    input: str
    input_shape: tuple[int, ...]
    outputs: tuple[tuple[str, str], ...]


def references(value: Any) -> Iterator[str]:
    """The names in an argument or in arguments, however deep in lists."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from references(entry)
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from references(entry)


def mapped(value: Any, change: Callable[[Ref], Any]) -> Any:
    """An argument with each reference in it changed."""
    if isinstance(value, Ref):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [mapped(entry, change) for entry in value]
    return value


def read(exported: Any) -> Program:
    """The program of a torch.export.ExportedProgram. Raises ImportRefusedError for another number of inputs than one,
    and for shapes that depend on the input."""
    nodes = list(exported.graph.nodes)
    signature = exported.graph_signature
    inputs = list(signature.user_inputs)
    tensors = [n for n in nodes if n.op == "placeholder" and n.name in inputs and hasattr(n.meta.get("val"), "shape")]
    used = [node for node in tensors if node.users]
    if len(used) != 1:
        raise ImportRefusedError(
            f"the module takes {len(used)} inputs that it uses ({inputs}); a network has one, images"
        )
    by_node, changed = _pure(_calls(nodes, signature.inputs_to_parameters))
    ends = next(node for node in nodes if node.op == "output").args[0]
    outputs = _outputs(exported, ends, set(signature.user_outputs), changed)
    return Program(by_node, _constants(exported), used[0].name, _shape(used[0]), outputs)


def _constants(exported: Any) -> dict[str, Constant]:
    signature = exported.graph_signature
    constants: dict[str, Constant] = {}
    owners: dict[tuple[int, tuple[int, ...]], str] = {}
    held = {**exported.constants, **exported.state_dict}
    for name, target in signature.inputs_to_parameters.items():
        tensor = held[target]
        owner = owners.setdefault((tensor.data_ptr(), tuple(tensor.shape)), target)  # tied: one parameter, two names
        constants[name] = Constant(tensor.detach(), frozenset((owner,)))
    for targets in (signature.inputs_to_buffers, signature.inputs_to_lifted_tensor_constants):
        for name, target in targets.items():
            constants[name] = Constant(held[target].detach())
    return constants


def _outputs(exported: Any, ends: Any, wanted: set[str], changed: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    names = [end.name for end in ends if hasattr(end, "name") and end.name in wanted]
    keys = _keys(exported.call_spec.out_spec)
    keys = keys if len(keys) == len(names) else [""] * len(names)
    return tuple((key, changed.get(name, name)) for key, name in zip(keys, names, strict=True))


def _keys(spec: Any) -> list[str]:
    """Those of a dict or of a named tuple that a module returns."""
    kind, context = getattr(spec, "type", None), getattr(spec, "context", None)
    if isinstance(kind, type) and issubclass(kind, dict):
        keys: Any = context[1] if kind.__name__ == "defaultdict" and context else context
        return [str(key) for key in keys or ()]
    return list(getattr(context, "_fields", ()))


def _calls(nodes: Iterable[Any], owners: Mapping[str, str]) -> Iterator[tuple[TorchCall, bool]]:
    """Every call, and whether it changes its first argument."""
    for node in nodes:
        if node.op in ("call_function", "get_attr"):
            operator, arguments = _operator(node)
            in_place = operator.endswith("_") and not operator.endswith("__")
            operator = operator.removesuffix("_") if in_place else operator
            arguments = {key: mapped(_plain(value), lambda ref: ref) for key, value in arguments.items()}
            place = _place(node, operator, owners)
            yield TorchCall(node.name, operator, arguments, _shape(node), place, node.target), in_place


def _operator(node: Any) -> tuple[str, dict[str, Any]]:
    schema = getattr(node.target, "_schema", None)
    if schema is None or node.op == "get_attr":
        name = getattr(node.target, "__name__", str(node.target))
        return name, {str(place): value for place, value in enumerate(node.args)} | dict(node.kwargs)
    values = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
    arguments = {a.name: values.get(a.name, a.default_value) for a in schema.arguments}
    return schema.name.partition("::")[2], arguments


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return Ref(value.name) if type(value).__module__ == "torch.fx.node" else value


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta.get("val")
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    shape = tuple(getattr(value, "shape", ()))
    if any(not isinstance(size, int) for size in shape[1:]):
        raise ImportRefusedError(f"{node.name!r} has the shape {shape}, which is dynamic; export with fixed sizes")
    return tuple(size if isinstance(size, int) else BATCH for size in shape)


def _place(node: Any, operator: str, owners: Mapping[str, str]) -> str:
    """The module, where it is one of PyTorch's; else what it does there. TorchScript knows the parameters' modules."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    path = re.sub(r"@\d+", "", path)
    if path and kind.startswith("torch.nn.modules."):
        return path
    parameters = [owners[argument.name] for argument in node.all_input_nodes if argument.name in owners]
    owner = parameters[0].rpartition(".")[0] if parameters else ""
    return owner if owner and not path else join(path, operator)


def _pure(calls: Iterable[tuple[TorchCall, bool]]) -> tuple[dict[str, TorchCall], dict[str, str]]:
    """Calls that change nothing, and the name under which the newest content of a changed value goes."""
    memory = _Memory()
    pure: dict[str, TorchCall] = {}
    for call, in_place in calls:
        arguments = {
            k: mapped(v, lambda ref: Ref(memory.newest.get(ref.name, ref.name))) for k, v in call.arguments.items()
        }
        pure[call.name] = replace(call, arguments=arguments)
        first = next(references(list(call.arguments.values())[:1]), None)
        if first is None:
            continue
        if in_place:
            for stale in memory.change(first, call.name):
                pure[f"{stale}!"] = TorchCall(
                    f"{stale}!", "view of what is changed in place", {}, call.shape, call.place
                )
        elif call.operator in SAME and call.operator != "clone":
            memory.same(first, call.name)
        elif call.operator in VIEWS:
            memory.view(first, call.name)
    return pure, memory.newest


@dataclass
class _Memory:
    """Which values lie in one piece of memory (`root`), and which of them are all of it (`whole`)."""

    root: dict[str, str] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)

    def view(self, source: str, name: str) -> None:
        self.root[name] = self._root(source)
        self.whole[name] = name

    def same(self, source: str, name: str) -> None:
        self.root[name] = self._root(source)
        self.whole[name] = self.whole[source]

    def change(self, source: str, name: str) -> list[str]:
        """`source` is changed to `name`. The views of it have changed, too: their names."""
        self.same(source, name)
        stale = []
        for other, root in self.root.items():
            if root == self.root[source] and other != name:
                same = self.whole[other] == self.whole[source]
                self.newest[other] = name if same else f"{other}!"
                stale += [] if same else [other]
        return stale

    def _root(self, name: str) -> str:
        self.whole.setdefault(name, name)
        return self.root.setdefault(name, name)
