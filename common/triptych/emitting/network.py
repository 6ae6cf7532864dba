"""The class of the whole network: what comes before and behind its auxiliary classifiers, and its classifier."""

from collections.abc import Iterator
from itertools import groupby

from triptych.backend.source import written
from triptych.emitting import text
from triptych.emitting.names import attribute, different
from triptych.emitting.repetition import applied, folded
from triptych.emitting.text import Expression, Line, Marks
from triptych.emitting.tree import TreeNode
from triptych.emitting.writer import KeptLayers, Writer
from triptych.spec.analysis import auxiliary_weights
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    Dense,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Graph,
    Shape,
    outputs,
)
from triptych.spec.shapes import output_shapes

HEAD = (GlobalAvgPool, GlobalMaxPool, Flatten)


def parts(root: TreeNode) -> list[tuple[KeptLayers, bool]]:
    """What the network keeps, in order of execution, and whether it is an auxiliary classifier."""
    trunk = [node for node in root.children if not isinstance(node.layer, Auxiliary)]
    head = _head(trunk)
    groups = [list(nodes) for _, nodes in groupby(root.children, lambda node: _kind(node, head))]
    features = sum(1 for nodes in groups if _kind(nodes[0], head) == "features")
    result: list[tuple[KeptLayers, bool]] = []
    own = {"classifier", "features", *(f"features{number + 1}" for number in range(features))}
    heads = different([nodes[0].name for nodes in groups], attribute, own)
    number = 0
    for nodes in groups:
        kind = _kind(nodes[0], head)
        number += kind == "features"
        names = {"features": f"features{number}" if features > 1 else "features", "classifier": "classifier"}
        if kind in names:
            result.append((KeptLayers(names[kind], nodes), False))
        else:
            result.append((KeptLayers(heads[nodes[0].name], nodes), True))
    return result


def _head(trunk: list[TreeNode]) -> set[TreeNode]:
    """The classifier: from the last pooling of the whole map or flattening before dense layers on."""
    if not any(node.taken or isinstance(node.layer, Dense | Flatten) for node in trunk[1:]):
        return set()
    first = len(trunk)
    while first and (_is_flat(trunk[first - 1]) or isinstance(trunk[first - 1].layer, HEAD)):
        first -= 1
    return set(trunk[first:]) if 0 < first < len(trunk) else set()


def _is_flat(node: TreeNode) -> bool:
    return node.is_leaf and len(node.output) == 1


def _kind(node: TreeNode, head: set[TreeNode]) -> str:
    if isinstance(node.layer, Auxiliary):
        return node.name
    return "classifier" if node in head else "features"


def write(architecture: Architecture, root: TreeNode, name: str, writer: Writer) -> list[str]:
    """The class, constructor and forward pass."""
    dialect = writer.dialect
    found = parts(root)
    several = len(outputs(architecture)) + sum(is_auxiliary for _, is_auxiliary in found) > 1
    result_type = f"{dialect.tensor} | tuple[{dialect.tensor}, ...]" if several else dialect.tensor
    if len(outputs(architecture)) > 1:
        result_type = f"tuple[{dialect.tensor}, ...]"
    body = [f"        {dialect.start}"] if dialect.start else []
    body += [f"        {dialect.train_flag}"] if dialect.train_flag and any(flag for _, flag in found) else []
    for part, is_auxiliary in found:
        if not _plain(part, writer):
            body += _statement(part, is_auxiliary, writer)
    return [
        f"class {name}({dialect.module}):",
        *text.docstring(1, describe(architecture, dialect.channels_last)),
        "",
        *text.signature(1, "def __init__", ["self", *dialect.extra_declared], " -> None:"),
        *body,
        "",
        f"    {dialect.forward.replace('RESULT', result_type)}",
        *(one for statement in _forward(found, writer) for one in text.statement(2, statement)),
    ]


def describe(architecture: Architecture, channels_last: bool) -> str:
    """What goes in and comes out."""
    shapes = output_shapes(architecture)
    ends = ", ".join(_size(shapes[path], channels_last) for path in outputs(architecture))
    text = f"{architecture.name} ({architecture.source})" if architecture.source else architecture.name
    into = ", ".join(("N", *_size(architecture.input, channels_last).split("x")))
    weights = " and ".join(f"{weight:g}" for weight in auxiliary_weights(architecture))
    more = f"; in training followed by auxiliary logits, whose losses weigh {weights}" if weights else ""
    return f"{text}: images ({into}) to {ends}{' logits' if architecture.classes else ''}{more}."


def _statement(part: KeptLayers, is_auxiliary: bool, writer: Writer) -> list[str]:
    """The line or lines that make one part: a few plain layers on one, else every layer in a row on a line with its
    name and output."""
    if is_auxiliary:
        return text.lines(2, f"self.{part.name} = ", _made(part.nodes[0], writer))
    before = f"self.{part.name} = "
    if all(node.is_leaf for node in part.nodes):
        row = writer.row([_made(node, writer) for node in part.nodes])
        if not row.comments() and text.is_short(2, before, row):
            row.comment = ", ".join(_said(node, writer) for node in part.nodes)
            return text.lines(2, before, row)
    expressions = [_noted(node, _made(node, writer), writer) for node in part.nodes]
    return text.lines(2, before, writer.row(folded(expressions)), exploded=True)


def _made(node: TreeNode, writer: Writer) -> Expression:
    return writer.expression(node, [written(column.value) for column in writer.plan.columns(node)])


def _noted(node: TreeNode, made: Expression, writer: Writer) -> Expression:
    """With the layer's name in the spec and the shape of its output, before what else is said of it."""
    made.comment = f"{_said(node, writer)}; {made.comment}" if made.comment else _said(node, writer)
    return made


def _said(node: TreeNode, writer: Writer) -> str:
    names = node.name if not node.is_unit else node.children[0].name
    shapes = _shapes(node.children[-1] if node.is_unit else node)
    told = ", ".join(_size(shape, writer.dialect.channels_last) for shape in shapes)
    return names if shapes == [node.input] else f"{names}: {told}"


def _shapes(node: TreeNode) -> list[Shape]:
    """Of what comes out of a node: several where it is a graph with so many outputs."""
    if not isinstance(node.layer, Graph):
        return [node.output]
    known = {child.name: child.output for child in node.children}
    return [known[name] for name in node.layer.outputs]


def _plain(part: KeptLayers, writer: Writer) -> bool:
    """Whether a part is a plain function, which is called where it is needed."""
    return len(part.nodes) == 1 and _made(part.nodes[0], writer).function


def _forward(found: list[tuple[KeptLayers, bool]], writer: Writer) -> Iterator[Line]:
    """What an auxiliary classifier takes has a name, all else is called within the next call."""
    variable, value, marks = "x", "x", Marks()
    heads: list[str] = []
    for part, is_auxiliary in found:
        if is_auxiliary:
            if value != variable:
                variable = "x1" if variable == "x" else f"x{int(variable[1:]) + 1}"
                yield Line(f"{variable} = {value}", marks)
                value, marks = variable, Marks()
            heads.append(f"self.{part.name}({variable})")
        else:
            plain = _plain(part, writer)
            value = applied(_made(part.nodes[0], writer).text, value) if plain else f"self.{part.name}({value})"
            marks |= writer.alone(part)
    if heads:
        yield Line(f"y = {value}", marks)
        yield Line(f"if {writer.dialect.training}:")
        yield Line(f"    return (y, {', '.join(heads)})")
    yield Line("return y" if heads else f"return {value}", Marks() if heads else marks)


def _size(shape: Shape, channels_last: bool) -> str:
    return "x".join(map(str, (*shape[1:], shape[0]) if channels_last else shape))


def paths(root: TreeNode, writer: Writer) -> Iterator[tuple[str, str]]:
    """Canonical path and name in the emitted network of every array."""
    for part, is_auxiliary in parts(root):
        if is_auxiliary:
            yield from writer.paths(part.nodes[0], part.name)
        else:
            yield from writer.row_paths(part.nodes, part.name)
