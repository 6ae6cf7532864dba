"""Names of imported networks: what programs write, and what a summary then reads."""

from __future__ import annotations

import random
import re

import pytest

from triptych.importers.fold import fold
from triptych.importers.name_parts import name_parts
from triptych.importers.names import named
from triptych.importers.steps import Step, merge_only
from triptych.spec.layers import INPUT, BatchNorm, Block, Conv, Dense, Flatten, Layer, MaxPool, ReLU, join, walk

KINDS: dict[str, Layer] = {
    "conv": Conv("", 4, (1, 1)),
    "norm": BatchNorm(""),
    "relu": ReLU(""),
    "pool": MaxPool("", (2, 2), (2, 2)),
    "flat": Flatten(""),
    "dense": Dense("", 3),
}


def row(*names: str, source: str = INPUT) -> list[Step]:
    """Steps in a row, as `kind name`."""
    steps: list[Step] = []
    for text in names:
        kind, name = text.split()
        steps.append(Step(name, KINDS[kind], (source,)))
        source = name
    return steps


def paths(steps: list[Step], *outputs: str) -> str:
    """Where every step's layer came to, in the order of execution."""
    layers, found = named(fold(steps, outputs or [steps[-1].name]))
    inside = [path for path, layer in walk(layers) if not isinstance(layer, Block) or layer.layers]
    assert len(set(inside)) == len(inside)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", part) for path in inside for part in path.split("."))
    assert set(found.values()) <= set(inside)
    return " ".join(found[step.name] for step in steps if step.name in found)


PARTS = [
    ("resnetv10_stage1_conv0_fwd", "resnetv10 stage1 conv0"),
    ("net_dense0_fwd_flatten", "net_dense0 flatten"),
    ("flatten0_flatten0", "flatten0"),
    ("stage1_unit2_bn1", "stage1 unit2 bn1"),
    ("conv1_1", "conv1_1"),
    ("max_pool", "max_pool"),
    ("conv2_block1_2_conv", "conv2 block1 2 conv"),
    ("batch_normalization_93", "batch_normalization_93"),
    ("a_1_2_3_4_5_6_7_8_9_10_11_12_b", "2 3 4 5 6 7 8 9 10 11 12 b"),
]


@pytest.mark.parametrize(("name", "parts"), PARTS)
def test_parts_of_one_name(name: str, parts: str) -> None:
    assert " ".join(name_parts([name])[name]) == parts


STRUCTURED = [
    ("layer1.0.conv1", "layer1 0 conv1"),
    ("inception_3a/3x3_reduce", "inception_3a 3x3_reduce"),
    ("/layer1/layer1.0/conv1/Conv", "layer1 0 conv1"),
    ("/features/features.3/block/block.0/block.0.0/Conv", "features 3 block 0 0"),
    ("/layer1/layer1.0/Add", "layer1 0"),
    ("/Flatten", "Flatten"),
]


@pytest.mark.parametrize(("name", "parts"), STRUCTURED)
def test_parts_of_one_name_with_separators(name: str, parts: str) -> None:
    assert " ".join(name_parts([name])[name]) == parts


def test_an_operators_name_stays_where_it_alone_tells_two_apart() -> None:
    parts = name_parts(["/block/Relu", "/block/Add", "/block/conv/Conv"])
    assert list(parts.values()) == [("block", "Relu"), ("block", "Add"), ("block", "conv")]


ROWS = {
    "gluon": (
        ["conv net0_conv0_fwd", "relu net0_relu0_fwd", "conv net0_stage1_conv0_fwd", "norm net0_stage1_batchnorm0_fwd"],
        "conv0 relu0 stage1.conv0 stage1.batchnorm0",
    ),
    "symbol": (
        [
            "conv conv0",
            "conv stage1_unit1_conv1",
            "norm stage1_unit1_bn1",
            "conv stage1_unit2_conv1",
            "norm stage1_unit2_bn1",
        ],
        "conv0 stage1.unit1.conv1 stage1.unit1.bn1 stage1.unit2.conv1 stage1.unit2.bn1",
    ),
    "torch": (
        [
            "conv features.0",
            "relu features.1",
            "pool features.2",
            "flat flatten",
            "dense classifier.1",
            "relu classifier.2",
        ],
        "features.conv0 features.relu1 features.pool2 flatten classifier.dense1 classifier.relu2",
    ),
    "caffe": (
        ["conv conv1_1", "relu relu1_1", "conv conv1_2", "relu relu1_2", "pool pool1", "dense fc6"],
        "conv1_1 relu1_1 conv1_2 relu1_2 pool1 fc6",
    ),
    "keras": (
        ["conv block1_conv1", "relu block1_conv1_relu", "conv block1_conv2", "pool block1_pool", "conv block2_conv1"],
        "block1.conv1.conv block1.conv1.relu block1.conv2 block1.pool block2_conv1",
    ),
    "a layer and what follows it": (
        ["conv conv1", "norm conv1_bn", "relu conv1_relu", "conv conv2", "norm conv2_bn"],
        "conv1.conv conv1.bn conv1.relu conv2.conv conv2.bn",
    ),
    "a digit first": (["conv 1x1", "conv 3x3_reduce", "relu 0"], "conv1x1 conv3x3_reduce relu0"),
    "nothing left": (["conv !", "conv ?", "relu é"], "conv conv_2 relu"),
    "the same when cleaned": (["conv a:b", "conv a_b", "conv a-b"], "a_b a_b_2 a_b_3"),
    "parts that lie apart": (["conv a.x", "conv b.x", "conv a.y", "conv b.y"], "a_x b_x a_y b_y"),
    "numbered calls between": (
        ["conv a.0.c", "relu relu_1", "conv a.0.d", "relu relu_2", "conv b.c", "relu b.d"],
        "a.c a.relu_1 a.d relu_2 b.c b.d",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_names_in_a_row(case: str) -> None:
    names, expected = ROWS[case]
    assert paths(row(*names)) == expected


def test_a_prefix_is_no_block_where_not_all_of_it_is_in_the_row() -> None:
    steps = [*row("conv a.x", "norm a.y"), *row("conv a.z", source="a.y"), *row("conv b.x", "norm b.y", source="a.y")]
    steps.append(merge_only("cat", ("a.z", "b.y"), "concatenate"))
    assert paths(steps) == "a_x a_y mixed1.a.z mixed1.b.x mixed1.b.y"


def unit(prefix: str, source: str, *, projected: bool, relu: str = "relu") -> list[Step]:
    """A residual unit of PyTorch's kind, with its activation."""
    body = row(
        f"conv {prefix}.conv1", f"norm {prefix}.bn1", f"relu {prefix}.{relu}", f"conv {prefix}.conv2", source=source
    )
    shortcut = row(f"conv {prefix}.downsample.0", f"norm {prefix}.downsample.1", source=source) if projected else []
    end = shortcut[-1].name if shortcut else source
    merge = merge_only(f"{prefix}.add", (body[-1].name, end), "add")
    return [*body, *shortcut, merge, *row(f"relu {prefix}.{relu}_1", source=merge.name)]


def test_residual_units_are_blocks_numbered_as_in_the_file() -> None:
    steps = row("conv conv1", "relu relu")
    for prefix, projected in (("layer1.0", False), ("layer1.1", False), ("layer2.0", True), ("layer2.1", False)):
        steps += unit(prefix, steps[-1].name, projected=projected)
    steps += row("flat flatten", "dense fc", source=steps[-1].name)
    assert paths(steps).split() == [
        *("conv1", "relu"),
        *(f"layer1.unit0.residual.body.{name}" for name in ("conv1", "bn1", "relu", "conv2")),
        "layer1.unit0.relu_1",
        *(f"layer1.unit1.residual.body.{name}" for name in ("conv1", "bn1", "relu", "conv2")),
        "layer1.unit1.relu_1",
        *(f"layer2.unit0.residual.body.{name}" for name in ("conv1", "bn1", "relu", "conv2")),
        *("layer2.unit0.residual.shortcut.conv0", "layer2.unit0.residual.shortcut.norm1"),
        "layer2.unit0.relu_1",
        *(f"layer2.unit1.residual.body.{name}" for name in ("conv1", "bn1", "relu", "conv2")),
        "layer2.unit1.relu_1",
        *("flatten", "fc"),
    ]


def test_units_without_names_are_numbered_in_their_stage() -> None:
    steps = row("conv net_conv0", "conv net_stage1_conv0")
    for number in (1, 3):
        source = steps[-1].name
        steps += row(f"conv net_stage1_conv{number}", f"conv net_stage1_conv{number + 1}", source=source)
        steps.append(merge_only(f"net_stage1__plus{number}", (source, steps[-1].name), "add"))
        steps += row(f"relu net_stage1_activation{number}", source=steps[-1].name)
    assert paths(steps) == (
        "net_conv0 net_stage1.conv0 net_stage1.unit1.body.conv1 net_stage1.unit1.body.conv2 net_stage1.activation1 "
        "net_stage1.unit2.body.conv3 net_stage1.unit2.body.conv4 net_stage1.activation3"
    )


def test_branches_have_the_name_of_what_is_in_them_or_a_number() -> None:
    known = [*row("conv i1.branch1.conv", "relu i1.branch1.relu"), *row("pool i1.pool.0", "conv i1.pool.1")]
    known.append(merge_only("i1.cat", (known[1].name, known[3].name), "concatenate"))
    assert paths(known) == "i1.branch1.conv i1.branch1.relu i1.pool.pool0 i1.pool.conv1"
    unknown = [
        *row("conv 1x1"),
        *row("conv 5x5a", "conv 3x3"),
        merge_only("output", ("1x1", "3x3", INPUT), "concatenate"),
    ]
    layers, _ = named(fold(unknown, ["output"]))
    assert [path for path, _ in walk(layers)] == [
        *("output.branch1.conv1x1", "output.branch1"),
        *("output.branch2.conv5x5a", "output.branch2.conv3x3", "output.branch2"),
        *("output.identity", "output"),
    ]


def test_outputs_and_nodes_of_a_graph_keep_their_names() -> None:
    steps = row("conv trunk")
    steps += (
        row("conv face_cls", "relu prob1", source="trunk")
        + row("conv conv6-2", source="trunk")
        + row("conv input_", source="trunk")
    )
    layers, found = named(fold(steps, ["prob1", "conv6-2", "input_"]))
    assert layers[-1].name == "heads"
    assert [join("heads", name) for name in layers[-1].outputs] == ["heads.prob1", "heads.conv6_2", "heads.input_2"]  # type: ignore[union-attr]
    assert found["face_cls"] == "heads.prob1.face_cls"


def test_the_same_names_every_time_and_in_any_file() -> None:
    """Random graphs with random names: every path is unique and a name (held in `paths`), and nothing depends on
    the process, as the order of a set of strings does."""
    drawn = random.Random(3)
    for _ in range(100):
        steps: list[Step] = []
        for place in range(drawn.randint(2, 12)):
            name = f"{drawn.choice(['a', 'a.0', 'a.0.b', 'a_1', '/x/y', 'é', '3'])}{drawn.choice('._/')}{place}"
            inputs = tuple(drawn.choice([INPUT, *(s.name for s in steps[-3:])]) for _ in range(drawn.randint(1, 2)))
            steps.append(Step(name, KINDS[drawn.choice(["conv", "relu", "norm"])], inputs, "add"))
        assert paths(steps) == paths(steps)
