"""ONNX files that are damaged, reach out of their folder, or hold what the spec does not have: one line each, in
bounded time and memory; and what is taken over although it is laid out otherwise."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.importers.onnx_file import parse
from triptych.importers.onnx_network import load
from triptych.importers.steps import Request
from triptych.reference.network import forward
from triptych.spec.layers import Affine, BatchNorm, LeakyReLU, walk
from triptych.utils.errors import TriptychError

onnx: Any = pytest.importorskip("onnx", reason="the onnx package is not installed: pip install 'triptych[onnx]'")
reference: Any = pytest.importorskip("onnx.reference")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64

Model = Any
PLAIN = Request()


def info(name: str, shape: Any, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    *nodes: Any, shape: Any = ("n", 3, 8, 8), outputs: tuple[str, ...] = ("y",), opset: int = 17, **arrays: Any
) -> Model:
    """A network from `x` to `outputs`."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    graph = helper.make_graph(list(nodes), "net", [info("x", shape)], [info(name, None) for name in outputs], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), name=operator.lower(), **attributes)


WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


def net() -> Model:
    return model(node("Conv", "x w", "a"), node("Relu", "a"), w=WEIGHT)


def saved(made: Model, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def complaint(action: Callable[[], object]) -> str:
    """The one error's text; empty where there is none."""
    try:
        action()
    except TriptychError as error:
        return str(error)
    return ""


def refused(made: Model, folder: Path, request: Request = PLAIN) -> str:
    with pytest.raises(TriptychError) as caught:
        load(saved(made, folder), request)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 2000
    return line


@pytest.mark.parametrize("training", [False, True])
def test_a_dropout_that_is_exported_for_training_is_said(training: bool, tmp_path: Path) -> None:
    made = model(node("Dropout", "x r t"), r=np.float32(0.3), t=np.array(training))
    remarks = load(saved(made, tmp_path), PLAIN).remarks
    assert any("dropout 'dropout' is exported for training" in line for line in remarks) is training


def branch(name: str) -> Any:
    return helper.make_graph([node("Relu", "x", name)], name, [], [info(name, None)])


def looped() -> Any:
    return node("If", "c", then_branch=branch("p"), else_branch=branch("q"))


BACKWARDS = {"s": np.array([-1]), "e": np.array([-(1 << 31)]), "a": np.array([2]), "t": np.array([-1])}
BAD: dict[str, tuple[Callable[[], Model], str]] = {
    "rows backwards": (
        lambda: model(node("Relu", "x", "r"), node("Slice", "r s e a t"), **BACKWARDS),
        "the output (of 'relu') takes values of shape (3, 8, 8) in an order that no layer of the spec makes",
    ),
    "unknown": (
        lambda: model(node("Shrink", "x")),
        "node 'shrink' (Shrink) is not supported; supported: Conv, ConvTranspose",
    ),
    "other domain": (
        lambda: model(node("FusedConv", "x w", domain="com.microsoft"), w=WEIGHT),
        "(com.microsoft.FusedConv) is not",
    ),
    "depth to space": (lambda: model(node("DepthToSpace", "x", blocksize=2)), "has the blocksize 2 for (3, 8, 8)"),
    "control flow": (lambda: model(looped(), c=np.array(True)), "node 'if' (If) is not supported"),
    "recurrent": (lambda: model(node("LSTM", "x w", hidden_size=2), w=WEIGHT), "node 'lstm' (LSTM) is not supported"),
    "one channel very often": (
        lambda: model(node("Gather", "x i", axis=1), i=np.zeros(1_000_000, np.int64)),
        "takes 1000000 of 3 places, which are no neighbours",
    ),
    "symbolic size": (
        lambda: model(node("Relu", "x"), shape=("n", 3, "h", 8)),
        "say it: --input CHANNELSxHEIGHTxWIDTH",
    ),
    "no size": (lambda: model(node("Relu", "x"), shape=None), "the input 'x' has no shape"),
    "sequence": (lambda: model(node("Relu", "x"), shape=("n", 3, 8)), "expected one with channels, height and width"),
    "sequences' convolution": (
        lambda: model(node("Conv", "x w"), w=np.ones((4, 3, 3), np.float32)),
        "it is no 2-D convolution",
    ),
    "no weight": (lambda: model(node("Conv", "x")), "node 'conv' (Conv) lacks its weight"),
    "computed weight": (lambda: model(node("Conv", "x x")), "(Conv) computes its weight from the images"),
    "weight of others": (
        lambda: model(node("Conv", "x w"), w=np.ones((4, 5, 3, 3), np.float32)),
        "has weight (4, 5, 3, 3), but by its attributes (4, 3, 3, 3)",
    ),
    "dilated pool": (lambda: model(node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])), "has dilations"),
    "places of maxima": (
        lambda: model(node("MaxPool", "x", "a y", kernel_shape=[2, 2])),
        "(MaxPool) gives 'y', which is not supported",
    ),
    "larger window": (lambda: model(node("MaxPool", "x", kernel_shape=[9, 9])), "node 'maxpool' (MaxPool)"),
    "unknown attribute": (
        lambda: model(node("Relu", "x", slope=0.5)),
        "(Relu) has the attribute 'slope', which is not",
    ),
    "attribute's type": (
        lambda: model(node("Conv", "x w", strides=2), w=WEIGHT),
        "has strides that are no whole numbers",
    ),
    "log softmax": (lambda: model(node("LogSoftmax", "x", axis=1)), "(LogSoftmax) is a logarithm of a softmax"),
    "transposed batch": (lambda: model(node("Transpose", "x", perm=[1, 0, 2, 3])), "that leaves the batch in front"),
    "batch in the shape": (
        lambda: model(node("Reshape", "x s"), s=np.array([-1, 64])),
        "does not leave the images of a batch apart",
    ),
    "order that no layer makes": (
        lambda: model(
            node("Slice", "x s e a t", "b"),
            node("Conv", "b w"),
            s=np.array([9]),
            e=np.array([-99]),
            a=np.array([2]),
            t=np.array([-1]),
            w=WEIGHT,
        ),
        "in an order that no layer of the spec makes",
    ),
    "constant of pixels": (
        lambda: model(node("Add", "x k"), k=np.ones((1, 3, 8, 8), np.float32)),
        "expected one value, or one for every channel",
    ),
    "divided maps": (lambda: model(node("Div", "x x")), "divides by something that is no constant"),
    "padded images": (
        lambda: model(node("Pad", "x p"), p=np.array([1, 0, 0, 0, 0, 0, 0, 0])),
        "pads images or channels",
    ),
    "channels padded by their mirror": (
        lambda: model(node("Pad", "x p", mode="reflect"), p=np.array([0, 1, 0, 0, 0, 0, 0, 0])),
        "channels by a constant",
    ),
    "reversed": (
        lambda: model(
            node("Slice", "x s e a t"), s=np.array([9]), e=np.array([-99]), a=np.array([0]), t=np.array([-1])
        ),
        "takes the images of a batch in another order",
    ),
    "shrunk": (lambda: model(node("Resize", "x - s"), s=np.float32([1, 1, 0.5, 0.5])), "expected whole factors"),
    "aligned corners": (
        lambda: model(
            node("Resize", "x - s", mode="linear", coordinate_transformation_mode="align_corners"),
            s=np.float32([1, 1, 2, 2]),
        ),
        "which is not what the spec's Upsample does",
    ),
    "cubic": (
        lambda: model(node("Resize", "x - s", mode="cubic"), s=np.float32([1, 1, 2, 2])),
        "has mode 'cubic', expected nearest or linear",
    ),
    "repeated": (
        lambda: model(node("GlobalAveragePool", "x", "a"), node("Expand", "a s"), s=np.array([2, 1, 1, 1, 1])),
        "repeats values",
    ),
    "cast to integers": (lambda: model(node("Cast", "x", to=7)), "(Cast) casts to type 7"),
    "nothing before": (lambda: model(node("Relu", "q")), "node 'relu' (Relu) takes 'q', which nothing before it gives"),
    "cycle": (
        lambda: model(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Tanh", "b")),
        "node 'add' (Add) takes 'b', which comes from its own output (a cycle: 'b' from 'a')",
    ),
    "cycle of one": (lambda: model(node("Add", "x y")), "takes 'y', which comes from its own output (a cycle: 'y')"),
    "cycle without the input": (
        lambda: model(node("Clip", "b - m", "a"), node("Relu", "a", "b"), node("Tanh", "b"), m=np.float32(1)),
        "node 'clip' (Clip) takes 'b', which comes from its own output (a cycle: 'b' from 'a')",
    ),
    "long cycle": (
        lambda: model(*(node("Relu", f"a{place}", f"a{(place + 1) % 9}") for place in range(9)), node("Tanh", "a5")),
        "takes 'a0', which comes from its own output (a cycle: 'a0' from 'a8' from 'a7' from 'a6' from 5 more)",
    ),
    "computed twice": (lambda: model(node("Relu", "x"), node("Tanh", "x")), "is damaged: 'y' is computed twice"),
    "order": (lambda: model(node("Add", "x a"), node("Relu", "x", "a")), "takes 'a', which nothing before it gives"),
    "two inputs": (lambda: two_inputs(), "takes 2 inputs (x, z), expected one"),
    "output is the input": (lambda: model(node("Identity", "x")), "there is no layer between them"),
    "constant output": (lambda: model(node("Relu", "x", "a"), node("Identity", "k"), k=np.ones(3)), "takes 0 inputs"),
    "no nodes": (lambda: model(), "has 0 nodes and 1 outputs: no network"),
    "old": (lambda: model(node("Relu", "x"), opset=6), "has the operator set 6, expected 7 to"),
    "of the future": (lambda: model(node("Relu", "x"), opset=99), "has the operator set 99, expected 7 to"),
    "strings": (lambda: model(node("Relu", "x"), k=np.array(["a", "b"], object)), "the array 'k' is of type 8"),
    "huge constant": (
        lambda: model(node("ConstantOfShape", "s", "k"), node("Add", "x k"), s=np.array([1 << 40])),
        "is larger than any network needs",
    ),
    "huge range": (
        lambda: model(
            node("Range", "a b c", "k"), node("Add", "x k"), a=np.array(0), b=np.array(1 << 40), c=np.array(1)
        ),
        "is larger than any network needs",
    ),
    "huge map": (
        lambda: model(node("Flatten", "x"), shape=("n", 3, 1 << 20, 1 << 20)),
        "more than any network that is known",
    ),
    "nothing": (lambda: b"", "is empty; name an ONNX file"),
    "text": (lambda: b"not a protobuf", "is no ONNX file, or damaged"),
    "cut": (lambda: net().SerializeToString()[:-100], "is no ONNX file, or damaged"),
}


def two_inputs() -> Model:
    made = model(node("Add", "x z"))
    made.graph.input.append(info("z", ("n", 3, 8, 8)))
    return made


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_taken_over_is_one_line(name: str, tmp_path: Path) -> None:
    build, complaint = BAD[name]
    assert complaint in refused(build(), tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path, Path("a\0b")):
        with pytest.raises(TriptychError, match="cannot read"):
            load(path, Request())


def test_an_output_that_is_not_there(tmp_path: Path) -> None:
    assert "has no node or value 'z'; it has ... conv, relu, y" in refused(net(), tmp_path, Request(outputs=("z",)))


def test_what_an_output_does_not_need_is_not_looked_at(tmp_path: Path) -> None:
    made = model(node("Conv", "x w", "a"), node("Shrink", "a"), w=WEIGHT)
    assert "Shrink" in refused(made, tmp_path)
    assert set(load(saved(made, tmp_path), Request(outputs=("conv",))).parameters or {}) == {"conv.weight"}


def test_a_size_that_is_asked_for(tmp_path: Path) -> None:
    made = model(node("Conv", "x w", "y"), shape=("n", "c", "h", "w"), w=WEIGHT)
    assert load(saved(made, tmp_path), Request(input=(3, 20, 30))).architecture.input == (3, 20, 30)


def external(made: Model, folder: Path, location: str, length: int | None = None, offset: int = 0) -> Path:
    """With its first array in another file."""
    (tensor,) = made.graph.initializer
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length or len(content))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    (folder / "weights.bin").write_bytes(bytes(offset) + content)
    return saved(made, folder)


def test_arrays_beside_the_file(tmp_path: Path) -> None:
    imported = load(external(net(), tmp_path, "weights.bin", offset=64), Request())
    (weight,) = (imported.parameters or {}).values()
    np.testing.assert_array_equal(weight, WEIGHT)


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("none.bin", "lies in 'none.bin', which is not beside the model"),
        ("../weights.bin", "expected a file in the model's own folder"),
        ("a/../../weights.bin", "expected a file in the model's own folder"),
        ("/etc/hostname", "expected a file in the model's own folder"),
        ("..\\weights.bin", "expected a file in the model's own folder"),
        ("", "expected a file in the model's own folder"),
        ("link.bin", "a link out of the model's folder"),
        ("linked/weights.bin", "a link out of the model's folder"),
    ],
)
def test_arrays_outside_of_the_folder(location: str, complaint: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    folder.mkdir()
    (outside / "weights.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(outside / "weights.bin")
    (folder / "linked").symlink_to(outside)
    path = external(net(), folder, location)
    with pytest.raises(TriptychError) as caught:
        load(path, Request())
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"length": 4}, {"offset": -1}, {"length": 1 << 40}])
def test_sizes_beside_the_file_that_lie(options: dict[str, int], tmp_path: Path) -> None:
    path = external(net(), tmp_path, "weights.bin")
    made = onnx.load(str(path), load_external_data=False)
    for entry in made.graph.initializer[0].external_data:
        entry.value = str(options.get(entry.key, entry.value))
    assert "takes 432 bytes, but is said to be" in refused(made, tmp_path)


def test_an_array_whose_shape_lies(tmp_path: Path) -> None:
    made = net()
    made.graph.initializer[0].dims[:] = [4, 3, 3, 1 << 40]
    assert "the array 'w' is damaged" in refused(made, tmp_path)


def test_the_layout_of_tensorflow_is_exchanged_and_said(tmp_path: Path) -> None:
    made = model(
        node("Sub", "x k", "a"),
        node("Transpose", "a", "b", perm=[0, 3, 1, 2]),
        node("Conv", "b w", "c"),
        node("Transpose", "c", perm=[0, 2, 3, 1]),
        shape=("n", 9, 8, 3),
        w=WEIGHT,
        k=np.float32([1, 2, 3]),
    )
    imported = load(saved(made, tmp_path), Request())
    assert imported.architecture.input == (3, 9, 8)
    assert any("channels first" in line for line in imported.remarks)
    assert any("channels, height, width here" in line for line in imported.remarks)
    x = np.random.default_rng(1).standard_normal((2, 9, 8, 3)).astype(np.float32)
    (wanted,) = reference.ReferenceEvaluator(made).run(None, {"x": x})
    got = forward(imported.architecture, imported.parameters or {}, np.moveaxis(x, -1, 1).astype(np.float64)).logits
    assert np.abs(np.moveaxis(got, 1, -1) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_several_outputs(tmp_path: Path) -> None:
    made = model(
        node("Relu", "x", "a"), node("Conv", "a w", "y"), node("Sigmoid", "a", "z"), outputs=("z", "y"), w=WEIGHT
    )
    imported = load(saved(made, tmp_path), Request())
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8))
    run = forward(imported.architecture, imported.parameters or {}, x)
    shapes = [run.outputs[head].shape[1:] for head in run.heads]
    assert shapes == [(3, 8, 8), (4, 6, 6)]


def test_numbers_are_read_as_they_were_meant(tmp_path: Path) -> None:
    four = dict.fromkeys("sbmv", np.ones(3, np.float32))
    made = model(
        node("BatchNormalization", "x s b m v", "a", epsilon=1e-5, momentum=0.99),
        node("LeakyRelu", "a", alpha=0.1),
        **four,
    )
    imported = load(saved(made, tmp_path), Request())
    layers = [layer for _, layer in walk(imported.architecture.layers)]
    (norm,) = (layer for layer in layers if isinstance(layer, BatchNorm))
    (leaky,) = (layer for layer in layers if isinstance(layer, LeakyReLU))
    assert (norm.eps, norm.momentum, norm.unbiased, leaky.slope) == (1e-5, 0.01, False, 0.1)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    imported = load(saved(model(node("Conv", "x w"), w=WEIGHT.astype(np.float16)), tmp_path), Request())
    (weight,) = (imported.parameters or {}).values()
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, WEIGHT.astype(np.float16))


def test_constants_of_the_graph_are_no_arrays_to_train(tmp_path: Path) -> None:
    made = model(node("Mul", "x k", "a"), node("Conv", "a w"), w=WEIGHT, k=np.float32([1, 2, 3]).reshape(3, 1, 1))
    imported = load(saved(made, tmp_path), Request())
    (affine,) = (layer for _, layer in walk(imported.architecture.layers) if isinstance(layer, Affine))
    assert affine.scale == (1.0, 2.0, 3.0)
    assert len(imported.parameters or {}) == 1


def test_a_chain_of_ten_thousand_takes_a_moment(tmp_path: Path) -> None:
    names = ["x", *(f"v{n}" for n in range(9_999)), "y"]
    made = model(*(node("Tanh", a, b) for a, b in pairwise(names)))
    path = saved(made, tmp_path)
    began = time.perf_counter()
    load(path, Request())
    assert time.perf_counter() - began < 30


def test_empty_nodes_are_counted_before_they_take_memory() -> None:
    nodes = b"\x0a\x00" * 2_000_000
    content = b"\x3a" + varint(len(nodes)) + nodes
    tracemalloc.start()
    with pytest.raises(TriptychError, match="more than 100000 nodes"):
        parse(content, "many", Path())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(content)


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


CONTENT = model(
    node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Reshape", "a s", "b"), node("MatMul", "b m"),
    w=WEIGHT, s=np.array([0, -1]), m=np.ones((256, 2), np.float32),
).SerializeToString()  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(CONTENT)), cut=st.integers(0, 40), inserted=st.binary(max_size=8))
def test_altered_bytes_give_a_network_or_the_one_error(at: int, cut: int, inserted: bytes, tmp_path: Path) -> None:
    path = saved(CONTENT[:at] + inserted + CONTENT[at + cut :], tmp_path)
    assert "\n" not in complaint(lambda: load(path, Request()))


def test_a_text_that_is_no_utf_8(tmp_path: Path) -> None:
    """protobuf gives its bytes for it."""
    (tmp_path / "net.onnx").write_bytes(model(node("Relu", "x")).SerializeToString().replace(b"Relu", b"Rel\xff"))
    with pytest.raises(TriptychError, match=r"is damaged: b'Rel\\xff' stands for text, and is no UTF-8"):
        load(tmp_path / "net.onnx", PLAIN)
