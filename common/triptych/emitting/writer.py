"""The source file of a plan in one framework's dialect, and what its parameters are called there."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from triptych.backend.source import Dialect, Value
from triptych.emitting import text
from triptych.emitting.arguments import Definition
from triptych.emitting.names import attribute, different, safe
from triptych.emitting.plan import Plan
from triptych.emitting.provenance import layers_made
from triptych.emitting.repetition import applied, folded, star, stepped
from triptych.emitting.text import Expression, Line, Marks
from triptych.emitting.tree import Run, TreeNode, flow_of
from triptych.spec.analysis import layer_parameters
from triptych.spec.layers import INPUT, Branches, Graph, Merge, Residual, Shape

OFTEN = 4  # calls of a function in a class that are worth a short name


class KeptLayers(NamedTuple):
    """What a class keeps under one name: nodes in a row."""

    name: str
    nodes: list[TreeNode]


class Writer:
    """Writes nodes."""

    def __init__(self, plan: Plan, dialect: Dialect) -> None:
        self.plan = plan
        self.dialect = dialect
        self._made = layers_made(plan)
        self._bound: dict[str, str] = {}  # functions that a class calls often: what it calls them, less the extra

    # -- expressions ---------------------------------------------------------------------------------------------

    def expression(self, node: TreeNode, values: Sequence[Value], *, call: bool = True) -> Expression:
        """What makes a node, its numbers being `values`; a `call` of its function or class, if it has one."""
        made = self.plan.definition(node)
        if made is not None and call:
            return Expression(self._call(made, values), marks=Marks(called=self._made[node]))
        if node.is_leaf:
            return self._leaf(node, values)
        return self.row(self._row_parts(self.plan.runs(node), values))

    def row(self, parts: Sequence[Expression]) -> Expression:
        """Layers one after the other: a single one is itself."""
        if len(parts) == 1 and not parts[0].text.startswith("*"):
            return parts[0]
        return text.sequence(f"{self.dialect.row}(", parts)

    def _leaf(self, node: TreeNode, values: Sequence[Value]) -> Expression:
        piece = self.dialect.pieces[type(node.layer)](node.layer, dict(zip(node.numbers, values, strict=True)))
        return Expression(piece.text, comment=piece.trap, function=piece.function, marks=Marks(self._made[node]))

    def _call(self, made: Definition, values: Sequence[Value]) -> str:
        texts, in_order = [], True
        many = self._as_row(made)
        for argument in made.arguments:
            value = argument.given(values[argument.column])
            if argument.default is not None and value.equals(argument.default.literal):
                in_order = False
            elif argument.default is None or (in_order and argument.name == "kernel" and not many):
                texts.append(value.text)
            else:
                texts.append(f"{argument.name}={value.text}")
        if made.name in self._bound:
            return f"{self._bound[made.name]}({', '.join(texts)})"
        return f"{made.name}({', '.join([*texts, *([self.dialect.extra] if self.dialect.extra else [])])})"

    def _row_parts(self, runs: Sequence[Run], values: Sequence[Value]) -> list[Expression]:
        parts: list[Expression] = []
        place = 0
        for run in runs:
            width = len(self.plan.columns(run.nodes[0]))
            if run.mode == "one":
                parts.append(self.expression(run.nodes[0], values[place : place + width]))
                place += width
                continue
            count, first = values[place], values[place + 1 : place + 1 + width]
            second = values[place + 1 + width : place + 1 + 2 * width]
            parts += self._run(run, count, first, second)
            place += 1 + 2 * width
        return folded(parts)

    def _run(self, run: Run, count: Value, first: Sequence[Value], second: Sequence[Value]) -> Iterator[Expression]:
        if run.mode == "step":
            yield star(self.expression(run.nodes[0], [*map(stepped, first, second)]), "i", count.text)
            return
        one, other = self.expression(run.nodes[0], first), self.expression(run.nodes[-1], second)
        if one.text == other.text:
            both = replace(one, marks=one.all_marks() | other.all_marks())
            yield star(both, "_", count.text)
        else:
            yield one
            less = f"{count.text} - 1" if not isinstance(count.literal, int) else str(count.literal - 1)
            yield star(other, "_", less)

    # -- functions and classes -----------------------------------------------------------------------------------

    def definition(self, made: Definition) -> list[str]:
        """A function that makes a row, or a class."""
        if made.is_class:
            return self._class(made)
        arguments = self._declared(made)
        result = text.signature(0, f"def {made.name}", arguments, f" -> {self.dialect.sequence}:")
        return [*result, *text.lines(1, "return ", self.expression(made.node, made.columns, call=False))]

    def _declared(self, made: Definition) -> list[str]:
        extra = self.dialect.extra_declared
        plain = [f"{a.name}: {a.annotation}" for a in made.arguments if a.default is None]
        given = [f"{a.name}: {a.annotation} = {a.default.text}" for a in made.arguments if a.default is not None]
        if self._as_row(made):
            plain[-len(made.widths) :] = ["*widths: int"]
            extra = tuple(text for text in extra if text != "*")
        return [*plain, *given, *extra]

    def _as_row(self, made: Definition) -> bool:
        """Whether its widths are more than a signature has room for: a class takes them as a row of numbers then."""
        taken = sum(len(f"{a.name}: {a.annotation}, ") for a in made.arguments if a.default is None)
        room = (
            text.WIDTH - len("    def __init__(self, ) -> None:") - sum(len(e) + 2 for e in self.dialect.extra_declared)
        )
        return made.is_class and len(made.widths) > 4 and taken > room

    def _class(self, made: Definition) -> list[str]:
        node = made.node
        values = Values(self, node, made.columns)
        kept = [f"        {', '.join(a.name for a in made.widths)} = widths"] if self._as_row(made) else []
        kept += self._bind(node, values)
        for part in self.parts(node):
            expression = values.of(part)
            if _is_kept(expression, part):
                kept += self._attribute(part, expression, values)
        flow = flow_of(node) or node
        if (
            isinstance(flow.layer, Residual)
            and values.scale(flow).literal != 1.0
            and not _is_number(values.scale(flow))
        ):
            kept.append(f"        self.scale = {values.scale(flow).text}")
        self._bound, result_type = {}, self._result(flow)
        start = [f"        {self.dialect.start}"] if self.dialect.start else []
        body = [*start, *kept] or ["        pass"]
        return [
            f"class {made.name}({self.dialect.module}):",
            *text.docstring(1, _about(flow)),
            "",
            *text.signature(1, "def __init__", ["self", *self._declared(made)], " -> None:"),
            *body,
            "",
            f"    {self.dialect.forward.replace('RESULT', result_type)}",
            *(one for statement in self._forward(node, values) for one in text.statement(2, statement)),
        ]

    def _bind(self, node: TreeNode, values: "Values") -> list[str]:
        """A short name, with what every constructor hands on, for the unit that a class calls often."""
        self._bound = {}
        names = {made.name for made in self.plan.definitions.values()}
        if not self.dialect.extra or "conv" in names:
            return []
        texts = " ".join(values.of(part).text for part in self.parts(node))
        units = [made.name for made in self.plan.definitions.values() if made.node.is_unit]
        often = [name for name in units if name.startswith("conv") and texts.count(f"{name}(") >= OFTEN]
        if len(often) != 1:
            return []
        self._bound = {often[0]: "conv"}
        return [f"        conv = partial({often[0]}, {self.dialect.extra})"]

    def _attribute(self, part: KeptLayers, expression: Expression, values: "Values") -> list[str]:
        condition = values.condition(part)
        before = f"self.{part.name} = "
        if condition is None or condition.equals(True):
            return text.lines(2, before, expression)
        otherwise = [f"        else:\n            {before}{self.dialect.identity}"]
        return [f"        if {condition.text}:", *text.lines(3, before, expression), *otherwise]

    def _result(self, flow: TreeNode) -> str:
        several = isinstance(flow.layer, Graph) and len(flow.layer.outputs) > 1
        return f"tuple[{self.dialect.tensor}, ...]" if several else self.dialect.tensor

    def parts(self, node: TreeNode) -> list[KeptLayers]:
        """What a class keeps, with the names it has there."""
        flow = flow_of(node)
        if flow is not None:
            at = node.children.index(flow)
            before, after = node.children[:at], node.children[at + 1 :]
            own = self.parts(flow)
            taken = {part.name for part in own}
            return [*_outside(before, "before", taken), *own, *_outside(after, "after", taken)]
        if isinstance(node.layer, Residual):
            shortcut = [KeptLayers("shortcut", [node.shortcut])] if node.shortcut else []
            return [*shortcut, KeptLayers("body", [node.children[-1]])]
        names = different([child.name for child in node.children], attribute)
        return [KeptLayers(names[child.name], [child]) for child in node.children]

    # -- forward passes ------------------------------------------------------------------------------------------

    def _forward(self, node: TreeNode, values: "Values") -> list[Line]:
        flow = flow_of(node)
        if flow is None:
            *statements, last = self._flow(node, "x", values)
            return [*statements, Line(f"return {last}", last.marks)]
        own = {part.name for part in self.parts(flow)}
        names = [part.name for part in self.parts(node)]
        outside = [part for part in self.parts(node) if part.name not in own]
        before = [part for part in outside if names.index(part.name) < min(map(names.index, own), default=0)]
        after = [part for part in outside if part not in before]
        result = [Line(f"x = {values.applied(part, 'x')}", self.alone(part)) for part in before]
        *statements, last = self._flow(flow, "x", values)
        result += statements
        result.append(Line(f"{'x =' if after else 'return'} {last}", last.marks))
        for number, part in enumerate(after, 1):
            start = "return" if number == len(after) else "x ="
            result.append(Line(f"{start} {values.applied(part, 'x')}", self.alone(part)))
        return result

    def alone(self, *parts: KeptLayers) -> Marks:
        """The layers that a line applies by themselves, where it applies these parts."""
        below = ([leaf for node in part.nodes for leaf in node.below() if leaf.is_leaf] for part in parts)
        return Marks(frozenset[str]().union(*(self._made[leaves[0]] for leaves in below if len(leaves) == 1)))

    def _flow(self, node: TreeNode, x: str, values: "Values") -> list[Line]:
        """Statements, and the expression of what comes out."""
        parts = {part.nodes[0].name: part for part in self.parts(node)}
        match node.layer:
            case Residual():
                body = values.applied(parts[node.children[-1].name], x)
                scale = values.scale(node)
                factor = "" if scale.literal == 1.0 else f"{scale.text} * " if _is_number(scale) else "self.scale * "
                into = values.applied(parts[node.shortcut.name], x) if node.shortcut else x
                same = node.children[-1].output == (node.shortcut.output if node.shortcut else node.input)
                return [
                    Line(self.dialect.merge("add", [into, f"{factor}{body}"], not same), self.alone(*parts.values()))
                ]
            case Branches():
                texts = [values.applied(part, x) for part in parts.values()]
                merged = self._merged(node.layer.merge, texts, [child.output for child in node.children])
                return [Line(merged, self.alone(*parts.values()))]
            case Graph():
                return self._graph(node, node.layer, parts, values)
        raise AssertionError(node.layer)

    def _merged(self, merge: Merge, texts: Sequence[str], shapes: Sequence[Shape]) -> str:
        return texts[0] if len(texts) == 1 else self.dialect.merge(merge, texts, len(set(shapes)) > 1)

    def _graph(self, node: TreeNode, layer: Graph, parts: dict[str, KeptLayers], values: "Values") -> list[Line]:
        shapes = {INPUT: node.input} | {child.name: child.output for child in node.children}
        names = {INPUT: "x"} | different([child.name for child in node.children], safe)
        result = []
        for wire in layer.nodes:
            into = self._merged(wire.merge, [names[i] for i in wire.inputs], [shapes[i] for i in wire.inputs])
            name = wire.layer.name
            result.append(Line(f"{names[name]} = {values.applied(parts[name], into)}", self.alone(parts[name])))
        return [*result, Line(", ".join(names[name] for name in layer.outputs))]

    # -- parameters ----------------------------------------------------------------------------------------------

    def paths(self, node: TreeNode, prefix: str) -> Iterator[tuple[str, str]]:
        """Canonical path and name in the emitted network of every array of a node that is kept as `prefix`."""
        if node.is_leaf and node.layer is not None:
            for info in layer_parameters(node.layer, node.path, node.input):
                yield info.path, f"{prefix}.{self.dialect.layout.names[info.role]}"
        elif node.is_flow or flow_of(node) is not None:
            for part in self.parts(node):
                yield from self.row_paths(part.nodes, f"{prefix}.{part.name}")
        else:
            yield from self.row_paths(node.children, prefix)

    def row_paths(self, nodes: Sequence[TreeNode], prefix: str) -> Iterator[tuple[str, str]]:
        """The same of nodes in a row."""
        for number, node in enumerate(nodes):
            place = prefix if len(nodes) == 1 else f"{prefix}.{self.dialect.place.format(number)}"
            yield from self.paths(node, place)


class Values:
    """The numbers of a class's node, and with them what its parts are made by and applied with."""

    def __init__(self, writer: Writer, node: TreeNode, columns: Sequence[Value]) -> None:
        self._writer = writer
        self._found: dict[TreeNode, Sequence[Value]] = {}
        self._conditions: dict[TreeNode, Value] = {}
        self._scales: dict[TreeNode, Value] = {}
        self._spread(node, columns)

    def _spread(self, node: TreeNode, columns: Sequence[Value]) -> None:
        """Every direct part's columns, in the order of `Plan.columns`."""
        if node.is_row:
            place = 0
            for child in node.children:
                place = self._take(child, columns, place, deeper=child.is_flow)
        elif isinstance(node.layer, Residual):
            place = self._take(node.children[-1], columns, 0)
            if node.shortcut is not None:
                self._conditions[node.shortcut] = columns[place]
                place = self._take(node.shortcut, columns, place + 1)
            self._scales[node] = columns[-1]
        else:
            place = 0
            for child in node.children:
                place = self._take(child, columns, place)

    def _take(self, child: TreeNode, columns: Sequence[Value], place: int, deeper: bool = False) -> int:
        end = place + len(self._writer.plan.columns(child))
        self._found[child] = columns[place:end]
        if deeper:
            self._spread(child, columns[place:end])
        return end

    def of(self, part: KeptLayers) -> Expression:
        """What makes a part."""
        parts = [self._writer.expression(node, self._found[node]) for node in part.nodes]
        return parts[0] if len(parts) == 1 else self._writer.row(parts)

    def condition(self, part: KeptLayers) -> Value | None:
        """Whether it is there, where it is not always."""
        return self._conditions.get(part.nodes[0])

    def scale(self, node: TreeNode) -> Value:
        """The factor of a residual's body."""
        return self._scales[node]

    def applied(self, part: KeptLayers, x: str) -> str:
        """The part's result for `x`."""
        expression = self.of(part)
        if _is_kept(expression, part):
            return f"self.{part.name}({x})"
        if not part.nodes[0].children and not part.nodes[0].is_leaf:
            return x
        return applied(expression.text, x)


def _is_number(value: Value) -> bool:
    return isinstance(value.literal, int | float)


def _is_kept(expression: Expression, part: KeptLayers) -> bool:
    """Whether a part is an attribute: not what does nothing, nor a plain function."""
    empty = len(part.nodes) == 1 and not part.nodes[0].is_leaf and not part.nodes[0].children
    return not empty and not expression.function


def _outside(nodes: list[TreeNode], name: str, taken: set[str]) -> list[KeptLayers]:
    """What stands before or behind the branches of a block."""
    if not nodes:
        return []
    name = attribute(nodes[0].name) if len(nodes) == 1 and nodes[0].is_leaf else name
    while name in taken:
        name += "_"
    return [KeptLayers(name, nodes)]


def _about(flow: TreeNode) -> str:
    """What a class does, in a line."""
    match flow.layer:
        case Branches():
            merged = {"concatenate": "concatenated along the channels", "add": "added", "multiply": "multiplied"}
            if len(flow.children) == 2 and not flow.children[0].children:
                return f"The input and what is made of it, {merged[flow.layer.merge]}."
            return f"{len(flow.children)} branches on the same input, {merged[flow.layer.merge]}."
        case Residual():
            projected = ", or its projection," if any(child.name == "shortcut" for child in flow.children) else ""
            return f"A residual unit: the input{projected} plus the body's output."
        case Graph() if all(wire.inputs == (INPUT,) for wire in flow.layer.nodes):
            return f"{len(flow.children)} branches on the same input, each with an output."
    return "Layers that take the outputs of others by name."
