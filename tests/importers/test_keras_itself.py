"""Keras's files against Keras, in float64: every layer of the table, and the networks of keras.applications. Keras
comes with TensorFlow, so this runs in an environment of its own: bash tests/environments/run keras."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych import zoo
from triptych.importers.keras_network import load
from triptych.importers.keras_weights import load_weights
from triptych.importers.steps import Imported, ImportRefusedError, Request
from triptych.porting import convert
from triptych.reference.network import forward
from triptych.spec.layers import LeakyReLU, walk

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
keras = pytest.importorskip("keras", reason="Keras is not installed here: bash tests/environments/run keras")
L: Any = keras.layers

Model = Any
FORMATS = (".keras", ".h5")


def filled(model: Model) -> Model:
    """Random weights, variances above 0."""
    generator = np.random.default_rng(7)
    for layer in model._flatten_layers():
        for variable in getattr(layer, "variables", []):
            if variable.dtype.startswith("float"):
                values = generator.standard_normal(variable.shape) / max(1, np.sqrt(np.prod(variable.shape[:-1])))
                variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else values)
    return model


def in_double(model: Model) -> Model:
    """The same network computed in float64."""
    keras.config.set_floatx("float64")
    try:
        wide = keras.models.model_from_json(model.to_json().replace('"float32"', '"float64"'))
    finally:
        keras.config.set_floatx("float32")
    wide.set_weights(model.get_weights())
    return wide


def expected(model: Model, images: Any) -> Any:
    """Keras's output for `(N, C, H, W)` images, of a map with the channels first."""
    rank = len(model.input_shape)
    x = np.moveaxis(images, 1, -1) if rank == 4 else images[:, 0] if rank == 3 else images[:, :, 0, 0]
    y = np.asarray(in_double(model)(x, training=False))  # which layers of augmentation have to be told
    return np.moveaxis(y, -1, 1) if y.ndim == 4 else y


def agree(model: Model, path: Path, batch: int = 2) -> Imported:
    """The file gives the outputs of the model. TensorFlow resizes in float32, and rounds a slope and a scale to it, in
    float64 too: images and constants here are multiples of powers of two, which lose nothing."""
    imported = load(path, Request(keep_softmax=True))
    images = np.round(8 * np.random.default_rng(3).standard_normal((batch, *imported.architecture.input))) / 8
    wanted = expected(model, images)
    got = forward(imported.architecture, imported.parameters or {}, images).logits
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-12 * np.abs(wanted).max()
    assert np.ptp(wanted) > 1e-3
    return imported


def saved(model: Model, folder: Path, suffix: str) -> Path:
    path = folder / f"net{suffix}"
    model.save(path)
    return path


def on_map(*layers: Any, shape: tuple[int, ...] = (9, 8, 4)) -> Model:
    return keras.Sequential([keras.Input(shape), *layers])


def graph(build: Callable[[Any], Any], shape: tuple[int, ...] = (9, 8, 4)) -> Model:
    x = keras.Input(shape)
    return keras.Model(x, build(x))


def squeeze_and_excite(x: Any) -> Any:
    y = L.GlobalAveragePooling2D(keepdims=True)(x)
    return L.Multiply()([x, L.Conv2D(4, 1, activation="hard_sigmoid")(y)])


def nested(x: Any) -> Any:
    inner = keras.Sequential([keras.Input((9, 8, 4)), L.Conv2D(6, 3, padding="same"), L.BatchNormalization()])
    y = keras.Input((9, 8, 6))
    outer = keras.Model(y, L.Add()([L.Conv2D(6, 1)(y), y]))
    return L.Dense(3)(L.Flatten()(outer(inner(L.Conv2D(4, 1)(x)))))


def called_twice(x: Any) -> Any:
    conv = L.Conv2D(4, 3, padding="same")
    return conv(L.ReLU()(conv(x)))


NETWORKS: dict[str, Callable[[], Model]] = {
    "conv": lambda: on_map(L.Conv2D(5, (3, 2), activation="relu")),
    "conv same": lambda: on_map(L.Conv2D(5, 3, padding="same")),
    "conv same even": lambda: on_map(L.Conv2D(5, (2, 4), padding="same")),
    "conv same stride": lambda: on_map(L.Conv2D(5, 3, strides=2, padding="same", use_bias=False)),
    "conv same stride 3": lambda: on_map(L.Conv2D(5, 5, strides=3, padding="same")),
    "conv dilated": lambda: on_map(L.Conv2D(5, 3, padding="same", dilation_rate=2)),
    "conv groups": lambda: on_map(L.Conv2D(6, 3, groups=2)),
    "depthwise": lambda: on_map(L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=3)),
    "separable": lambda: on_map(L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, activation="relu")),
    "transposed": lambda: on_map(L.Conv2DTranspose(5, 3, strides=2)),
    "transposed small": lambda: on_map(L.Conv2DTranspose(5, 2, strides=3)),
    "transposed same": lambda: on_map(L.Conv2DTranspose(5, 3, strides=2, padding="same", use_bias=False)),
    "transposed same 4": lambda: on_map(L.Conv2DTranspose(5, 4, strides=2, padding="same")),
    "transposed same 5": lambda: on_map(L.Conv2DTranspose(5, (5, 1), strides=(2, 2), padding="same")),
    "dense": lambda: on_map(L.Dense(7, activation="tanh"), L.Dense(3), shape=(6,)),
    "dense on a map": lambda: on_map(L.Dense(7)),
    "flatten": lambda: on_map(L.Flatten(), L.BatchNormalization(), L.PReLU(), L.Dropout(0.5), L.Dense(3)),
    "flatten twice": lambda: graph(
        lambda x: L.Dense(3)(
            L.Concatenate()([L.Flatten()(L.Conv2D(3, 3)(x)), L.GlobalMaxPooling2D()(x), L.Flatten()(x)])
        )
    ),
    "batch norm": lambda: on_map(L.BatchNormalization()),
    "batch norm bare": lambda: on_map(L.BatchNormalization(scale=False, center=False, epsilon=0.01)),
    "batch norm without scale": lambda: on_map(L.BatchNormalization(scale=False)),
    "max pool": lambda: on_map(L.MaxPooling2D()),
    "max pool 3": lambda: on_map(L.MaxPooling2D(3, 2)),
    "max pool same": lambda: on_map(L.MaxPooling2D(3, 2, padding="same")),
    "max pool same even": lambda: on_map(L.MaxPooling2D((2, 4), 1, padding="same")),
    "max pool same large": lambda: on_map(L.MaxPooling2D((2, 4), (4, 5), padding="same")),
    "average pool": lambda: on_map(L.AveragePooling2D((3, 2))),
    "average pool same": lambda: on_map(L.AveragePooling2D(3, 1, padding="same")),
    "average pool same stride": lambda: on_map(L.AveragePooling2D(3, 2, padding="same")),
    "global pools": lambda: graph(lambda x: L.Add()([L.GlobalAveragePooling2D()(x), L.GlobalMaxPooling2D()(x)])),
    "padding": lambda: on_map(L.ZeroPadding2D(((1, 2), (3, 0))), L.Cropping2D(((0, 3), (1, 1)))),
    "upsampling": lambda: on_map(L.UpSampling2D((2, 3)), L.UpSampling2D(2, interpolation="bilinear")),
    "reshape": lambda: on_map(
        L.GlobalAveragePooling2D(), L.Reshape((1, 1, 4)), L.Conv2D(6, 1), L.Reshape((6,)), L.Dense(3)
    ),
    "reshape to a row": lambda: on_map(L.Reshape((288,)), L.Reshape((-1,)), L.Dense(3)),
    "merges": lambda: graph(lambda x: L.Concatenate()([x, L.Add()([x, x, L.Conv2D(4, 1)(x)]), L.Average()([x, x])])),
    "subtract": lambda: graph(lambda x: L.Subtract()([x, L.Conv2D(4, 1)(x)])),
    "numbers": lambda: graph(lambda x: (3.0 - (x * 2.0 + 1.5)) / 4.0 - 0.5),
    "squeeze and excite": lambda: graph(squeeze_and_excite),
    "rescaling": lambda: on_map(L.Rescaling(1 / 128, offset=-1), L.Rescaling([1.0, 2.0, 3.0, 4.0])),
    "normalization": lambda: on_map(L.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 2.0, 0.0, 4.0])),
    "nested": lambda: graph(nested),
    "called twice": lambda: graph(called_twice),
    "softmax": lambda: on_map(L.Softmax(), L.Conv2D(4, 1, activation="softmax")),
    "relu": lambda: on_map(L.ReLU(negative_slope=0.5), L.LeakyReLU(0.25), L.Rescaling(-1.0), L.ReLU(max_value=1.5)),
    "prelu of every value": lambda: on_map(L.PReLU()),
    "other axes": lambda: on_map(L.Permute((3, 1, 2)), L.BatchNormalization(), L.Softmax(), L.Dense(3)),
    "the largest": lambda: graph(lambda x: L.Maximum()([x, L.Conv2D(4, 1)(x), L.Conv2D(4, 1)(x)])),
    "gate of features": lambda: graph(lambda x: L.Multiply()([x, L.GlobalMaxPooling2D()(x)])),
    "image without channels": lambda: on_map(L.Flatten(), L.Dense(3), shape=(6, 5)),
    "flat output": lambda: on_map(L.Flatten()),
    "rows": lambda: on_map(L.Reshape((8, 36)), L.Flatten(), L.Dense(3)),
    "prelu": lambda: on_map(L.PReLU(shared_axes=[1, 2]), L.PReLU(shared_axes=[1, 2, 3])),
    **{
        f"activation {name}": lambda name=name: on_map(L.Conv2D(4, 1, activation=name), L.Activation(name))
        for name in (
            *("relu", "relu6", "sigmoid", "tanh", "softmax", "silu", "hard_sigmoid", "hard_silu"),
            *("elu", "selu", "gelu", "softplus", "softsign", "mish", "hard_tanh", "celu", "log_sigmoid"),
        )
    },
    "augmentation": lambda: on_map(
        L.RandomFlip(), L.RandomRotation(0.1), L.RandomZoom(0.2), L.RandomTranslation(0.1, 0.1), L.Conv2D(4, 1)
    ),
    "noise": lambda: on_map(L.GaussianNoise(0.1), L.Conv2D(4, 1)),
    "elu": lambda: on_map(L.ELU(0.3), L.Conv2D(4, 1), L.ELU()),
    "operations": lambda: graph(
        lambda x: keras.ops.gelu(
            keras.ops.elu(keras.ops.selu(keras.ops.softplus(keras.ops.softsign(x))), alpha=0.5), approximate=False
        )
    ),
}


WITH_TANH = ("dense", "activation tanh")  # ops.tanh casts to result_type(float64, float), which is float32 there


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_gives_what_keras_gives(name: str, suffix: str, tmp_path: Path) -> None:
    if keras.backend.backend() == "jax" and name in WITH_TANH:
        pytest.skip("on JAX Keras computes tanh in float32 whatever it is given: no oracle in float64")
    model = filled(NETWORKS[name]())
    agree(model, saved(model, tmp_path, suffix))


@pytest.mark.parametrize(("build", "slope"), [(lambda: L.Activation("leaky_relu"), 0.2), (lambda: L.LeakyReLU(), 0.3)])
def test_the_slope_that_is_not_written(build: Callable[[], Any], slope: float, tmp_path: Path) -> None:
    imported = load(saved(on_map(build()), tmp_path, ".keras"), Request())
    (layer,) = (each for _, each in walk(imported.architecture.layers) if isinstance(each, LeakyReLU))
    assert layer.slope == slope


REFUSED: dict[str, tuple[Callable[[], Model], str]] = {
    "lambda": (
        lambda: on_map(L.Lambda(lambda x: x * 2)),
        "layer 'lambda' (Lambda) is not supported; supported: Conv2D",
    ),
    "activation": (
        lambda: on_map(L.Activation("exponential")),
        "(Activation) has the activation 'exponential', supported: linear, relu",
    ),
    "average": (
        lambda: on_map(L.AveragePooling2D(2, 1, padding="same")),
        "pools windows of (2, 2) at stride (1, 1)",
    ),
    "axis": (lambda: on_map(L.BatchNormalization(axis=1)), "has axis 1, expected -1 or 3, the channels"),
    "threshold": (lambda: on_map(L.ReLU(threshold=1.0)), "has a threshold"),
    "open": (lambda: on_map(L.Conv2D(4, 1), shape=(None, None, 3)), "say it: --input CHANNELSxHEIGHTxWIDTH"),
    "sequence": (lambda: on_map(L.Conv1D(4, 1), shape=(9, 3)), "layer 'conv1d' (Conv1D) is not supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_spec_does_not_have_is_refused_with_the_layer(name: str, tmp_path: Path) -> None:
    build, complaint = REFUSED[name]
    with pytest.raises(ImportRefusedError) as caught:
        load(saved(build(), tmp_path, ".keras"), Request(keep_softmax=True))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


APPLICATIONS = {
    "VGG16": (32, {"include_top": True, "classes": 10}),
    "ResNet50": (32, {"classes": 10}),
    "ResNet50V2": (32, {"classes": 10}),
    "MobileNet": (32, {"classes": 10, "alpha": 0.25}),
    "MobileNetV2": (32, {"classes": 10, "alpha": 0.35}),
    "MobileNetV3Small": (32, {"classes": 10, "minimalistic": False}),
    "InceptionV3": (75, {"classes": 10}),
    "Xception": (71, {"classes": 10}),
    "DenseNet121": (32, {"classes": 10}),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_of_keras_applications(name: str, suffix: str, tmp_path: Path) -> None:
    size, options = APPLICATIONS[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), **options)
    agree(filled(model), saved(model, tmp_path, suffix), batch=1)


WEIGHTS_ALONE = {
    "vgg": lambda: on_map(
        L.Conv2D(4, 3, padding="same"),
        L.BatchNormalization(),
        L.ReLU(),
        L.MaxPooling2D(),
        L.Conv2D(6, 3),
        L.Flatten(),
        L.Dense(8),
        L.Dropout(0.5),
        L.Dense(3),
    ),
    "separable": lambda: on_map(
        L.SeparableConv2D(5, 3), L.PReLU(shared_axes=[1, 2]), L.SeparableConv2D(6, 3, use_bias=False), L.Conv2D(4, 1)
    ),
    "depthwise": lambda: on_map(*(layer for _ in range(11) for layer in (L.DepthwiseConv2D(1), L.Conv2D(4, 1)))),
    "transposed": lambda: on_map(L.Conv2DTranspose(5, 3), L.Conv2D(4, 1)),
}


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
@pytest.mark.parametrize("name", WEIGHTS_ALONE)
def test_weights_alone_find_their_places_in_a_network_that_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    model = filled(WEIGHTS_ALONE[name]())
    imported = load(saved(model, tmp_path, ".keras"), Request())
    path = tmp_path / f"it{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    parameters, _ = load_weights(path, imported.architecture)
    assert parameters.keys() == (imported.parameters or {}).keys()
    for key, value in (imported.parameters or {}).items():
        np.testing.assert_array_equal(parameters[key], value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    networks = [filled(on_map(L.Conv2D(4, 3), L.Conv2D(4, size))) for size in (1, 3)]
    architecture = load(saved(networks[0], tmp_path, ".keras"), Request()).architecture
    networks[1].save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ImportRefusedError, match="belongs to another network"):
        load_weights(tmp_path / "other.weights.h5", architecture)
    filled(on_map(L.Conv2D(4, 3))).save_weights(tmp_path / "short.weights.h5")
    with pytest.raises(ImportRefusedError, match="has 1 layers 'conv2d', but the network 2"):
        load_weights(tmp_path / "short.weights.h5", architecture)


def test_weights_of_keras_applications_for_a_network_of_the_zoo(tmp_path: Path) -> None:
    model = filled(keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=10))
    model.save_weights(tmp_path / "vgg16.weights.h5")
    architecture = zoo.build("vgg16", input=(3, 32, 32), classes=10)
    parameters, _ = load_weights(tmp_path / "vgg16.weights.h5", architecture)
    images = np.random.default_rng(3).standard_normal((1, 3, 32, 32))
    got = forward(architecture, parameters, images).logits
    wanted = expected(keras.Model(model.input, model.layers[-1].output), images)
    e = np.exp(got - got.max())
    assert np.abs(e / e.sum() - wanted).max() <= 1e-12


@pytest.mark.parametrize("chw", [False, True])
def test_keras_loads_what_is_written(chw: bool, tmp_path: Path) -> None:
    """Every class that has arrays, twice where its number counts; a flattened map."""
    same: dict[str, Any] = {"padding": "same"}
    model = on_map(
        *(L.Conv2D(6, 3, use_bias=False, **same), L.BatchNormalization(scale=False), L.PReLU(shared_axes=[1, 2])),
        *(L.DepthwiseConv2D(3, depth_multiplier=2, **same), L.ReLU(), L.BatchNormalization(), L.Conv2D(4, (1, 3))),
        *(L.Conv2DTranspose(5, 2, 2), L.MaxPooling2D(2), L.Flatten(), L.BatchNormalization(), L.Dense(7)),
        *(L.PReLU(shared_axes=[1]), L.Dense(3, use_bias=False)),
    )
    filled(model)
    imported = load(saved(model, tmp_path, ".keras"), Request(keep_softmax=True))
    path = tmp_path / "it.weights.h5"
    wanted = [np.array(value) for value in model.get_weights()]
    convert.from_network(imported, path, flatten="chw" if chw else None)
    filled(model).set_weights([np.zeros_like(value) for value in wanted])
    model.load_weights(path)
    same_bits = [np.array_equal(value, found) for value, found in zip(wanted, model.get_weights(), strict=True)]
    assert all(same_bits) is not chw  # the other order of the map is another network
    assert convert.from_file(path, imported.architecture, tmp_path / "it.npz").arrays == len(imported.parameters or {})
