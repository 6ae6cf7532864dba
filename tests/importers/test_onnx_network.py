"""ONNX files become the networks that they are: every operator of the table, at the operator sets between which it
changed, against onnx's own evaluator in float64 and against onnxruntime in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.conformance.tolerance import budgets, perturbations
from triptych.importers.onnx_layers import CONVERTERS
from triptych.importers.onnx_network import load
from triptych.importers.onnx_patterns import SOFTMAX, WRITTEN_OUT
from triptych.importers.steps import Imported, Request
from triptych.reference.network import forward

onnx: Any = pytest.importorskip("onnx", reason="the onnx package is not installed: pip install 'triptych[onnx]'")
reference: Any = pytest.importorskip("onnx.reference", reason="the onnx package is not installed")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

NEWEST = 28
KEEP = Request(keep_softmax=True)
Arrays = dict[str, Any]
Nodes = list[tuple[str, str, str, dict[str, Any]]]  # outputs, operator, inputs, attributes


@dataclass(frozen=True)
class Case:
    """A small network from `x` to `y`: its nodes, its arrays (a shape stands for random values), and the operator sets
    at which it is tried. `evaluator`: whether onnx's own evaluator is right there (1.23 is not for grouped transposed
    convolutions, batch norms before operator set 14, softmax before 13, LRN, SAME_LOWER, has 1/6 in float32 in
    HardSwish, and the constants of Selu, Gelu and Erf too); if it is not, onnxruntime alone judges."""

    nodes: Nodes
    arrays: Arrays
    opsets: tuple[int, ...] = (7, 13, NEWEST)
    shape: tuple[int, ...] = (4, 9, 8)
    evaluator: bool = True
    batch: int | str = "batch"


def one(operator: str, opsets: tuple[int, ...] = (7, 13, NEWEST), evaluator: bool = True, **attributes: Any) -> Case:
    return Case([("y", operator, "x", attributes)], {}, opsets, evaluator=evaluator)


def conv(*, w: tuple[int, ...] = (6, 4, 3, 3), bias: bool = True, **attributes: Any) -> Case:
    arrays: Arrays = {"w": w, "b": w[:1]} if bias else {"w": w}
    return Case([("y", "Conv", "x w b" if bias else "x w", attributes)], arrays)


def conv_transpose(w: tuple[int, ...], evaluator: bool = True, **attributes: Any) -> Case:
    arrays: Arrays = {"w": w, "b": (w[1] * attributes.get("group", 1),)}
    return Case([("y", "ConvTranspose", "x w b", attributes)], arrays, evaluator=evaluator)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def batch_norm(opsets: tuple[int, ...], evaluator: bool = True, **attributes: Any) -> Case:
    arrays = {"s": (4,), "b": (4,), "m": (4,), "v": np.array([0.5, 1.0, 2.0, 3.0])}
    return Case(
        [("y", "BatchNormalization", "x s b m v", {"epsilon": 0.0078125, **attributes})],
        arrays,
        opsets,
        evaluator=evaluator,
    )


def shuffled(groups: int) -> Nodes:
    return [
        ("a", "Reshape", "x five", {}),
        ("b", "Transpose", "a", {"perm": [0, 2, 1, 3, 4]}),
        ("c", "Reshape", "b four", {}),
        ("y", "Relu", "c", {}),
    ]


CASES: dict[str, Case] = {
    "conv": conv(),
    "conv pads": conv(pads=[1, 2, 1, 2], strides=[2, 1]),
    "conv pads unequal": conv(pads=[0, 1, 2, 3], strides=[2, 2], bias=False),
    "conv same upper": conv(auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": conv(auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv valid": conv(auto_pad="VALID", dilations=[2, 1], kernel_shape=[3, 3]),
    "conv groups": conv(w=(6, 2, 3, 1), group=2),
    "conv transpose": conv_transpose((4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    "conv transpose groups": conv_transpose((4, 3, 3, 2), False, strides=[2, 3], group=2, dilations=[2, 1]),
    "conv transpose unequal": conv_transpose((4, 3, 3, 3), strides=[2, 2], pads=[1, 0, 0, 2]),
    "conv transpose shape": conv_transpose((4, 3, 4, 4), False, strides=[2, 2], output_shape=[18, 16]),
    "conv transpose odd": conv_transpose((4, 3, 4, 3), False, strides=[2, 2], output_shape=[17, 16]),
    "conv transpose large": conv_transpose((4, 3, 4, 3), False, strides=[2, 2], output_shape=[19, 18]),
    **{
        f"conv transpose {auto_pad} {k}": conv_transpose((4, 3, k, 3), False, strides=[s, 2], auto_pad=auto_pad)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER")
        for k, s in ((3, 2), (4, 2), (2, 2), (5, 1))
    },
    "gemm": Case([("y", "Gemm", "x w b", {"transB": 1})], {"w": (5, 4), "b": (5,)}, shape=(4,)),
    "gemm scaled": Case(
        [("y", "Gemm", "x w b", {"alpha": 0.5, "beta": 2.0})], {"w": (4, 5), "b": (1,)}, (7, 11), shape=(4,)
    ),
    "gemm without bias": Case([("y", "Gemm", "x w", {})], {"w": (4, 5)}, (11, NEWEST), shape=(4,)),
    "matmul": Case([("a", "MatMul", "x w", {}), ("y", "Add", "a b", {})], {"w": (4, 5), "b": (5,)}, shape=(4,)),
    "bias of a convolution": Case(
        [("a", "Conv", "x w", {}), ("y", "Add", "b a", {})], {"w": (5, 4, 1, 1), "b": (5, 1, 1)}
    ),
    "batch norm 7": batch_norm((7,), False, momentum=0.75, spatial=1),
    "batch norm 9": batch_norm((9,), False, momentum=0.75),
    "batch norm": batch_norm((14, 15, NEWEST), momentum=0.75),
    "relu": one("Relu"),
    "sigmoid": one("Sigmoid"),
    "tanh": one("Tanh"),
    "leaky relu": one("LeakyRelu", alpha=0.25),
    "hard sigmoid": one("HardSigmoid", alpha=0.25, beta=0.375),
    "elu": one("Elu", alpha=0.75),
    "selu": one("Selu", evaluator=False),
    "softplus": one("Softplus"),
    "softsign": one("Softsign"),
    "gelu": one("Gelu", (20, NEWEST), False),
    "gelu tanh": one("Gelu", (20, NEWEST), False, approximate="tanh"),
    "mish": one("Mish", (18, NEWEST)),
    "gelu written out": Case(
        [
            ("a", "Div", "x root", {}),
            ("b", "Erf", "a", {}),
            ("c", "Add", "b one", {}),
            ("d", "Mul", "x c", {}),
            ("y", "Mul", "d half", {}),
        ],
        {"root": np.array(np.sqrt(2.0)), "one": np.array(1.0), "half": np.array(0.5)},
        (9, 13, NEWEST),
        evaluator=False,
    ),
    "mish written out": Case([("a", "Softplus", "x", {}), ("b", "Tanh", "a", {}), ("y", "Mul", "x b", {})], {}),
    "softsign written out": Case(
        [("a", "Abs", "x", {}), ("b", "Add", "a one", {}), ("y", "Div", "x b", {})], {"one": np.array(1.0)}
    ),
    "elu written out": Case(
        [
            ("p", "Greater", "x zero", {}),
            ("e", "Exp", "x", {}),
            ("m", "Sub", "e one", {}),
            ("n", "Mul", "alpha m", {}),
            ("y", "Where", "p x n", {}),
        ],
        {"zero": np.array(0.0), "one": np.array(1.0), "alpha": np.array(0.625)},
        (9, 13, NEWEST),
    ),
    "celu": one("Celu", (12, NEWEST), False, alpha=0.375),
    "celu of 1": one("Celu", (12, NEWEST), False),
    "swish": one("Swish", (24,), False),
    "swish of 2": one("Swish", (24,), False, alpha=2.0),
    "negative": one("Neg"),
    "least": Case([("y", "Min", "x c", {})], {"c": np.array([0.5])}, (8, 13, NEWEST)),
    "largest": Case([("y", "Max", "c x", {})], {"c": np.array(-0.25)}, (8, 13, NEWEST)),
    "relu 6 as bounds": Case(
        [("a", "Max", "x z", {}), ("y", "Min", "s a", {})], {"z": np.array(0.0), "s": np.array(0.75)}, (8, 13, NEWEST)
    ),
    "hard swish": one("HardSwish", (14, NEWEST), False),
    "clip 6": one("Clip", opsets=(7, 10), min=-0.5, max=1.0),
    "clip": Case([("y", "Clip", "x low high", {})], {"low": np.array(-0.5), "high": np.array(1.0)}, (11, 13, NEWEST)),
    "clip above": Case([("y", "Clip", "x - high", {})], {"high": np.array(0.5)}, (11, NEWEST)),
    "clip below": Case([("y", "Clip", "x low", {})], {"low": np.array(0.0)}, (11, NEWEST)),
    "prelu": Case([("y", "PRelu", "x s", {})], {"s": (4, 1, 1)}, (7, 9, 16)),
    "prelu shared": Case([("y", "PRelu", "x s", {})], {"s": (1,)}, (7, 9, 16)),
    "prelu flat": Case([("y", "PRelu", "x s", {})], {"s": (4,)}, (7, 9, 16), shape=(4,)),
    "softmax flat": Case([("y", "Softmax", "x", {})], {}, (7, 11, 13, NEWEST), shape=(4,)),
    "softmax": one("Softmax", opsets=(13, NEWEST), axis=1),
    "softmax of boxes": Case(
        [("a", "Reshape", "x three", {}), ("b", "Softmax", "a", {"axis": 1}), ("y", "Reshape", "b four", {})],
        {"three": ints(0, 3, -1), "four": ints(0, 4, 9, 8)},
        (13, NEWEST),
    ),
    "softmax of boxes, the last axis": Case(
        [
            ("a", "Transpose", "x", {"perm": [0, 2, 3, 1]}),
            ("b", "Reshape", "a three", {}),
            ("c", "Softmax", "b", {}),
            ("y", "Reshape", "c flat", {}),
        ],
        {"three": ints(0, -1, 2), "flat": ints(0, -1)},
        (13, NEWEST),
    ),
    "softmax of rows": Case(
        [("a", "Softmax", "x", {"axis": 2}), ("y", "Conv", "a w b", {})], {"w": (6, 4, 3, 3), "b": (6,)}, (13, NEWEST)
    ),
    "softmax of all of a map": Case([("y", "Softmax", "x", {})], {}, (7, 11), evaluator=False),
    "softmax of some features": Case(
        [("a", "Slice", "x starts ends axes", {}), ("y", "Softmax", "a", {})],
        {"starts": ints(1), "ends": ints(9), "axes": ints(1)},
        (13, NEWEST),
        shape=(12,),
    ),
    "softmax of a pixel": Case([("y", "Softmax", "x", {})], {}, (7, 11), (4, 1, 1), False),
    "softmax written out": Case(
        [("e", "Exp", "x", {}), ("s", "ReduceSum", "e", {"axes": [1]}), ("y", "Div", "e s", {})], {}, (7, 11)
    ),
    "softmax less the largest": Case(
        [
            ("m", "ReduceMax", "x", {"axes": [1]}),
            ("d", "Sub", "x m", {}),
            ("e", "Exp", "d", {}),
            ("s", "ReduceSum", "e a", {}),
            ("y", "Div", "e s", {}),
        ],
        {"a": ints(1)},
        (13,),
    ),
    "max pool": one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0]),
    "max pool unequal": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
    "max pool same upper": one("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    "max pool same lower": one("MaxPool", evaluator=False, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "max pool ceil": one("MaxPool", opsets=(10, 12, NEWEST), kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1),
    "average pool": one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "average pool counted": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "average pool counted unequal": one("AveragePool", kernel_shape=[3, 2], pads=[0, 1, 1, 0], count_include_pad=1),
    "average pool ceil": one("AveragePool", opsets=(10, 19, NEWEST), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "average pool same": one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "global average pool": one("GlobalAveragePool"),
    "global max pool": one("GlobalMaxPool"),
    "reduce mean": one("ReduceMean", opsets=(7, 13), axes=[2, 3]),
    "reduce mean flat": one("ReduceMean", opsets=(11, 13), axes=[-1, -2], keepdims=0),
    "reduce mean 18": Case([("y", "ReduceMean", "x a", {"keepdims": 0})], {"a": ints(2, 3)}, (18, NEWEST)),
    "reduce max": one("ReduceMax", opsets=(7, 13), axes=[2, 3]),
    "reduce sum": one("ReduceSum", opsets=(7, 11), axes=[2, 3]),
    "reduce sum 13": Case([("y", "ReduceSum", "x a", {"keepdims": 0})], {"a": ints(2, -1)}, (13, NEWEST)),
    "reduce columns": one("ReduceMean", opsets=(7, 13), axes=[3]),
    "reduce rows": one("ReduceMax", opsets=(7, 13), axes=[2], keepdims=1),
    "reduce one by one": Case(
        [
            ("a", "ReduceMean", "x", {"axes": [3], "keepdims": 0}),
            ("y", "ReduceMean", "a", {"axes": [2], "keepdims": 0}),
        ],
        {},
        (7, 13),
    ),
    "reduce as TensorFlow has maps": Case(
        [
            ("a", "Transpose", "x", {"perm": [0, 2, 3, 1]}),
            ("b", "ReduceMax", "a", {"axes": [1], "keepdims": 0}),
            ("c", "ReduceMean", "b", {"axes": [1], "keepdims": 0}),
            ("y", "MatMul", "c w", {}),
        ],
        {"w": (4, 3)},
        (7, 13),
    ),
    "lrn": one("LRN", evaluator=False, size=3, alpha=0.5, beta=0.75, bias=2.0),
    "lp normalization": one("LpNormalization", axis=1),
    "flatten": Case([("a", "Flatten", "x", {}), ("y", "Gemm", "a w b", {})], {"w": (288, 3), "b": (3,)}),
    "reshape": Case([("a", "Reshape", "x s", {}), ("y", "MatMul", "a w", {})], {"w": (288, 3), "s": ints(0, -1)}),
    "reshape to a map": Case([("y", "Reshape", "x s", {})], {"s": ints(-1, 8, 4, 9)}),
    "squeeze": Case(
        [
            ("a", "GlobalAveragePool", "x", {}),
            ("b", "Squeeze", "a", {"axes": [2, 3]}),
            ("y", "Unsqueeze", "b", {"axes": [2, 3]}),
        ],
        {},
        (7, 11),
    ),
    "squeeze 13": Case(
        [("a", "GlobalAveragePool", "x", {}), ("b", "Squeeze", "a s", {}), ("y", "Unsqueeze", "b s", {})],
        {"s": ints(2, 3)},
        (13, NEWEST),
    ),
    "transpose there and back": Case(
        [
            ("a", "Transpose", "x", {"perm": [0, 2, 3, 1]}),
            ("b", "Relu", "a", {}),
            ("c", "Add", "b k", {}),
            ("d", "MatMul", "c w", {}),
            ("e", "Concat", "d b", {"axis": 3}),
            ("y", "Transpose", "e", {"perm": [0, 3, 1, 2]}),
        ],
        {"k": (4,), "w": (4, 5)},
    ),
    "height, width, channels to a dense layer": Case(
        [("a", "Transpose", "x", {"perm": [0, 2, 3, 1]}), ("b", "Flatten", "a", {}), ("y", "MatMul", "b w", {})],
        {"w": (288, 3)},
    ),
    "channel shuffle": Case(shuffled(2), {"five": ints(0, 2, 2, 9, 8), "four": ints(0, 4, 9, 8)}),
    "shape that is computed": Case(
        [
            ("s", "Shape", "x", {}),
            ("n", "Gather", "s zero", {"axis": 0}),
            ("u", "Reshape", "n one", {}),
            ("t", "Concat", "u minus", {"axis": 0}),
            ("a", "Reshape", "x t", {}),
            ("y", "Gemm", "a w b", {"transB": 1}),
        ],
        {"zero": np.array(0, np.int64), "one": ints(1), "minus": ints(-1), "w": (3, 288), "b": (3,)},
    ),
    "concat": Case([("a", "Relu", "x", {}), ("y", "Concat", "x a x", {"axis": 1})], {}),
    "concat flat": Case(
        [
            ("a", "Flatten", "x", {}),
            ("g", "GlobalMaxPool", "x", {}),
            ("b", "Flatten", "g", {}),
            ("y", "Concat", "b a", {"axis": -1}),
        ],
        {},
        (11, 13, NEWEST),
    ),
    "add": Case([("a", "Relu", "x", {}), ("y", "Add", "x a", {})], {}),
    "subtract": Case([("a", "Relu", "x", {}), ("b", "Tanh", "x", {}), ("y", "Sub", "b a", {})], {}),
    "multiply by a gate": Case(
        [("g", "GlobalAveragePool", "x", {}), ("s", "Sigmoid", "g", {}), ("y", "Mul", "x s", {})], {}
    ),
    "multiply by a gate of features": Case(
        [
            ("g", "GlobalAveragePool", "x", {}),
            ("f", "Flatten", "g", {}),
            ("d", "Gemm", "f w b", {}),
            ("r", "Reshape", "d s", {}),
            ("h", "Mul", "r k", {}),
            ("m", "Mul", "x h", {}),
            ("y", "Concat", "h r", {"axis": 1}),
        ],
        {"w": (4, 4), "b": (4,), "s": ints(-1, 4, 1, 1), "k": (4, 1, 1)},
    ),
    "scale by a gate of features": Case(
        [
            ("g", "GlobalAveragePool", "x", {}),
            ("f", "Flatten", "g", {}),
            ("d", "Gemm", "f w b", {}),
            ("r", "Reshape", "d s", {}),
            ("y", "Mul", "r x", {}),
        ],
        {"w": (4, 4), "b": (4,), "s": ints(-1, 4, 1, 1)},
    ),
    "sum": Case([("a", "Relu", "x", {}), ("b", "Tanh", "x", {}), ("y", "Sum", "a b x", {})], {}, (8, 13)),
    "mean": Case([("a", "Relu", "x", {}), ("y", "Mean", "a x", {})], {}, (8, 13)),
    "constants": Case(
        [
            ("a", "Sub", "x m", {}),
            ("b", "Div", "a s", {}),
            ("c", "Mul", "k b", {}),
            ("d", "Sub", "k c", {}),
            ("y", "Add", "d m", {}),
        ],
        {"m": (1, 4, 1, 1), "s": np.array([1.0, 2.0, -4.0, 0.5]).reshape(4, 1, 1), "k": np.array(3.0)},
    ),
    "constants of features": Case([("a", "Mul", "x m", {}), ("y", "Add", "a m", {})], {"m": (4,)}, shape=(4,)),
    "silu": Case([("s", "Sigmoid", "x", {}), ("y", "Mul", "x s", {})], {}),
    "pad 2": one("Pad", opsets=(7, 10), pads=[0, 0, 1, 2, 0, 0, 0, 3], value=1.5),
    "pad": Case([("y", "Pad", "x p v", {})], {"p": ints(0, 0, 1, 2, 0, 0, 0, 3), "v": np.array(1.5)}, (11, 13, NEWEST)),
    "pad by less than nothing": Case(
        [("y", "Pad", "x p v", {})],
        {"p": ints(0, -1, 1, -2, 0, 0, -1, 3), "v": np.array(1.5)},
        (11, 13, NEWEST),
        evaluator=False,
    ),
    "pad reflect": Case([("y", "Pad", "x p", {"mode": "reflect"})], {"p": ints(0, 0, 1, 2, 0, 0, 2, 3)}, (11, NEWEST)),
    "pad edge": Case(
        [("y", "Pad", "x p - a", {"mode": "edge"})], {"p": ints(1, 2, 0, 3), "a": ints(2, -1)}, (18, NEWEST)
    ),
    "slice 1": one("Slice", opsets=(7, 9), starts=[1, -5], ends=[3, 99], axes=[1, 2]),
    "slice": Case(
        [("y", "Slice", "x s e a t", {})],
        {"s": ints(1, 2), "e": ints(-1, 99), "a": ints(3, 1), "t": ints(1, 1)},
        (10, 13, NEWEST),
    ),
    "every other place": Case(
        [("y", "Slice", "x s e a t", {})],
        {"s": ints(1, 0), "e": ints(99, 99), "a": ints(2, -1), "t": ints(2, 3)},
        (10, 13, NEWEST),
    ),
    "pad channels": Case(
        [("y", "Pad", "x p v", {})], {"p": ints(0, 2, 1, 0, 0, 1, 0, 3), "v": np.array(0.5)}, (11, NEWEST)
    ),
    "expand to a map": Case(
        [("g", "GlobalAveragePool", "x", {}), ("e", "Expand", "g s", {}), ("y", "Mul", "x e", {})],
        {"s": ints(1, 1, 9, 8)},
        (8, 13, NEWEST),
    ),
    "slice of all axes": Case([("y", "Slice", "x s e", {})], {"s": ints(0, 1), "e": ints(9999999, 3)}, (10, NEWEST)),
    "slice that names the batch": Case(
        [("y", "Slice", "x s e a", {})], {"s": ints(0, 1), "e": ints(9999999, 3), "a": ints(0, -3)}, (10, 13, NEWEST)
    ),
    "pad that names the batch": Case(
        [("y", "Pad", "x p - a", {})], {"p": ints(0, 1, 0, 2), "a": ints(0, 2)}, (18, NEWEST)
    ),
    "shape that is chosen": Case(
        [
            ("l", "Less", "wanted zero", {}),
            ("g", "GreaterOrEqual", "wanted zero", {}),
            ("o", "Or", "l g", {}),
            ("t", "Tile", "minus two", {}),
            ("k", "Where", "l own wanted", {}),
            ("m", "Where", "o k t", {}),
            ("y", "Reshape", "x m", {}),
        ],
        {"zero": ints(0), "minus": ints(-1), "two": ints(4), "own": ints(0, 4, 9, 8), "wanted": ints(-1, 8, -1, 4)},
        (13, NEWEST),
    ),
    "split": Case([("a b", "Split", "x", {"axis": 1, "split": [1, 3]}), ("y", "Mul", "b a", {})], {}, (7, 11)),
    "split 13": Case(
        [("a b", "Split", "x s", {"axis": 1}), ("y", "Concat", "b a", {"axis": 1})], {"s": ints(3, 1)}, (13, NEWEST)
    ),
    "split evenly": Case([("a b", "Split", "x", {"axis": 1}), ("y", "Concat", "b a", {"axis": 1})], {}, (11, 13)),
    "split 18": Case(
        [("a b", "Split", "x", {"axis": 1, "num_outputs": 2}), ("y", "Concat", "b a", {"axis": 1})], {}, (18, NEWEST)
    ),
    "gather of a channel": Case(
        [("a", "Gather", "x i", {"axis": 1}), ("b", "Unsqueeze", "a", {"axes": [1]}), ("y", "Mul", "b x", {})],
        {"i": np.array(2, np.int64)},
        (7, 11),
    ),
    "gather of channels": Case([("y", "Gather", "x i", {"axis": 1})], {"i": ints(2, -1, 0)}),
    "channels backwards": Case(
        [("a", "Slice", "x s e c t", {}), ("y", "Conv", "a w", {})],
        {"s": ints(-1), "e": ints(-99), "c": ints(1), "t": ints(-1), "w": (5, 4, 3, 3)},
        (13, NEWEST),
    ),
    "depth to space": one("DepthToSpace", (7, 13), blocksize=2),
    "depth to space 11": one("DepthToSpace", (11, NEWEST), blocksize=2, mode="CRD"),
    "space to depth": Case([("y", "SpaceToDepth", "x", {"blocksize": 2})], {}, shape=(4, 6, 8)),
    "over channels": Case(
        [
            ("a", "ReduceMean", "x", {"axes": [1]}),
            ("b", "ReduceMax", "x", {"axes": [1]}),
            ("y", "Concat", "a b", {"axis": 1}),
        ],
        {},
        (11, 13),
    ),
    "larger of two": Case(
        [("a", "Tanh", "x", {}), ("b", "Max", "a x", {}), ("c", "Neg", "b", {}), ("y", "Min", "c a", {})],
        {},
        (8, 13, NEWEST),
    ),
    "boxes": Case(
        [
            ("a", "Transpose", "x", {"perm": [0, 2, 3, 1]}),
            ("b", "Reshape", "a two", {}),
            ("c", "Tanh", "b", {}),
            ("d", "Concat", "b c", {"axis": 1}),
            ("y", "Reshape", "d one", {}),
        ],
        {"two": ints(0, -1, 4), "one": ints(0, -1)},
    ),
    "rows for columns": Case(
        [("a", "Transpose", "x", {"perm": [0, 1, 3, 2]}), ("y", "Conv", "a w", {})], {"w": (5, 4, 3, 1)}
    ),
    "one pixel, linear": Case(
        [
            ("a", "GlobalAveragePool", "x", {}),
            ("b", "Resize", "a - s", {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
            ("y", "Mul", "b x", {}),
        ],
        {"s": np.float32([1, 1, 9, 8])},
        (13, NEWEST),
    ),
    "upsample 7": one("Upsample", (7,), False, scales=[1.0, 1.0, 2.0, 3.0], mode="nearest"),
    "upsample 9": Case([("y", "Upsample", "x s", {})], {"s": np.float32([1, 1, 2, 3])}, (9,)),
    "resize 10": Case([("y", "Resize", "x s", {})], {"s": np.float32([1, 1, 2, 2])}, (10,), evaluator=False),
    "resize": Case(
        [("y", "Resize", "x - s", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})],
        {"s": np.float32([1, 1, 3, 2])},
        (13, NEWEST),
    ),
    "resize by sizes": Case(
        [("y", "Resize", "x - - s", {"coordinate_transformation_mode": "half_pixel"})],
        {"s": ints(2, 4, 18, 16)},
        (13, NEWEST),
        batch=2,
    ),
    "resize linear": Case(
        [("y", "Resize", "x - s", {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"})],
        {"s": np.float32([1, 1, 2, 4])},
        (13, NEWEST),
    ),
    "dropout": one("Dropout", ratio=0.25, opsets=(7, 10)),
    "dropout 12": Case([("y", "Dropout", "x r", {})], {"r": np.float32(0.25)}, (12, 13, NEWEST)),
    "identity": Case([("a", "Identity", "x", {}), ("b", "Relu", "a", {}), ("y", "Identity", "b", {})], {}),
    "weights that are computed": Case(
        [("t", "Transpose", "w", {"perm": [3, 2, 0, 1]}), ("u", "Mul", "t k", {}), ("y", "Conv", "x u", {})],
        {"w": (3, 3, 4, 5), "k": np.array(0.5)},
    ),
    "constant nodes": Case([("k", "Constant", "", {"value": np.array([2.0])}), ("y", "Mul", "x k", {})], {}),
    "expand": Case([("e", "Expand", "x s", {}), ("y", "Relu", "e", {})], {"s": ints(1, 9, 1)}, (8, 13, NEWEST)),
}

TRIED = [(name, opset) for name, case in CASES.items() for opset in case.opsets]


def model(case: Case, opset: int, dtype: Any) -> Any:
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    generator = np.random.default_rng(5)
    arrays = {}
    for name, value in case.arrays.items():
        value = generator.standard_normal(value) / 4 if isinstance(value, tuple) else value
        arrays[name] = np.asarray(value, dtype) if np.asarray(value).dtype == np.float64 else np.asarray(value)
    nodes = []
    for outputs, operator, inputs, attributes in case.nodes:
        given = {
            key: numpy_helper.from_array(value.astype(dtype)) if isinstance(value, np.ndarray) else value
            for key, value in attributes.items()
        }
        names = ["" if name == "-" else name for name in inputs.split()]
        nodes.append(
            helper.make_node(operator, names, outputs.split(), name=f"{operator.lower()}_{len(nodes)}", **given)
        )
    kind = onnx.TensorProto.DOUBLE if dtype == np.float64 else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, [case.batch, *case.shape])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8 if opset < 20 else 10
    return made


def saved(made: Any, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def images(case: Case) -> Any:
    return np.random.default_rng(3).standard_normal((2, *case.shape)).astype(np.float32)


def run(imported: Imported, x: Any, **options: Any) -> Any:
    return forward(
        imported.architecture, imported.parameters or {}, x.reshape(len(x), *imported.architecture.input), **options
    ).logits


@pytest.mark.parametrize(("name", "opset"), TRIED)
def test_every_operator_gives_what_onnx_gives_in_float64(name: str, opset: int, tmp_path: Path) -> None:
    case = CASES[name]
    if not case.evaluator:
        pytest.skip("onnx's own evaluator is not right here: onnxruntime judges")
    made, x = model(case, opset, np.float64), images(case).astype(np.float64)
    (wanted,) = reference.ReferenceEvaluator(made).run(None, {"x": x})
    got = run(load(saved(made, tmp_path), KEEP), x)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-12 * np.abs(wanted).max()
    assert np.ptp(wanted) > 1e-3


@pytest.mark.parametrize(("name", "opset"), TRIED)
def test_every_operator_gives_what_onnxruntime_gives_in_float32(name: str, opset: int, tmp_path: Path) -> None:
    case = CASES[name]
    made, x = model(case, opset, np.float32), images(case)
    (wanted,) = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    imported = load(saved(made, tmp_path), KEEP)
    got = run(imported, x)
    rounded = ({"y": run(imported, x, rounding=each)} for each in perturbations(0))
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= budgets({"y": got}, rounded)["fp32"]["y"]


def test_every_operator_of_the_table_is_tried() -> None:
    tried = {operator for case in CASES.values() for _, operator, _, _ in case.nodes}
    assert set(CONVERTERS) - tried == {
        "LogSoftmax",
        "Cast",
        SOFTMAX,
        WRITTEN_OUT,
    }  # refused, tried below, no operator of ONNX's
