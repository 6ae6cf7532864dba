"""Keras's files without Keras: strangers' networks against an evaluator of the file's own JSON, height-width-channels
throughout; what other versions write otherwise; and what is refused. In `test_keras_itself` Keras is the judge."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import seeds
from fuzz.limits import forked_trial
from marks import ALL
from triptych.importers.keras_network import load
from triptych.importers.steps import Imported, Request
from triptych.reference.network import forward
from triptych.spec.layers import BatchNorm, HardSigmoid, walk
from triptych.utils.errors import TriptychError
from triptych.weights.formats import keras_file, keras_trial

h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'triptych[keras]'")

FOLDERS = (parent / "shared/data/models/face_classification_keras" for parent in Path(__file__).parents)
FILES = sorted(next((folder for folder in FOLDERS if folder.is_dir()), Path("nowhere")).glob("*.hdf5"))
needs_models = pytest.mark.skipif(not FILES, reason="the folder of strangers' models is not there")

Config = dict[str, Any]
Build = Callable[[], Config]
PLAIN = Request()
TRIAL = keras_trial.try_out


@pytest.fixture(autouse=True)
def _no_new_process_for_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_trial, "try_out", forked_trial)


# An evaluator of Keras's layers that shares nothing with the importer


def windows(x: Any, kernel: Any, stride: Any, padding: str, value: float) -> Any:
    """`(N, rows, columns, C, kernel rows, kernel columns)`; SAME has the odd row at the end."""
    pads = [(0, 0)]
    for size, k, s in zip(x.shape[1:3], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0) if padding == "same" else 0
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [*pads, (0, 0)], constant_values=value)
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (1, 2))[:, :: stride[0], :: stride[1]]


def conv(x: Any, config: Config, w: Any) -> Any:
    y = np.einsum(
        "nhwcij,ijco->nhwo", windows(x, config["kernel_size"], config["strides"], config["padding"], 0), w("kernel")
    )
    return y + w("bias") if config["use_bias"] else y


def separable(x: Any, config: Config, w: Any) -> Any:
    patches = windows(x, config["kernel_size"], config["strides"], config["padding"], 0)
    y = np.einsum("nhwcij,ijcm->nhwcm", patches, w("depthwise_kernel"))
    return y.reshape(*y.shape[:3], -1) @ w("pointwise_kernel")[0, 0]


def batch_norm(x: Any, config: Config, w: Any) -> Any:
    return (x - w("moving_mean")) / np.sqrt(w("moving_variance") + config["epsilon"]) * w("gamma") + w("beta")


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


EVALUATED: dict[str, Callable[..., Any]] = {
    "Conv2D": conv,
    "SeparableConv2D": separable,
    "BatchNormalization": batch_norm,
    "MaxPooling2D": lambda x, c, w: windows(x, c["pool_size"], c["strides"], c["padding"], -np.inf).max((-2, -1)),
    "GlobalAveragePooling2D": lambda x, c, w: x.mean((1, 2)),
    "Activation": lambda x, c, w: np.maximum(x, 0) if c["activation"] == "relu" else softmax(x),
}


def evaluated(path: Path, x: Any) -> Any:
    """The file's network on `(N, H, W, C)` images, in float64."""
    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        values = {layers[0]["name"]: x}
        for layer in layers[1:]:
            name = layer["name"]
            inputs = [values[node[0]] for node in layer["inbound_nodes"][0]]
            weights = file[f"model_weights/{name}"]
            if layer["class_name"] == "Add":
                values[name] = inputs[0] + inputs[1]
            else:
                run = EVALUATED[layer["class_name"]]
                values[name] = run(
                    inputs[0], layer["config"], lambda key, w=weights, n=name: np.float64(w[f"{n}/{key}:0"])
                )
    return values[layers[-1]["name"]]


@needs_models
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_strangers_files_give_what_their_json_says(path: Path) -> None:
    imported = load(path, Request(keep_softmax=True))
    images = np.random.default_rng(1).standard_normal((3, *imported.architecture.input))
    wanted = evaluated(path, np.moveaxis(images, 1, -1))
    got = forward(imported.architecture, imported.parameters or {}, images).logits
    assert np.abs(got - wanted).max() <= 1e-12 * np.abs(wanted).max()
    assert np.ptp(wanted) > 1e-2


@needs_models
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_strangers_files_keep_every_value_and_what_is_trained(path: Path) -> None:
    imported = load(path, Request())
    with h5py.File(path) as file:
        sizes: list[int] = []
        file["model_weights"].visititems(lambda _, each: sizes.append(each.size) if hasattr(each, "dtype") else None)
    assert sum(array.size for array in (imported.parameters or {}).values()) == sum(sizes)
    norms = [layer for _, layer in walk(imported.architecture.layers) if isinstance(layer, BatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert imported.architecture.classes in (2, 7)
    assert [line for line in imported.remarks if "softmax" in line]


# Small files by hand, as Keras 2 writes them


def layer(class_name: str, name: str, *inputs: str, **config: Any) -> Config:
    nodes = [[[each, 0, 0, {}] for each in inputs]] if inputs else []
    return {"class_name": class_name, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def start(*shape: int | None) -> Config:
    return layer("InputLayer", "x", batch_input_shape=[None, *(shape or (6, 5, 3))])


def functional(*layers: Config, outputs: tuple[str, ...] = (), inputs: tuple[str, ...] = ("x",)) -> Config:
    ends = outputs or (layers[-1]["name"],)
    config = {
        "layers": list(layers),
        "input_layers": [[n, 0, 0] for n in inputs],
        "output_layers": [[n, 0, 0] for n in ends],
    }
    return {"class_name": "Model", "config": {"name": "net", **config}}


def written(path: Path, model: Any, arrays: dict[str, dict[str, Any]], version: str = "2.2.4") -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        if model is not None:
            file.attrs["model_config"] = model if isinstance(model, str) else json.dumps(model)
        group = file.create_group("model_weights") if model is not None else file
        group.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, values in arrays.items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in values]
            for key, value in values.items():
                inner[f"{name}/{key}:0"] = value
    return path


KERNEL = np.random.default_rng(0).standard_normal((3, 3, 3, 4)).astype(np.float32)
CONV = {"filters": 4, "kernel_size": [3, 3], "use_bias": False}
WEIGHTS = {"conv": {"kernel": KERNEL}}


def net() -> Config:
    return functional(
        start(), layer("Conv2D", "conv", "x", **CONV), layer("Activation", "relu", "conv", activation="relu")
    )


def loaded(path: Path, model: Any, arrays: Any = WEIGHTS, request: Request = PLAIN, **options: Any) -> Imported:
    return load(written(path / "net.h5", model, arrays, **options), request)


def complaint(action: Callable[[], object]) -> str:
    """The one error's text; empty where there is none."""
    try:
        action()
    except TriptychError as error:
        return str(error)
    return ""


def refused(path: Path, request: Request = PLAIN) -> str:
    with pytest.raises(TriptychError) as caught:
        load(path, request)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 2000
    return line


def test_kernels_become_oihw(tmp_path: Path) -> None:
    (weight,) = (loaded(tmp_path, net()).parameters or {}).values()
    np.testing.assert_array_equal(weight, KERNEL.transpose(3, 2, 0, 1))


def test_a_sequential_of_old_is_a_list(tmp_path: Path) -> None:
    first = layer("Conv2D", "conv", batch_input_shape=[None, 6, 5, 3], **CONV)
    for config in ([first], {"name": "net", "layers": [first]}):
        assert loaded(tmp_path, {"class_name": "Sequential", "config": config}).architecture.input == (3, 6, 5)


@pytest.mark.parametrize(("version", "slope"), [("2.15.0", 0.2), ("3.1.0", 1 / 6)])
def test_the_hard_sigmoid_is_the_versions_own(version: str, slope: float, tmp_path: Path) -> None:
    model = functional(start(), layer("Activation", "gate", "x", activation="hard_sigmoid"))
    imported = loaded(tmp_path, model, {}, version=version)
    (gate,) = (each for _, each in walk(imported.architecture.layers) if isinstance(each, HardSigmoid))
    assert gate.slope == slope


@pytest.mark.parametrize("name", ["RandomFlip", "RandomRotation", "GaussianNoise"])
def test_what_changes_images_in_training_alone_is_left_out_and_said(name: str, tmp_path: Path) -> None:
    model = functional(start(), layer(name, "more", "x", factor=0.1, seed=3), layer("Conv2D", "conv", "more", **CONV))
    imported = loaded(tmp_path, model)
    assert [type(each).__name__ for _, each in walk(imported.architecture.layers)] == ["Conv"]
    assert (
        "'more' changes its input in training alone, and is left out; taken over is its evaluation" in imported.remarks
    )


def test_a_logarithm_of_a_sigmoid_is_what_computes_it(tmp_path: Path) -> None:
    model = functional(start(), layer("Activation", "last", "x", activation="log_sigmoid"))
    imported = loaded(tmp_path, model, {})
    x = np.random.default_rng(0).normal(0, 20, (2, 3, 6, 5))
    assert np.allclose(forward(imported.architecture, {}, x).logits, -np.logaddexp(0, -x), 1e-12, 0)


def test_axes_are_exchanged_and_the_larger_of_two_is_taken(tmp_path: Path) -> None:
    turn, most = layer("Permute", "turn", "x", dims=[2, 1, 3]), layer("Maximum", "most", "x", "turn")
    arrays = {"x": {}, "turn": {}, "most": {}}
    imported = loaded(tmp_path, functional(start(5, 5, 3), turn, most), arrays)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3))
    found = forward(imported.architecture, {}, np.moveaxis(x, -1, 1)).logits
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1), np.maximum(x, x.transpose(0, 2, 1, 3)))


def nested(*outer: Config, calls: int = 1, **keywords: Any) -> Config:
    """Keras 2 numbers the calls of a model in the model from 1, and says in which mode it is called."""
    inner = functional(start(), layer("Conv2D", "conv", "x", **CONV), layer("BatchNormalization", "bn", "conv"))
    calls_of = [[["x", 0, 0, keywords]]] * calls
    base = {"class_name": "Functional", "name": "base", "config": inner["config"], "inbound_nodes": calls_of}
    return functional(start(), base, *outer)


INNER = {
    "conv/kernel": KERNEL,
    **{f"bn/{key}": np.ones(4, np.float32) for key in ("gamma", "beta", "mean", "variance")},
}


def test_a_model_in_a_model_of_keras_2_is_called_from_number_1_on(tmp_path: Path) -> None:
    last = {**layer("Add", "sum"), "inbound_nodes": [[["base", 1, 0, {}], ["base", 2, 0, {}]]]}
    imported = loaded(tmp_path, nested(last, calls=2), {"base": INNER})
    assert "layer 'base/conv' is called 2 times: 2 layers of the same weights" in imported.remarks
    wrong = {**layer("Activation", "relu", activation="relu"), "inbound_nodes": [[["base", 2, 0, {}]]]}
    path = written(tmp_path / "net.h5", nested(wrong), {"base": INNER})
    assert "takes call 2 of layer 'base', which is not in the file" in refused(path)


@pytest.mark.parametrize(("keywords", "frozen"), [({}, False), ({"training": False}, True)])
def test_keras_2_goes_by_the_mode_that_a_model_in_the_model_is_called_in(
    keywords: Config, frozen: bool, tmp_path: Path
) -> None:
    last = {**layer("Activation", "relu", activation="relu"), "inbound_nodes": [[["base", 1, 0, {}]]]}
    imported = loaded(tmp_path, nested(last, **keywords), {"base": INNER})
    (norm,) = (each for _, each in walk(imported.architecture.layers) if isinstance(each, BatchNorm))
    assert norm.frozen is frozen


@pytest.mark.parametrize(("class_name", "config"), [("Dropout", {"rate": 0.5}), ("SpatialDropout2D", {"rate": 0.5})])
def test_keras_2_goes_by_the_mode_that_a_dropout_is_called_in(class_name: str, config: Config, tmp_path: Path) -> None:
    conv, drop = layer("Conv2D", "conv", "x", **CONV), layer(class_name, "drop", **config)
    drop["inbound_nodes"] = [[["conv", 0, 0, {"training": False}]]]
    assert len(loaded(tmp_path, functional(start(), conv, drop)).architecture.layers) == 1
    drop["inbound_nodes"] = [[["conv", 0, 0, {"training": True}]]]
    assert "is called with training=True" in refused(
        written(tmp_path / "it.h5", functional(start(), conv, drop), WEIGHTS)
    )


def test_dropout_of_values_together_is_left_out_and_said(tmp_path: Path) -> None:
    drop = layer("Dropout", "drop", "conv", rate=0.2, noise_shape=[None, 1, 1, 1])
    imported = loaded(tmp_path, functional(start(), layer("Conv2D", "conv", "x", **CONV), drop))
    assert any("'drop' changes its input in training alone" in line for line in imported.remarks)


def test_the_groups_that_tensorflow_writes_everywhere(tmp_path: Path) -> None:
    kernel = np.random.default_rng(2).standard_normal((3, 3, 3, 2)).astype(np.float32)
    config = {"kernel_size": [3, 3], "depth_multiplier": 2, "use_bias": False}

    def of(groups: int) -> Config:
        return functional(start(), layer("DepthwiseConv2D", "conv", "x", groups=groups, **config))

    assert loaded(tmp_path, of(1), {"conv": {"kernel": kernel}}).parameters
    assert "has groups 2, expected 1" in refused(written(tmp_path / "it.h5", of(2), {"conv": {"kernel": kernel}}))


def of_tensorflow(function: str, name: str, *node: Any) -> Config:
    config = {"name": name, "trainable": True, "dtype": "float32", "function": function}
    return {"class_name": "TFOpLambda", "name": name, "config": config, "inbound_nodes": [list(node)]}


def test_preprocessing_by_operations_of_tensorflow(tmp_path: Path) -> None:
    """As `preprocess_input` in a network, and what a hard swish was written as."""
    layers = [
        of_tensorflow("math.truediv", "a", "x", 0, 0, {"y": 127.5, "name": None}),
        of_tensorflow("math.subtract", "b", "a", 0, 0, {"y": 1.0, "name": None}),
        of_tensorflow("math.subtract", "c", "_CONSTANT_VALUE", -1, 2.0, {"y": ["b", 0, 0], "name": None}),
        of_tensorflow("__operators__.add", "d", "c", 0, 0, {"y": 3.0, "name": None}),
        of_tensorflow("nn.relu6", "e", "d", 0, 0, {}),
        of_tensorflow("math.multiply", "f", "e", 0, 0, {"y": ["c", 0, 0], "name": None}),
    ]
    imported = loaded(tmp_path, functional(start(), *layers), {each["name"]: {} for each in layers})
    x = 300 * images_of(6, 5, 3)
    c = 2 - (x / 127.5 - 1)
    found = forward(imported.architecture, {}, turned(x)).logits
    np.testing.assert_allclose(found, turned(np.clip(c + 3, 0, 6) * c), 1e-12)


@pytest.mark.parametrize(
    ("function", "node", "complaint"),
    [
        ("math.add", ("x", 0, 0, {"y": [1.0, 2.0, 3.0]}), "is called with list, expected tensors and numbers"),
        ("nn.relu", ("x", 0, 0, {"axis": 1}), "is called with axis, which is not supported"),
        ("math.truediv", ("_CONSTANT_VALUE", -1, 2.0, {"y": ["x", 0, 0]}), "divides by something that is no number"),
        ("image.resize", ("x", 0, 0, {}), "(TFOpLambda) is not supported"),
    ],
)
def test_other_operations_of_tensorflow_are_refused(
    function: str, node: tuple[Any, ...], complaint: str, tmp_path: Path
) -> None:
    model = functional(start(), of_tensorflow(function, "it", *node))
    assert complaint in refused(written(tmp_path / "it.h5", model, {"it": {}}))


def images_of(*shape: int) -> Any:
    return np.random.default_rng(3).standard_normal((2, *shape))


def turned(x: Any) -> Any:
    return x.transpose(0, 3, 1, 2)


STATISTICS = {name: np.float32([2, 3, 4, 5, 6, 7]) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
SLOPES = np.random.default_rng(4).random((6, 5, 3)).astype(np.float32)
DENSE = np.random.default_rng(5).standard_normal((6, 2)).astype(np.float32)
# What stands behind the input of (6, 5, 3) channels last, its arrays, and what that computes.
COMPUTED: dict[str, tuple[list[Config], dict[str, Any], Callable[[Any], Any]]] = {
    "softmax behind other axes": (
        [layer("Permute", "turn", "x", dims=[3, 2, 1]), layer("Softmax", "it", "turn", axis=-1)],
        {},
        lambda x: softmax(x.transpose(0, 3, 2, 1)),
    ),
    "batch norm behind other axes": (
        [layer("Permute", "turn", "x", dims=[3, 2, 1]), layer("BatchNormalization", "it", "turn", epsilon=0)],
        {"it": STATISTICS},
        lambda x: (x.transpose(0, 3, 2, 1) - [2, 3, 4, 5, 6, 7]) * np.sqrt([2, 3, 4, 5, 6, 7]) + [2, 3, 4, 5, 6, 7],
    ),
    "dense behind other axes": (
        [layer("Permute", "turn", "x", dims=[3, 2, 1]), layer("Dense", "it", "turn", units=2, use_bias=False)],
        {"it": {"kernel": DENSE}},
        lambda x: x.transpose(0, 3, 2, 1) @ np.float64(DENSE),
    ),
    "a slope for every value": (
        [layer("PReLU", "it", "x")],
        {"it": {"alpha": SLOPES}},
        lambda x: np.where(x > 0, x, x * np.float64(SLOPES)),
    ),
    "the largest of three": (
        [
            layer("ReLU", "up", "x"),
            layer("Rescaling", "down", "x", scale=-0.5),
            layer("Maximum", "it", "x", "up", "down"),
        ],
        {},
        lambda x: np.maximum(np.maximum(x, 0), -0.5 * x),
    ),
    "a gate of features": (
        [layer("GlobalAveragePooling2D", "gate", "x"), layer("Multiply", "it", "x", "gate")],
        {},
        lambda x: x * x.mean((1, 2), keepdims=True),
    ),
    "one mean for all": (
        [layer("Normalization", "it", "x", axis=[])],
        {"it": {"mean": np.float32(2), "variance": np.float32(4), "count": np.int64(1)}},
        lambda x: (x - 2) / 2,
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_layers_that_strangers_have_compute_what_keras_says(name: str, tmp_path: Path) -> None:
    layers, arrays, expected = COMPUTED[name]
    model = functional(start(), *layers)
    imported = loaded(
        tmp_path, model, {each["name"]: arrays.get(each["name"], {}) for each in layers}, Request(keep_softmax=True)
    )
    x = images_of(6, 5, 3)
    found = forward(imported.architecture, imported.parameters or {}, turned(x)).logits
    np.testing.assert_allclose(found, turned(expected(x)), 1e-7, 1e-9)


def test_images_without_channels_are_maps_of_one(tmp_path: Path) -> None:
    kernel = np.random.default_rng(5).standard_normal((30, 2)).astype(np.float32)
    layers = layer("Flatten", "flat", "x"), layer("Dense", "it", "flat", units=2, use_bias=False)
    imported = loaded(tmp_path, functional(start(6, 5), *layers), {"flat": {}, "it": {"kernel": kernel}})
    assert imported.architecture.input == (1, 6, 5)
    x = images_of(6, 5)
    found = forward(imported.architecture, imported.parameters or {}, x[:, None]).logits
    np.testing.assert_allclose(found, x.reshape(2, 30) @ np.float64(kernel), 1e-12)


def test_rows_that_are_no_maps_are_not_put_together_as_features(tmp_path: Path) -> None:
    rows = [layer("Reshape", name, "x", target_shape=[3, 30]) for name in ("a", "b")]
    model = functional(start(), *rows, layer("Concatenate", "it", "a", "b", axis=-1))
    assert "puts [(3, 30), (3, 30)] together, expected maps" in refused(written(tmp_path / "it.h5", model, {}))


def test_an_output_that_is_asked_for_and_one_that_is_not_there(tmp_path: Path) -> None:
    model = net()
    model["config"]["layers"].append(layer("Lambda", "code", "relu"))
    model["config"]["output_layers"] = [["code", 0, 0]]
    path = written(tmp_path / "net.h5", model, WEIGHTS)
    assert "layer 'code' (Lambda) is not supported" in refused(path)
    assert load(path, Request(outputs=("relu",))).parameters
    assert "has no layer 'none'; it has conv, relu, code" in refused(path, Request(outputs=("none",)))


def test_the_weight_decay_of_layers_is_said(tmp_path: Path) -> None:
    decay = {"class_name": "L1L2", "config": {"l2": 0.01}}
    model = functional(start(), layer("Conv2D", "conv", "x", kernel_regularizer=decay, **CONV))
    assert any("regularizer" in line for line in loaded(tmp_path, model).remarks)


def changed(change: Callable[[Config], Any]) -> Build:
    def build() -> Config:
        model = net()
        change(model["config"])
        return model

    return build


def one(class_name: str, **config: Any) -> Build:
    return lambda: functional(start(), layer(class_name, "it", "x", **config))


BAD: dict[str, tuple[Build, str]] = {
    "unknown": (one("LSTM", units=3), "layer 'it' (LSTM) is not supported; supported: Conv2D"),
    "code": (one("Lambda", function=["4wEAAA==", None, None]), "layer 'it' (Lambda) is not supported"),
    "channels first": (one("MaxPooling2D", data_format="channels_first"), "expected 'channels_last'"),
    "no arrays": (
        one("BatchNormalization"),
        "has 0 arrays in the file, expected 4 (gamma, beta, moving_mean, moving_var",
    ),
    "key that matters": (one("MaxPooling2D", mood="blue"), "has mood 'blue', which is not supported"),
    "type": (one("MaxPooling2D", pool_size="two"), "has pool_size 'two', expected two whole numbers"),
    "size": (one("MaxPooling2D", pool_size=[1 << 40, 1]), "expected two whole numbers"),
    "zero": (one("MaxPooling2D", pool_size=[0, 1]), "pools windows of (0, 1)"),
    "stride": (one("MaxPooling2D", strides=[0, 1], padding="same"), "has strides (0, 1), expected 1 or more"),
    "padding": (one("MaxPooling2D", padding="causal"), "has padding 'causal', expected valid or same"),
    "rate": (one("Dropout", rate=2), "must be at least 0 and below 1"),
    "activation": (one("Activation", activation="mine"), "has the activation 'mine', supported: linear, relu"),
    "activation's class": (
        one("Activation", activation={"class_name": "Mine", "config": {}}),
        "has the activation 'Mine'",
    ),
    "bounds": (one("ReLU", max_value=-1.0), "must be below its upper bound"),
    "open": (
        lambda: functional(start(None, None, 3), layer("Flatten", "it", "x")),
        "say it: --input CHANNELSxHEIGHTxWIDTH",
    ),
    "old": (
        lambda: functional(start(), layer("Conv2D", "conv", "x", **CONV)),
        "is of Keras 1; load and save it with Keras 2 or 3",
    ),
    "cycle": (
        changed(lambda c: c["layers"][1].update(inbound_nodes=[[["relu", 0, 0, {}]]])),
        "takes its own output (a cycle)",
    ),
    "not there": (
        changed(lambda c: c["layers"][1].update(inbound_nodes=[[["z", 0, 0, {}]]])),
        "takes call 0 of layer 'z', which is not in the file",
    ),
    "second call": (
        changed(lambda c: c.update(output_layers=[["relu", 1, 0]])),
        "takes call 1 of layer 'relu', which is not",
    ),
    "second output": (
        changed(lambda c: c.update(output_layers=[["relu", 0, 1]])),
        "takes output 1 of layer 'relu', which has 1",
    ),
    "no outputs": (changed(lambda c: c.update(output_layers=[])), "has 1 inputs and 0 outputs"),
    "two inputs": (
        changed(lambda c: c.update(input_layers=[["x", 0, 0], ["relu", 0, 0]])),
        "has 2 inputs and 1 outputs, expected 1 inputs",
    ),
    "no layers": (changed(lambda c: c.update(layers={})), "has no list of layers"),
    "layer": (changed(lambda c: c["layers"].append(7)), "layer 3 is no object with class_name and config"),
    "names": (changed(lambda c: c["layers"].append(c["layers"][1])), "has two layers of one name"),
    "nodes": (changed(lambda c: c["layers"][1].update(inbound_nodes=7)), "inbound_nodes that are no list"),
    "node": (
        changed(lambda c: c["layers"][1].update(inbound_nodes=[7])),
        "names a tensor by 7, expected [layer, call, output]",
    ),
    "call with numbers": (
        changed(lambda c: c["layers"][1].update(inbound_nodes=[[["x", 0, 0, {"y": 2.0}]]])),
        "is called with numbers of its own",
    ),
    "class": (
        lambda: {"class_name": "Mine", "config": {}},
        "holds a 'Mine', expected one of Functional, Model, Sequential",
    ),
    "filters": (
        changed(lambda c: c["layers"][1]["config"].update(filters=5)),
        "layer 'conv' (Conv2D) has weight (4, 3, 3, 3), but by its attributes (5, 3, 3, 3)",
    ),
    "bias": (
        changed(lambda c: c["layers"][1]["config"].update(use_bias=True)),
        "has 1 arrays in the file, expected 2 (kernel, bias)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_taken_over_is_one_line(name: str, tmp_path: Path) -> None:
    build, complaint = BAD[name]
    version = "1.2.2" if name == "old" else "2.2.4"
    assert complaint in refused(written(tmp_path / "net.h5", build(), WEIGHTS, version))


def test_models_in_models_have_a_depth(tmp_path: Path) -> None:
    model: Config = {"class_name": "Sequential", "config": [start()]}
    for number in range(60):
        model = {"class_name": "Sequential", "config": {"name": f"m{number}", "layers": [start(), model]}}
    assert "nests more than 20 models" in refused(written(tmp_path / "net.h5", model, {}))


def test_weights_alone_need_a_network(tmp_path: Path) -> None:
    assert "holds weights and no network" in refused(written(tmp_path / "weights.h5", None, WEIGHTS))
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = KERNEL
    assert "this file as --weights" in refused(tmp_path / "net.weights.h5")


def with_link(path: Path, link: Any) -> Path:
    written(path, net(), WEIGHTS)
    with h5py.File(path, "a") as file:
        file["elsewhere"] = KERNEL
        del file["model_weights/conv/conv/kernel:0"]
        if link is not None:
            file["model_weights/conv/conv/kernel:0"] = link
    return path


def test_links_out_of_the_file_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kernel"] = KERNEL
    for link in (
        h5py.ExternalLink("other.h5", "kernel"),
        h5py.ExternalLink("none.h5", "x"),
        h5py.SoftLink("/elsewhere"),
    ):
        assert "'kernel:0' is a soft or external link" in refused(with_link(tmp_path / "net.h5", link))
    assert "'kernel:0' is not in the file, though" in refused(with_link(tmp_path / "net.h5", None))


def test_a_name_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        file.create_group("layers/conv2d/vars")[b"\xff"] = np.ones(2)
    with pytest.raises(TriptychError, match="is no group of names"):
        keras_file.read(tmp_path / "net.weights.h5")


def test_arrays_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(KERNEL.tobytes())
    path = with_link(tmp_path / "net.h5", None)
    with h5py.File(path, "a") as file:
        file["model_weights/conv/conv"].create_dataset(
            "kernel:0", KERNEL.shape, "f4", external=[(str(tmp_path / "raw"), 0, KERNEL.nbytes)]
        )
    assert "lies outside of the file" in refused(path)
    layout = h5py.VirtualLayout(KERNEL.shape, "f4")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "kernel", KERNEL.shape)
    path = with_link(tmp_path / "net.h5", None)
    with h5py.File(path, "a") as file:
        file["model_weights/conv/conv"].create_virtual_dataset("kernel:0", layout)
    assert "lies outside of the file" in refused(path)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (np.array([b"text"]), "is of type |S4, expected float32"),
        (np.zeros(3, [("a", "f4"), ("b", "f4")]), "expected float32 or like it"),
        (KERNEL.astype(np.complex64), "is of type complex64"),
    ],
)
def test_arrays_that_are_no_numbers(value: Any, complaint: str, tmp_path: Path) -> None:
    assert complaint in refused(written(tmp_path / "net.h5", net(), {"conv": {"kernel": value}}))


def test_sizes_that_lie_take_no_memory(tmp_path: Path) -> None:
    """An array of which nothing is stored, and one of zeros that is packed."""
    for options in (
        {"shape": (1 << 20, 1 << 20), "chunks": (1024, 1024)},
        {"data": np.zeros((3000, 3000)), "compression": "gzip"},
    ):
        path = with_link(tmp_path / "net.h5", None)
        with h5py.File(path, "a") as file:
            file["model_weights/conv/conv"].create_dataset("kernel:0", dtype="f4", **options)
        assert "ten times the file" in refused(path)


def archived(path: Path, weights: bytes, config: Any, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.1.0"}))
        archive.writestr("config.json", config if isinstance(config, str | bytes) else json.dumps(config))
        if weights:
            archive.writestr("model.weights.h5", weights)
    return path


def weights_file() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/conv2d/vars/0"] = KERNEL
    return stream.getvalue()


def test_an_archive_of_keras_3(tmp_path: Path) -> None:
    (weight,) = (load(archived(tmp_path / "net.keras", weights_file(), net()), Request()).parameters or {}).values()
    np.testing.assert_array_equal(weight, KERNEL.transpose(3, 2, 0, 1))


@pytest.mark.parametrize(
    ("weights", "config", "complaint"),
    [
        (b"", net(), "has no model.weights.h5; expected a .keras file"),
        (bytes(1 << 24), net(), "which no network of this size does"),
        (b"no hdf5" * 99, net(), "is no HDF5 file of Keras, or damaged"),
        (weights_file(), "[1]", "config.json is no JSON object"),
        (weights_file(), "[" * 10_000, "config.json is no JSON object"),
        (weights_file(), " " * (1 << 27), "takes more than"),
    ],
    ids=["none", "bomb", "no file", "list", "deep", "long"],
)
def test_archives_that_are_not_as_they_should_be(weights: bytes, config: Any, complaint: str, tmp_path: Path) -> None:
    assert complaint in refused(archived(tmp_path / "net.keras", weights, config))


def test_a_group_that_holds_itself(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        group = file.create_group("layers/sequential/layers")
        group["sequential"] = file["layers/sequential"]
    assert "stands there twice" in refused(archived(tmp_path / "net.keras", stream.getvalue(), net()))


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(500), b"PK\x05\x06" + bytes(18)])
def test_what_is_no_file_of_keras(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    path.write_bytes(content)
    refused(path)


def test_a_heap_of_zeros_in_which_the_library_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time limit within the process would end it: the library does not come back to Python."""
    monkeypatch.setattr(keras_trial, "SECONDS", 1)
    monkeypatch.setattr(keras_trial, "try_out", TRIAL)
    [content] = seeds.keras()
    at = content.index(b"gePooling2D")
    zeroed = content[:at] + bytes(933) + content[at + 933 :]
    path = tmp_path / "net.h5"
    path.write_bytes(zeroed)
    with pytest.raises(TriptychError, match="is damaged: reading it does not end in 1 seconds; copy it again"):
        load(path, PLAIN)


def test_what_ends_the_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(TriptychError, match=r"ends the process \(signal 11\)"):
        keras_trial.judge(tmp_path, -11, 1)
    keras_trial.judge(tmp_path, 1, 1)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.h5", tmp_path, Path("a\0b")):
        assert "cannot read" in refused(path) or "is no HDF5" in refused(path)


def test_a_json_that_is_none(tmp_path: Path) -> None:
    for text in ("", "[1]", "{", "[" * 10_000):
        assert "model_config is no JSON object" in refused(written(tmp_path / "net.h5", text, WEIGHTS))


EXAMPLES = 200 if ALL else 50  # each is read in a process


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["same", "Dense", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["class_name", "config", "name"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(places(net())[1:]), anything), min_size=1, max_size=3))
def test_altered_fields_give_a_network_or_the_one_error(
    changes: list[tuple[tuple[Any, ...], Any]], tmp_path: Path
) -> None:
    model: Any = net()
    for path, value in changes:
        target = model
        try:
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    assert "\n" not in complaint(lambda: loaded(tmp_path, model))


CONTENT = weights_file()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(CONTENT) - 1), inserted=st.binary(min_size=1, max_size=8))
def test_altered_bytes_give_a_network_or_the_one_error(at: int, inserted: bytes, tmp_path: Path) -> None:
    content = CONTENT[:at] + inserted + CONTENT[at + len(inserted) :]
    assert "\n" not in complaint(lambda: load(archived(tmp_path / "net.keras", content, net()), Request()))
