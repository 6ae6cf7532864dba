"""Folding: what was a tree comes back as that tree, what is none keeps the smallest graph, and all compute the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from as_steps import Arrays, as_graph, as_steps, below
from structure import same_structure
from triptych.importers.assemble import assemble
from triptych.importers.fold import fold
from triptych.importers.rows import MOST_NESTED
from triptych.importers.steps import Request, Step, merge_only, needed
from triptych.reference import network
from triptych.spec.layers import (
    INPUT,
    Affine,
    Architecture,
    Block,
    Branches,
    Conv,
    Graph,
    Layer,
    Layers,
    Primitive,
    ReLU,
    Residual,
    Sigmoid,
    children,
    walk,
)
from triptych.utils.errors import TriptychError
from triptych.weights import initializers
from triptych.zoo import build, registry

CHANNELS = 2


def conv(name: str, *inputs: str, channels: int = CHANNELS) -> Step:
    return Step(name, Conv("", channels, (3, 3), padding=(1, 1)), inputs or (INPUT,))


def relu(name: str, *inputs: str) -> Step:
    return Step(name, ReLU(""), inputs or (INPUT,))


def concatenate(name: str, *inputs: str) -> Step:
    return merge_only(name, inputs, "concatenate")


def add(name: str, *inputs: str) -> Step:
    return merge_only(name, inputs, "add")


def multiply(name: str, *inputs: str) -> Step:
    return merge_only(name, inputs, "multiply")


def text(layers: Layers) -> str:
    """A row as a line: `a [b | c] +(d)`, with a graph in braces."""
    return " ".join(map(_text, layers))


def _text(layer: Layer) -> str:
    match layer:
        case Block():
            return text(layer.layers)
        case Branches():
            sign = {"concatenate": "", "add": "+", "multiply": "*"}[layer.merge]
            return f"{sign}[{' | '.join(map(_text, layer.branches))}]"
        case Residual():
            shortcut = _text(layer.shortcut) if layer.shortcut else ""
            scale = f"{layer.scale:g}*" if layer.scale != 1 else ""
            return f"({shortcut} + {scale}{_text(layer.body)})"
        case Graph():
            nodes = (f"{n.layer.name}({', '.join(n.inputs)})={_text(n.layer)}" for n in layer.nodes)
            return f"{{{'; '.join(nodes)} -> {', '.join(layer.outputs)}}}"
    return layer.name


BRIDGE = [conv("a"), conv("b", "a"), conv("c", "a"), add("d", "b", "c"), conv("e", "d"), add("f", "e", "c")]
SECOND = {"a": "f", "b": "bb", "c": "cc", "d": "dd", "e": "ee"}
CASES: dict[str, tuple[list[Step], str]] = {
    "chain": ([conv("a"), relu("b", "a"), conv("c", "b")], "a b c"),
    "diamond": ([conv("a"), conv("b", "a"), relu("c", "a"), concatenate("d", "c", "b"), conv("e", "d")], "a [c | b] e"),
    "identity": ([conv("a"), conv("b", "a"), relu("c", "b"), add("d", "a", "c"), relu("e", "d")], "a ( + b c) e"),
    "identity second": ([conv("a"), conv("b", "a"), relu("c", "b"), add("d", "c", "a")], "a ( + b c)"),
    "projection": ([conv("a"), relu("b", "a"), conv("c"), add("d", "b", "c")], "(c + a b)"),
    "equal sides": ([conv("a"), conv("b"), add("c", "a", "b")], "+[a | b]"),
    "two convolutions are no projection": (
        [conv("a"), conv("b", "a"), relu("c", "b"), conv("d"), conv("e", "d"), add("f", "c", "e")],
        "+[a b c | d e]",
    ),
    "branches are no projection": (
        [conv("a"), relu("b", "a"), relu("c", "b"), relu("d"), concatenate("e", "d", INPUT), add("f", "c", "e")],
        "+[a b c | [d | ]]",
    ),
    "twice the same": ([conv("a"), add("b", "a", "a"), relu("c", "b")], "a +[ | ] c"),
    "merge with a layer": (
        [conv("a"), conv("b"), replace(relu("c", "a", "b"), merge="add"), conv("d", "c")],
        "+[a | b] c d",
    ),
    "three": ([conv("a"), conv("b"), relu("c"), add("d", "a", "b", "c")], "+[a | b | c]"),
    "gate": ([conv("a"), relu("b", "a"), conv("c", "b"), multiply("d", "a", "c")], "a *[ | b c]"),
    "nested": (
        [conv("a"), conv("b"), relu("c", "b"), conv("d", "b"), concatenate("e", "c", "d"), concatenate("f", "a", "e")],
        "[a | b [c | d]]",
    ),
    "long skip": (
        [
            conv("a"),
            conv("b", "a"),
            relu("c", "b"),
            conv("d", "c"),
            concatenate("e", "d", "b"),
            concatenate("f", "e", "a"),
        ],
        "a [b [c d | ] | ]",
    ),
    "aggregation": (  # DLA: of the three that are joined, two come from one place
        [conv("a"), conv("b", "a"), conv("c"), concatenate("d", "b", "a", "c"), conv("e", "d")],
        "[a [b | ] | c] e",
    ),
    "dense": (
        [conv("a"), conv("b", "a"), concatenate("c", "a", "b"), conv("d", "c"), concatenate("e", "c", "d")],
        "a [ | b] [ | d]",
    ),
    "apart in a sum": ([conv("a"), conv("b", "a"), conv("c"), add("d", "a", "c", "b")], "(c + a ( + b))"),
    "apart in a concatenation": (
        [conv("a"), conv("b", "a"), conv("c"), concatenate("d", "a", "c", "b")],
        "{a(input)=a; b(a)=b; c(input)=c; d(a, c, b)= -> d}",
    ),
    "bridge": ([*BRIDGE, relu("g", "f")], "a {b(input)=b; c(input)=c; d(b, c)=; e(d)=e; f(e, c)= -> f} g"),
    "bridge in a residual": (
        [*BRIDGE, relu("g", "f"), add("h", INPUT, "g")],
        "( + a {b(input)=b; c(input)=c; d(b, c)=; e(d)=e; f(e, c)= -> f} g)",
    ),
    "branches in a bridge": (
        [*BRIDGE[:-2], relu("e0", "d"), conv("e1", "d"), add("e", "e0", "e1"), relu("f0", "e"), add("f", "f0", "c")],
        "a {b(input)=b; c(input)=c; d(b, c)=; f0(d)=+[e0 | e1] f0; f(f0, c)= -> f}",
    ),
    "two bridges": (
        BRIDGE
        + [replace(s, name=s.name * 2, inputs=tuple((i * 2).replace("aa", "f") for i in s.inputs)) for s in BRIDGE[1:]],
        "a {b(input)=b; c(input)=c; d(b, c)=; e(d)=e; f(e, c)= -> f} "
        "{bb(input)=bb; cc(input)=cc; dd(bb, cc)=; ee(dd)=ee; ff(ee, cc)= -> ff}",
    ),
    "a product is not parted": (
        [conv("a"), conv("b"), conv("c", "b"), multiply("d", "a", "b", "c")],
        "{a(input)=a; b(input)=b; c(b)=c; d(a, b, c)= -> d}",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_graph_by_hand(case: str) -> None:
    steps, expected = CASES[case]
    assert text(fold(steps, [steps[-1].name])) == expected


def test_a_constant_factor_becomes_the_scale_of_a_residual() -> None:
    steps = [conv("a"), Step("b", Affine("", (0.2,)), ("a",)), add("c", "b", INPUT)]
    assert text(fold(steps, ["c"])) == "( + 0.2*a)"
    shifted = [steps[0], replace(steps[1], layer=Affine("", (0.2,), (1.0,))), steps[2]]
    assert text(fold(shifted, ["c"])) == "( + a b)"
    several = [steps[0], replace(steps[1], layer=Affine("", (0.2, 0.3))), steps[2]]
    assert text(fold(several, ["c"])) == "( + a b)"
    trained = [steps[0], replace(steps[1], layer=Affine("", trained=True)), steps[2]]
    assert text(fold(trained, ["c"])) == "( + a b)"
    alone = [Step("b", Affine("", (0.2,))), add("c", "b", INPUT)]
    assert text(fold(alone, ["c"])) == "( + b)"


OUTPUTS = [
    (["c", "b"], [conv("a"), relu("b", "a"), relu("c", "a")], "a {b(input)=b; c(input)=c -> c, b}"),
    (["b", "c"], [conv("a"), relu("b", "a"), relu("c", "b")], "a {b(input)=b; c(b)=c -> b, c}"),
    (["a", "b"], [conv("a"), relu("b", "a")], "{a(input)=a; b(a)=b -> a, b}"),
    (["a", "b"], [conv("a"), conv("b")], "{a(input)=a; b(input)=b -> a, b}"),
    (
        ["d", "c"],
        [conv("a"), conv("b", "a"), relu("c", "b"), add("d", "c", "a")],
        "a {c(input)=b c; d(c, input)= -> d, c}",
    ),
]


@pytest.mark.parametrize(("outputs", "steps", "expected"), OUTPUTS)
def test_several_outputs_end_in_a_graph(outputs: list[str], steps: list[Step], expected: str) -> None:
    assert text(fold(steps, outputs)) == expected


def test_an_output_that_a_merge_gives_is_a_node_of_the_last_graph() -> None:
    steps = [conv("a"), conv("b", "a"), relu("c", "b"), add("d", "c", "a"), relu("e", "d")]
    assert text(fold(steps, ["d", "e"])) == "a {d(input)=( + b c); e(d)=e -> d, e}"


def test_what_no_output_needs_is_left_out() -> None:
    steps = [conv("a"), relu("b", "a"), relu("c", "a"), add("d", "b", "c")]
    assert text(fold(steps, ["b"])) == "a b"


def test_steps_out_of_order_of_one_name_and_merging_composites_are_refused() -> None:
    with pytest.raises(TriptychError, match=r"^step 'a' takes 'b', which no step before it is called$"):
        fold([relu("a", "b"), relu("b")], ["a"])
    with pytest.raises(TriptychError, match=r"^two steps are called 'a'"):
        fold([relu("a"), relu("a", "a")], ["a"])
    with pytest.raises(TriptychError, match=r"^two steps are called 'input'"):
        fold([relu(INPUT)], [INPUT])
    with pytest.raises(TriptychError, match=r"^step 'b' merges"):
        fold([relu("a"), Step("b", Block("", (ReLU("x"),)), ("a", INPUT), "add")], ["b"])


def test_ten_thousand_steps_need_no_recursion() -> None:
    """In a row, nested (which becomes a flat graph, because no tree is so deep), and in a ladder."""
    count = 5_000
    row = [relu(str(i), str(i - 1) if i else INPUT) for i in range(2 * count)]
    assert len(fold(row, [row[-1].name])) == 2 * count
    down = [relu(str(i), str(i - 1) if i else INPUT) for i in range(count)]
    up = [add(str(count + i), str(count + i - 1), str(count - 2 - i)) for i in range(count - 1)]
    (nested,) = fold(down + up, [up[-1].name])
    assert isinstance(nested, Graph)
    assert len(nested.nodes) == len(down + up)
    ladder = [
        step for i in range(1, count) for step in (add(f"a{i}", f"a{i - 1}", f"b{i - 1}"), relu(f"b{i}", f"a{i - 1}"))
    ]
    (end,) = fold([relu("a0"), relu("b0"), *ladder, add("end", ladder[-2].name, ladder[-1].name)], ["end"])
    assert isinstance(end, Graph)


def test_branches_are_nested_up_to_a_limit() -> None:
    def nested(depth: int) -> Layers:
        row: Layers = (Conv("conv", CHANNELS, (1, 1)), ReLU("relu"))
        for _ in range(depth):
            row = (Residual("residual", Block("body", (ReLU("before"), *row))),)
        return row

    for depth in (MOST_NESTED, MOST_NESTED + 1):
        steps, outputs = as_steps(nested(depth))
        assert isinstance(fold(steps, outputs)[0], Residual if depth == MOST_NESTED else Graph)
        assemble(steps, outputs, Request(), name="deep", source="", input_shape=(CHANNELS, 4, 4))


def test_a_graph_that_is_too_involved_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.importers.fold.MOST_VISITS", 1)
    assert text(fold(CASES["diamond"][0], ["e"])) == "a [c | b] e"
    assert text(fold([*BRIDGE, relu("g", "f")], ["g"])) == (
        "{a(input)=a; b(a)=b; c(a)=c; d(b, c)=; e(d)=e; f(e, c)=; g(f)=g -> g}"
    )


@pytest.mark.parametrize("name", registry())
def test_every_network_of_the_zoo_comes_back_by_name(name: str) -> None:
    entry = registry()[name]
    ratio, side = entry.conformance
    whole = build(name, input=(entry.input[0], side, side), classes=10, width_ratio=ratio)
    arrays = initializers.draw(whole, 0)
    steps, outputs = as_steps(whole.layers, arrays)
    assert same_structure(fold(steps, outputs), whole.layers)
    imported = assemble(steps, outputs, Request(), name=name, source=whole.source, input_shape=whole.input)
    assert imported.parameters is not None
    assert [id(array) for array in imported.parameters.values()] == [id(array) for array in arrays.values()]
    if any(isinstance(layer, Block) and len(layer.layers) == 1 for _, layer in walk(whole.layers)):
        assert len(imported.parameters) == len(arrays)  # a Block of one layer leaves no trace in the steps
    else:
        assert imported.architecture == replace(whole, initializer=imported.architecture.initializer)


# Rows whose every layer keeps CHANNELS maps of one size, in the form in which fold gives them.
leaves = st.sampled_from(
    [Conv("x", CHANNELS, (3, 3), padding=(1, 1)), Conv("x", CHANNELS, (1, 1), bias=False), ReLU("x"), Sigmoid("x")]
)
PROJECTION = Conv("x", CHANNELS, (1, 1))
leaf_rows = st.lists(leaves, min_size=1, max_size=3).map(tuple)


def block(row: Layers) -> Block:
    return Block("x", row)


def size(row: Layers) -> int:
    return sum(1 if isinstance(layer, Primitive) else size(children(layer)) for layer in row)


def _composites(rows: st.SearchStrategy[Layers]) -> st.SearchStrategy[Layers]:
    empty: st.SearchStrategy[Layers] = st.just(())
    several = st.lists(rows | empty, min_size=2, max_size=3)
    concatenated = several.map(lambda rows: (Branches("x", tuple(map(block, rows))), Conv("x", CHANNELS, (1, 1))))
    multiplied = several.map(lambda rows: (Branches("x", tuple(map(block, rows)), "multiply"),))
    added = st.lists(rows | empty, min_size=3, max_size=3).map(
        lambda rows: (Branches("x", tuple(map(block, rows)), "add"),)
    )
    residual = st.builds(
        lambda body, projected, scale: (
            Residual("x", block(body), block((PROJECTION,)) if projected and size(body) > 1 else None, scale),
        ),
        rows,
        st.booleans(),
        st.sampled_from([1.0, 0.5]),
    )
    composite = concatenated | multiplied | added | residual
    return st.lists(rows | composite, min_size=1, max_size=3).map(lambda parts: sum(parts, ()))


trees = st.recursive(leaf_rows, _composites, max_leaves=12)


def renamed(layers: Layers) -> Layers:
    """With names, because the strategy gives none."""
    return tuple(_renamed(layer, f"l{place}") for place, layer in enumerate(layers))


def _renamed(layer: Layer, name: str) -> Layer:
    match layer:
        case Block():
            return Block(name, renamed(layer.layers))
        case Branches():
            return replace(layer, name=name, branches=renamed(layer.branches))
        case Residual():
            shortcut = layer.shortcut and Block("shortcut", renamed(layer.shortcut.layers))
            return replace(layer, name=name, body=Block("body", renamed(layer.body.layers)), shortcut=shortcut)
    return replace(layer, name=name)


@given(trees)
@settings(max_examples=150, deadline=None)
def test_a_random_tree_comes_back(tree: Layers) -> None:
    tree = renamed(tree)
    assert same_structure(fold(*as_steps(tree)), tree)


SHAPE = (CHANNELS, 3, 4)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Step], list[str]]:
    """Any graph of up to 14 steps with one or two outputs; concatenations are made narrow again."""
    steps: list[Step] = []
    names = [INPUT]
    for place in range(draw(st.integers(2, 14))):
        near = names[-draw(st.integers(1, 4)) :]
        inputs = tuple(draw(st.lists(st.sampled_from(near), min_size=1, max_size=3)))
        merge = draw(st.sampled_from(["concatenate", "add", "multiply"]))
        narrow = merge == "concatenate" and len(inputs) > 1
        layer = PROJECTION if narrow else draw(leaves | st.just(Block("x", ())) if len(inputs) > 1 else leaves)
        steps.append(Step(f"s{place}", layer, inputs, merge))
        names.append(steps[-1].name)
    return steps, list({names[-1]: 0, draw(st.sampled_from(names[1:])): 0})


def outputs_and_gradients(whole: Architecture, arrays: Arrays) -> tuple[list[np.ndarray], Arrays]:
    images = np.random.default_rng(1).normal(size=(2, *whole.input))
    run = network.forward(whole, arrays, images, train=True)
    ends = [run.outputs[head] for head in run.heads]
    _, gradients = network.backward(run, tuple(np.cos(np.arange(end.size)).reshape(end.shape) for end in ends))
    return ends, gradients


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_a_folded_graph_computes_what_the_loose_steps_do(case: tuple[list[Step], list[str]]) -> None:
    """The steps that the outputs need, one node for each, are run beside the folded tree. Outputs are the same to the
    bit where nothing adds more than two; gradients are sums in another order."""
    steps, outputs = case
    wanted = needed({step.name: step.inputs for step in steps}, outputs)
    steps = [step for step in steps if step.name in wanted]
    graph, paths = as_graph(steps, outputs)
    loose = Architecture("loose", SHAPE, 0, (graph,))
    arrays = initializers.draw(loose, 0)
    full = [replace(step, arrays=below(arrays, paths[step.name])) for step in steps]
    imported = assemble(full, outputs, Request(), name="folded", source="", input_shape=SHAPE)
    parameters = imported.parameters or {}
    expected, gradients = outputs_and_gradients(loose, arrays)
    observed, folded_gradients = outputs_and_gradients(imported.architecture, parameters)
    adds_many = any(step.merge == "add" and len(step.inputs) > 2 for step in steps)
    for one, other in zip(expected, observed, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12 * np.abs(one).max() if adds_many else 0)
    origins = {id(array): path for path, array in arrays.items()} | {id(None): "input"}
    for path, gradient in folded_gradients.items():
        one = gradients[origins[id(parameters.get(path))]]
        np.testing.assert_allclose(gradient, one, rtol=0, atol=1e-11 * max(1, np.abs(one).max()), err_msg=path)
    assert len(folded_gradients) == len(gradients)
