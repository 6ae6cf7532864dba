"""Weights through every pair of formats to the bit, read back by the frameworks themselves; what does not fit."""

from __future__ import annotations

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import awkward_networks
from marks import ALL
from triptych import zoo
from triptych.backend import registry
from triptych.importers.steps import Imported
from triptych.porting import convert, loaded_outputs, sources, weight_files
from triptych.reference import network as reference
from triptych.spec import analysis
from triptych.spec.layers import (
    Affine,
    Architecture,
    BatchNorm,
    Block,
    Branches,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    MaxPool,
    PReLU,
    ReLU,
    Residual,
)
from triptych.spec.records import encode
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError
from triptych.weights import initializers, store
from triptych.weights.formats import torch_file
from triptych.weights.formats.endings import ENDINGS, ending_of
from triptych.weights.naming import NAMINGS, NamedArrays

INSTALLED = registry.installed()
needs = {
    name: pytest.mark.skipif(name not in INSTALLED, reason=f"{name} is not installed") for name in registry.BACKENDS
}
PACKAGES = {".msgpack": "msgpack", ".weights.h5": "h5py", ".orbax": "orbax"}
ABSENT = {ending for ending, package in PACKAGES.items() if importlib.util.find_spec(package) is None}
HERE = [ending for ending in ENDINGS if ending.ending not in ABSENT]
needs_orbax = pytest.mark.skipif(".orbax" in ABSENT, reason="orbax is not installed")
needs_h5py = pytest.mark.skipif(".weights.h5" in ABSENT, reason="h5py is not installed")
FORMATS = [(ending.ending, naming) for ending in HERE for naming in ending.namings]
# every axis, role and order: depthwise and transposed convolutions, slopes, fixed scales, a flattened map of 7 x 7
EVERYTHING = Architecture(
    "everything",
    (3, 14, 14),
    5,
    (
        Conv("stem", 6, (3, 3), padding=(1, 1), bias=False),
        BatchNorm("norm", gamma=False),
        PReLU("slopes"),
        Conv("depthwise", 6, (3, 3), padding=(1, 1), groups=6),
        BatchNorm("fixed", gamma=False, beta=False),
        Branches("mixed", (Block("a", (Conv("conv", 4, (1, 3), padding=(0, 1)),)), Block("same", ()))),
        ConvTranspose("up", 5, (2, 3), (2, 2), (0, 1), (0, 1), bias=True),
        MaxPool("pool", (4, 4), (4, 4)),
        Affine("affine", trained=True),
        Flatten("flatten"),
        BatchNorm("flat_norm"),
        Dense("hidden", 7),
        PReLU("shared", shared=True),
        Dense("scores", 5, bias=False),
    ),
)
NETWORKS = {
    "everything": EVERYTHING,
    "vgg16_bn": zoo.build("vgg16_bn", width_ratio=16, dense_width=32, classes=7),
    "inception_v3": zoo.build("inception_v3", width_ratio=16, classes=3),
    "mobilenet_v2": zoo.build("mobilenet_v2", width_ratio=8, classes=3),
    "resnet18_v2": zoo.build("resnet18_v2", width_ratio=16, classes=3),
}


def drawn(architecture: Architecture, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Values that are all different, NaN and a negative zero among them: bits are compared."""
    random = np.random.default_rng(2)
    arrays = {info.path: random.normal(size=info.shape).astype(dtype) for info in analysis.parameters(architecture)}
    first = next(iter(arrays.values())).reshape(-1)
    first[:2] = np.nan, -0.0
    return arrays


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    assert all(convert.same_bits(found[path], expected[path]) for path in expected)


def spec_file(folder: Path, architecture: Architecture) -> Path:
    path = folder / "net.json"
    path.write_text(json.dumps(encode(architecture)))
    return path


@pytest.mark.parametrize("ending", PACKAGES)
def test_the_package_for_a_format_is_here(ending: str) -> None:
    if ending in ABSENT:
        pytest.skip(f"{PACKAGES[ending]} is not installed: nothing of {ending} is tried")
    assert ending in dict(FORMATS)


# --- bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_pair_of_formats_is_bit_exact(name: str, tmp_path: Path) -> None:
    architecture = NETWORKS[name]
    values = drawn(architecture)
    files, expected = {}, {}
    for ending, naming in FORMATS:
        files[ending, naming] = tmp_path / f"{naming}{ending}"
        convert.from_network(Imported(architecture, values), files[ending, naming], to=naming)
        assert_same(weight_files.read(files[ending, naming], architecture).parameters, values)
        expected[ending, naming] = ending_of(files[ending, naming]).read(files[ending, naming])
    for (source, one), (ending, naming) in permutations(FORMATS, 2):
        target = tmp_path / f"again{ending}"
        shutil.rmtree(target, ignore_errors=True)  # a folder is not written over
        done = convert.from_file(files[source, one], architecture, target, to=naming)
        assert done.arrays == len(values)
        assert not done.left_over
        assert_same(ending_of(target).read(target), expected[ending, naming])
        if name != "everything" and naming == "linen":
            break


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
@pytest.mark.parametrize(("ending", "naming"), FORMATS)
def test_other_precisions_keep_their_bits(ending: str, naming: str, dtype: Any, tmp_path: Path) -> None:
    values = drawn(EVERYTHING, dtype)
    convert.from_network(Imported(EVERYTHING, values), tmp_path / f"net{ending}", to=naming)
    assert_same(weight_files.read(tmp_path / f"net{ending}", EVERYTHING).parameters, values)


def test_a_wrong_transposition_is_seen_in_the_file_that_was_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(NamedArrays, "to_canonical", lambda self, path, array: array)
    with pytest.raises(TriptychError, match=r"'stem.weight' is not the same when it is read back"):
        convert.from_network(Imported(EVERYTHING, drawn(EVERYTHING)), tmp_path / "net.npz")


# --- the frameworks themselves ---------------------------------------------------------------------------------------


def images(architecture: Architecture) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(2, *architecture.input)).astype(np.float32)


def written(tmp_path: Path, name: str, **options: Any) -> tuple[Path, dict[str, np.ndarray]]:
    values = awkward_networks.parameters(EVERYTHING)
    convert.from_network(Imported(EVERYTHING, values), tmp_path / name, **options)
    return tmp_path / name, values


@needs["torch"]
def test_pytorch_loads_a_state_dict(tmp_path: Path) -> None:
    import torch

    path, values = written(tmp_path, "net.pt")
    state = torch.load(path, weights_only=True)
    assert_same({name: tensor.numpy() for name, tensor in state.items()}, values)
    own = registry.load("torch").build(EVERYTHING)  # its norms do not count batches, as PyTorch's do
    missing, unexpected = own.load_state_dict(state, strict=False)
    assert not missing
    assert all(name.endswith("num_batches_tracked") for name in unexpected)
    assert_same({name: tensor.numpy() for name, tensor in own.state_dict().items()}, values)
    torch.save(state, tmp_path / "theirs.pt")
    assert_same(weight_files.read(tmp_path / "theirs.pt", EVERYTHING).parameters, values)


@needs["torch"]
def test_a_state_dict_of_somebody_elses_network_is_matched_by_order(tmp_path: Path) -> None:
    import torch
    from torch import nn

    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 3))
    )
    row = (Conv("a", 4, (3, 3)), BatchNorm("n"), ReLU("r"), Conv("b", 5, (3, 3)), Flatten("f"), Dense("d", 3))
    architecture = Architecture("row", (3, 8, 8), 3, row)
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "net.pt")
    names = {
        f"{place}.{array}": f"{layer}.{array}"
        for place, layer in ((0, "a"), (1, "n"), (3, "b"), (5, "d"))
        for array in ("weight", "bias", "running_mean", "running_var")
        if f"{place}.{array}" in net.state_dict()
    }
    values = {path: net.state_dict()[name].numpy() for name, path in names.items()}
    convert.from_network(Imported(architecture, values), tmp_path / "back.pt", mapping=names)
    net.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True), strict=True)
    read = weight_files.read(tmp_path / "net.pt", architecture)
    assert read.left_over == ("1.num_batches_tracked",)
    assert np.array_equal(read.parameters["b.weight"], net[3].weight.detach().numpy())
    assert np.array_equal(read.parameters["n.running_var"], net[1].running_var.numpy())
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(TriptychError, match=r"no state dict.*a Sequential.*save net.state_dict\(\)"):
        weight_files.read(tmp_path / "whole.pt", architecture)


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_names_that_say_more_than_order_count(ending: str, prefix: str, tmp_path: Path) -> None:
    """Two layers of one shape: safetensors sorts names, so that `second` comes before `start`."""
    body = Block("body", (Conv("second", 4, (3, 3), padding=(1, 1)),))
    row = (Conv("net_start", 4, (3, 3), padding=(1, 1)), Residual("net", body), Flatten("f"), Dense("d", 3))
    architecture = Architecture("row", (4, 8, 8), 3, row)
    values = drawn(architecture)
    theirs = {"net_start": "net.start", "net.body.second": "net.second", "d": "d"}
    names = {path: f"{prefix}{theirs[path.rpartition('.')[0]]}.{path.rpartition('.')[2]}" for path in values}
    path = tmp_path / f"it.{ending}"
    ending_of(path).write(path, {names[key]: values[key] for key in sorted(values, reverse=True)})
    assert_same(dict(sources.load_weights(path, architecture).parameters or {}), values)
    ending_of(path).write(path, {names[key].replace("second", "third"): value for key, value in values.items()})
    if ending == "safetensors":
        with pytest.raises(TriptychError):
            sources.load_weights(path, architecture)


@needs["mxnet"]
def test_mxnet_loads_its_parameters_bit_for_bit(tmp_path: Path) -> None:
    backend = registry.load("mxnet")
    import mxnet as mx

    path, values = written(tmp_path, "net.params")
    loaded = mx.nd.load(str(path))
    named = NamedArrays(EVERYTHING, NAMINGS["gluon"])
    for canonical, name in named.names.items():
        assert convert.same_bits(loaded[name].asnumpy(), values[canonical])
    network = backend.build(EVERYTHING)
    network.load_parameters(str(path))  # strict: fixed scales and shifts are in it
    expected = reference.forward(EVERYTHING, values, images(EVERYTHING)).logits
    found = network(mx.nd.array(images(EVERYTHING))).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    network.save_parameters(str(tmp_path / "theirs.params"))
    assert_same(weight_files.read(tmp_path / "theirs.params", EVERYTHING).parameters, values)


@needs["mxnet"]
def test_mxnet_splits_an_exported_file(tmp_path: Path) -> None:
    registry.load("mxnet")
    import mxnet as mx

    path, values = written(tmp_path, "net.params", to="gluon-exported")
    loaded = mx.nd.load(str(path))
    assert convert.same_bits(loaded["arg:mixed_a_conv_weight"].asnumpy(), values["mixed.a.conv.weight"])
    assert convert.same_bits(loaded["aux:flat_norm_running_var"].asnumpy(), values["flat_norm.running_var"])
    assert (loaded["arg:fixed_gamma"].asnumpy() == 1).all()
    assert not loaded["arg:fixed_beta"].asnumpy().any()


@needs["jax"]
def test_flax_restores_its_variables(tmp_path: Path) -> None:
    from flax import serialization, traverse_util

    path, values = written(tmp_path, "net.msgpack", to="linen")
    tree = serialization.msgpack_restore(path.read_bytes())
    assert tree.keys() == {"params", "batch_stats"}
    named = NamedArrays(EVERYTHING, NAMINGS["linen"])
    flat = {"/".join(key): np.asarray(value) for key, value in traverse_util.flatten_dict(tree).items()}
    assert_same({p: named.to_canonical(p, flat[n]) for p, n in named.names.items()}, values)
    (tmp_path / "theirs.msgpack").write_bytes(serialization.to_bytes(tree))
    assert_same(weight_files.read(tmp_path / "theirs.msgpack", EVERYTHING).parameters, values)


@needs_orbax
@needs["jax"]
def test_orbax_and_nnx_restore_what_is_written(tmp_path: Path) -> None:
    import orbax.checkpoint as orbax

    backend = registry.load("jax")
    from flax import nnx

    path, values = written(tmp_path, "net.orbax", flatten="chw")
    network = backend.build(EVERYTHING)
    with orbax.StandardCheckpointer() as checkpointer:
        state = nnx.state(network, nnx.Any(nnx.Param, nnx.BatchStat))
        nnx.replace_by_pure_dict(state, checkpointer.restore(path))
        nnx.update(network, state)
        assert_same(backend.to_canonical(network), values)
        checkpointer.save(tmp_path / "states", state)
    with orbax.CheckpointManager(tmp_path / "steps") as manager:
        manager.save(7, args=orbax.args.StandardSave(nnx.to_pure_dict(state)))
    for folder in (tmp_path / "states", tmp_path / "steps" / "7"):  # of any name
        assert_same(weight_files.read(folder, EVERYTHING, flatten="chw").parameters, values)
    assert f"name one of its steps, {tmp_path / 'steps' / '7'}" in refused(tmp_path / "steps", EVERYTHING)


@needs_orbax
def test_orbax_keeps_the_sign_of_zeros_and_widens_bfloat16(tmp_path: Path) -> None:
    import ml_dtypes
    import orbax.checkpoint as orbax

    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", {"z": np.full(3, -0.0), "b": np.array([1.5, -2.0], ml_dtypes.bfloat16)})
    found = ending_of(tmp_path / "x").read(tmp_path / "x")
    assert np.signbit(found["z"]).all()
    assert (found["b"].dtype, found["b"].tolist()) == (np.float32, [1.5, -2.0])


@needs["jax"]
def test_nnx_takes_its_paths_when_it_flattens_channels_first(tmp_path: Path) -> None:
    backend = registry.load("jax")
    from flax import nnx

    path, values = written(tmp_path, "net.npz", flatten="chw")
    network = backend.build(EVERYTHING)
    own = network.variables(nnx.Param | nnx.BatchStat)
    with np.load(path) as arrays:
        assert {"/".join(key) for key in own} == set(arrays.files)
        for key, variable in own.items():
            assert convert.same_bits(arrays["/".join(key)].reshape(variable.shape), arrays["/".join(key)])
            variable[...] = arrays["/".join(key)]
    assert_same(backend.to_canonical(network), values)


@needs["jax"]
def test_a_network_of_flax_itself_flattens_height_width_channels(tmp_path: Path) -> None:
    """Nothing of triptych in the network: its maps are channels last, and so is what it flattens."""
    import jax.numpy as jnp
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.relu(nn.Conv(6, (3, 3), padding=1, name="conv")(x))
            x = nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
            x = nn.BatchNorm(use_running_average=True, name="norm")(x)
            return nn.Dense(3, name="scores")(x)

    row = (
        *(Conv("conv", 6, (3, 3), padding=(1, 1)), ReLU("relu"), MaxPool("pool", (2, 2), (2, 2)), Flatten("flat")),
        *(BatchNorm("norm"), Dense("scores", 3)),
    )
    architecture = Architecture("net", (3, 14, 14), 3, row)
    values = awkward_networks.parameters(architecture)
    done = convert.from_network(Imported(architecture, values), tmp_path / "net.npz", to="linen")
    assert "'norm' (6x7x7), 'scores' (6x7x7)" in done.remarks[0]
    tree: dict[str, Any] = {}
    with np.load(tmp_path / "net.npz") as arrays:
        for name in arrays.files:
            collection, layer, array = name.split("/")
            tree.setdefault(collection, {}).setdefault(layer, {})[array] = jnp.asarray(arrays[name])
    x = images(architecture)
    found = np.asarray(Net().apply(tree, x.transpose(0, 2, 3, 1)))
    expected = reference.forward(architecture, values, x).logits
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@needs_h5py
def test_keras_numbers_layers_by_class(tmp_path: Path) -> None:
    """Names and shapes as Keras 3.15 was seen to write them; it reads the file in tests/importers/test_keras_itself."""
    path, values = written(tmp_path, "net.weights.h5")
    found = ending_of(path).read(path)
    shapes = {
        "conv2d/vars/0": (3, 3, 3, 6),
        "batch_normalization/vars/0": (6,),  # beta, mean, variance: it has no gamma
        "batch_normalization_1/vars/1": (6,),
        "p_re_lu/vars/0": (1, 1, 6),
        "depthwise_conv2d/vars/0": (3, 3, 6, 1),
        "conv2d_1/vars/0": (1, 3, 6, 4),
        "conv2d_transpose/vars/0": (2, 3, 5, 10),
        "dense/vars/1": (7,),
        "p_re_lu_1/vars/0": (1,),
        "dense_1/vars/0": (7, 5),
    }
    assert {name: found[f"layers/{name}"].shape for name in shapes} == shapes
    assert "layers/batch_normalization/vars/3" not in found
    kernel = found["layers/dense/vars/0"]
    row, column, channel = 2, 3, 4  # of a map of 5 x 7 x 7
    assert np.array_equal(
        kernel[(row * 7 + column) * 5 + channel], values["hidden.weight"][:, (channel * 7 + row) * 7 + column]
    )
    done = convert.from_network(Imported(EVERYTHING, values), path)
    assert "no class for affine: load_weights needs a custom class" in done.remarks[-1]
    twice = Architecture("twice", (4, 6, 6), 3, (Conv("c", 8, (1, 1), groups=4), Flatten("f"), Dense("d", 3)))
    convert.from_network(Imported(twice, drawn(twice)), path)
    kernel = ending_of(path).read(path)["layers/depthwise_conv2d/vars/0"]
    assert kernel[0, 0, 3, 1] == drawn(twice)["c.weight"][7, 0, 0, 0]


@needs_h5py
def test_names_in_a_file_of_keras_can_be_mapped(tmp_path: Path) -> None:
    values = drawn(ROW)
    names = {"b.weight": "layers/conv2d/vars/0", "a.weight": "layers/conv2d_1/vars/0"}  # the other way round
    convert.from_network(Imported(ROW, values), tmp_path / "net.weights.h5", mapping={n: p for p, n in names.items()})
    straight = {"layers/conv2d/vars/0": "b.weight", "layers/conv2d_1/vars/0": "a.weight"}
    assert_same(weight_files.read(tmp_path / "net.weights.h5", ROW, mapping=straight).parameters, values)
    with pytest.raises(TriptychError, match=r"mappings .* net.keras is read by layers"):
        convert.from_file(Path("net.keras"), ROW, tmp_path / "out.pt", mapping=straight)


@pytest.mark.parametrize(
    "ending", [e for e in (".pt", ".params", ".npz", ".msgpack", ".weights.h5", ".orbax") if e not in ABSENT]
)
def test_weights_of_any_format_stand_after_weights(ending: str, tmp_path: Path) -> None:
    from triptych.porting import sources

    path, values = written(tmp_path, f"net{ending}")
    imported = sources.read(str(spec_file(tmp_path, EVERYTHING)), weights=path)
    assert_same(imported.parameters or {}, values)


# --- what does not fit -----------------------------------------------------------------------------------------------


ROW = Architecture("row", (3, 8, 8), 3, (Conv("a", 3, (3, 3)), Conv("b", 3, (3, 3)), Flatten("f"), Dense("d", 3)))


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(TriptychError) as raised:
        weight_files.read(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_left_over_on_either_side_is_an_error_unless_allowed(tmp_path: Path) -> None:
    values = drawn(ROW)
    path = tmp_path / "net.safetensors"
    store.save(path, {name: value for name, value in values.items() if name != "b.bias"} | {"e.bias": np.ones(4)})
    with pytest.raises(TriptychError, match=r"5 arrays match, 1 of the network are not there \(b.bias\), 1 of.*e.bias"):
        weight_files.read(path, ROW)
    done = convert.from_file(path, ROW, tmp_path / "out.pt", allow_unmatched=True)
    assert (done.left_over, done.missing) == (("e.bias",), ("b.bias",))
    assert "5 arrays matched, left over: 1 of the source (e.bias), 1 of the network (b.bias)" in done.summary
    assert "b.bias" not in ending_of(tmp_path / "out.pt").read(tmp_path / "out.pt")


def test_ambiguity_needs_a_mapping(tmp_path: Path) -> None:
    values = drawn(ROW)
    names = {"second": "b.weight", "first": "a.weight", "end": "d.weight", "x": "a.bias", "y": "b.bias", "z": "d.bias"}
    path = tmp_path / "net.safetensors"
    store.save(path, {name: values[canonical] for name, canonical in names.items()})
    words = refused(path, ROW)
    assert "ambiguous" in words
    assert "--mapping" in words
    assert_same(weight_files.read(path, ROW, mapping=names).parameters, values)
    assert "did you mean 'first'" in refused(path, ROW, mapping={"firts": "a.weight"})
    swapped = {"b.bias": "a.bias", "a.bias": "b.bias"}  # the rest by the spec's names
    store.save(path, values | {"a.bias": values["b.bias"], "b.bias": values["a.bias"]})
    assert_same(weight_files.read(path, ROW, mapping=swapped).parameters, values)
    assert "one parameter of the spec to two" in refused(path, ROW, mapping={"a.bias": "d.bias", "b.bias": "d.bias"})
    target = tmp_path / "renamed.pt"
    convert.from_network(Imported(ROW, values), target, mapping=names)
    assert ending_of(target).read(target).keys() == names.keys()


def test_a_mapping_to_edit_is_proposed(tmp_path: Path, call: Callable[..., str]) -> None:
    """What cannot be told is paired with something of its shape; the user puts it right."""
    values = drawn(ROW)
    names = {"1": "b.weight", "2": "a.weight", "3": "d.weight", "4": "b.bias", "5": "a.bias", "6": "d.bias"}
    path, proposed = tmp_path / "net.safetensors", tmp_path / "mapping.json"
    store.save(path, {name: values[canonical] for name, canonical in names.items()})
    assert "convert's --propose-mapping FILE writes one to edit" in refused(path, ROW)
    assert f"{proposed} is one to edit" in refused(path, ROW, propose=proposed)
    known = json.loads(proposed.read_text())
    assert known.keys() == names.keys()
    assert (known["3"], set(known.values())) == ("d.weight", set(values))
    assert {known["1"], known["2"]} == {"a.weight", "b.weight"}
    proposed.write_text(json.dumps(names))
    spec = spec_file(tmp_path, ROW)
    again = tmp_path / "again.json"
    call("convert", path, tmp_path / "out.pt", "--arch", spec, "--mapping", proposed, "--propose-mapping", again)
    assert_same(weight_files.read(tmp_path / "out.pt", ROW).parameters, values)
    assert json.loads(again.read_text()) == names


@needs["torch"]
def test_a_residual_unit_that_registers_its_body_first_is_matched(tmp_path: Path) -> None:
    """As torchvision's: conv1, bn1, conv2, bn2, then downsample, which the spec has before the body."""
    import torch

    body = Block("body", (Conv("conv", 4, (3, 3), padding=(1, 1)), ReLU("relu"), Conv("two", 4, (1, 1))))
    unit = Residual("unit", body, Block("shortcut", (Conv("conv", 4, (1, 1), bias=False),)))
    architecture = Architecture("net", (3, 8, 8), 3, (unit, Flatten("flatten"), Dense("fc", 3)))
    values = drawn(architecture)
    theirs = {"conv1": "unit.body.conv", "conv2": "unit.body.two", "downsample.0": "unit.shortcut.conv", "fc": "fc"}
    names = {f"{a}.{k}": f"{b}.{k}" for a, b in theirs.items() for k in ("weight", "bias") if f"{b}.{k}" in values}
    torch.save({name: torch.from_numpy(values[path]) for name, path in names.items()}, tmp_path / "net.pt")
    assert_same(weight_files.read(tmp_path / "net.pt", architecture).parameters, values)


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    values = drawn(ROW) | {"a.weight": np.ones((3, 3, 3, 2), np.float32)}
    store.save(tmp_path / "net.safetensors", values)
    assert "'a.weight' is (3, 3, 3, 2)" in refused(tmp_path / "net.safetensors", ROW)


def test_a_flattened_map_that_is_cut_has_one_order_only(tmp_path: Path) -> None:
    case = awkward_networks.CASES["slice_flat"]
    parameters = initializers.draw(case, 0)
    with pytest.raises(TriptychError, match=r"--flatten chw"):
        convert.from_network(Imported(case, parameters), tmp_path / "net.npz")
    convert.from_network(Imported(case, parameters), tmp_path / "net.npz", flatten="chw")
    convert.from_network(Imported(case, parameters), tmp_path / "net.params")


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("bombed"),)


def test_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps({"a.weight": Bomb()}, 2), pickle.dumps(Bomb()), b"\x80\x02c", b"(" * 50):
        with zipfile.ZipFile("net.pt", "w") as archive:
            archive.writestr("archive/data.pkl", content)
        refused(Path("net.pt"), ROW)
        assert not Path("bombed").exists()


@pytest.mark.parametrize("ending", [ending.ending for ending in HERE if ending.ending != ".orbax"])
def test_a_damaged_file_is_one_line(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{ending}"
    convert.from_network(Imported(ROW, drawn(ROW)), path, flatten="chw")
    (tmp_path / "manifest.json").unlink(missing_ok=True)
    content = path.read_bytes()
    random = np.random.default_rng(1)
    for length in (0, 1, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, ROW)
    for _ in range(200 if ALL or not ending.endswith(".h5") else 50):  # read in a process
        spoiled = bytearray(content)
        for place in random.integers(0, len(content), 3):
            spoiled[place] = random.integers(0, 256)
        path.write_bytes(spoiled)
        with suppress(TriptychError):  # anything else is a failure
            weight_files.read(path, ROW)


@needs_orbax
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, path = tmp_path / "whole.orbax", tmp_path / "net.orbax"
    convert.from_network(Imported(ROW, drawn(ROW)), whole, flatten="chw")
    with pytest.raises(TriptychError, match="is there already"):
        convert.from_network(Imported(ROW, drawn(ROW)), whole, flatten="chw")
    files = [file.relative_to(whole) for file in whole.rglob("*") if file.is_file()]
    spoiled = 0
    for file in files:
        for content in (b"", (whole / file).read_bytes()[:-9], b"x" * 100):
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(whole, path)
            (path / file).write_bytes(content)
            found: dict[str, np.ndarray] = {}
            with suppress(TriptychError):  # anything else is a failure
                found = weight_files.read(path, ROW, flatten="chw").parameters
            if found:  # a file that the arrays do not need
                assert_same(found, drawn(ROW))
            else:
                spoiled += 1
    assert spoiled > 5
    caplog.clear()
    (whole / "_METADATA").write_bytes(b"")
    assert "is damaged: Orbax cannot read" in refused(whole, ROW)
    assert not [record for record in caplog.records if record.name == "absl"]  # which would be more lines
    (tmp_path / "empty").mkdir()
    assert "it has no _METADATA" in refused(tmp_path / "empty", ROW)


@needs_orbax
@pytest.mark.parametrize("entry", ["shape", "chunks"])
def test_a_checkpoint_that_says_it_is_huge_is_refused_first(entry: str, tmp_path: Path) -> None:
    import orbax.checkpoint as orbax

    path = tmp_path / "net.orbax"
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(path, {"a": np.ones((4, 4), np.float32)})
    assert ending_of(path).read(path)["a"].shape == (4, 4)
    (place,) = path.rglob(".zarray")
    place.write_text(json.dumps(json.loads(place.read_text()) | {entry: [1 << 20, 1 << 10]}))
    assert "larger ones, than a folder of its size" in refused(path, ROW)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_converts_there_and_back(tmp_path: Path, call: Callable[..., str]) -> None:
    values = drawn(ROW)
    store.save(tmp_path / "net.safetensors", values)
    spec = spec_file(tmp_path, ROW)
    said = call("convert", spec, tmp_path / "net.params", "--weights", tmp_path / "net.safetensors")
    assert "6 arrays matched, left over: 0 of the source, 0 of the network; read back bit for bit (gluon)" in said
    call("convert", tmp_path / "net.params", tmp_path / "net.pt", "--arch", spec)
    call("convert", tmp_path / "net.pt", tmp_path / "back.safetensors", "--arch", spec)
    assert_same(store.load(tmp_path / "back.safetensors"), values)


def test_a_run_is_written_in_the_names_of_the_symbol_that_it_began_from(
    drawn_run: Callable[..., Path], tmp_path: Path, call: Callable[..., str]
) -> None:
    run = drawn_run("run", Recipe("test", "", "lenet"))
    call("convert", run, tmp_path / "one.pt", "--bits-only")
    call("convert", run, tmp_path / "other.pt", "--arch", "lenet", "--bits-only")
    one, other = (torch_file.read(tmp_path / f"{name}.pt") for name in ("one", "other"))
    assert_same(one, other)
    with pytest.raises(TriptychError, match=r"run: .* fit 'vgg11': .* is missing; .* leave out --arch"):
        convert.from_file(run, zoo.build("vgg11"), tmp_path / "no.pt")
    with pytest.raises(TriptychError, match=r"are for files of weights; .*run is a run"):
        convert.from_file(run, zoo.build("lenet"), tmp_path / "no.pt", mapping={"a": "b"})


@pytest.mark.parametrize("ending", [".pt", ".params", ".npz"])
def test_outputs_are_compared_with_the_network_of_the_target(ending: str, tmp_path: Path) -> None:
    backend = NAMINGS[ending_of(tmp_path / f"x{ending}").namings[0]].backend
    if backend not in INSTALLED:
        pytest.skip(f"{backend} is not installed")
    values = awkward_networks.parameters(ROW)
    done = convert.from_network(Imported(ROW, values), tmp_path / f"net{ending}", compare=True)
    assert (done.outputs.backend, done.outputs.explained) == (backend, True)
    assert (done.outputs.share or 0) < 1e-12
    assert f"{backend}'s outputs differ by" in done.summary
    wrong = values | {"a.weight": values["a.weight"][:, ::-1]}  # the channels the other way round
    parted = loaded_outputs.compare(ROW, values, wrong, backend)
    assert not parted.explained
    assert "more than rounding" in parted.summary
    off = values | {"d.bias": values["d.bias"].astype(np.float64) * (1 + 1e-9)}
    assert not loaded_outputs.compare(ROW, values, off, backend).explained
    empty = values | {"d.bias": values["d.bias"] * np.nan}
    assert not loaded_outputs.compare(ROW, values, empty, backend).explained


def test_what_is_not_compared_says_so(tmp_path: Path) -> None:
    values = drawn(ROW)  # with a NaN
    kept = loaded_outputs.compare(ROW, values, values, "")
    assert kept.summary == "outputs not compared: no framework of triptych's reads this format"
    if INSTALLED:
        assert "not finite" in loaded_outputs.compare(ROW, values, values, INSTALLED[0]).summary


def test_outputs_that_part_are_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triptych.__main__ import main

    parted = loaded_outputs.OutputDifference("torch", 0.1, False)
    monkeypatch.setattr(loaded_outputs, "compare", lambda *_: parted)
    store.save(tmp_path / "net.safetensors", drawn(ROW))
    line = ["convert", str(tmp_path / "net.safetensors"), str(tmp_path / "net.pt"), "--arch"]
    with pytest.raises(SystemExit) as stopped:
        main([*line, str(spec_file(tmp_path, ROW))])
    assert stopped.value.code == 1
    with pytest.raises(SystemExit) as stopped:
        main([*line, str(spec_file(tmp_path, ROW)), "--bits-only"])
    assert stopped.value.code == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("vgg11 out.pt", "'vgg11' is a name of the zoo, without weights"),
        ("net.safetensors out.pt", "holds weights only; say which network with --arch"),
        ("net.safetensors out.txt --arch lenet", "'out.txt' is no file of weights that is known"),
        ("net.safetensors out.pt --arch lenet --to caffe", "--to 'caffe' is not known; known: canonical"),
        ("net.safetensors out.pt --arch lenet --to flax", "--to flax: a file .pt is torch"),
        ("net.safetensors out.npz --arch lenet --flatten cwh", "unknown --flatten 'cwh'; did you mean 'chw'"),
        ("nothing.npz out.pt --arch lenet", "cannot read nothing.npz: No such file"),
        ("net.safetensors out.pt --arch lenet", "does not fit 'lenet'"),
        ("net.safetensors out.pt --arch lenet --mapping no.json", "cannot read the mapping no.json"),
    ],
)
def test_bad_input_is_one_line(line: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from triptych.__main__ import main

    store.save(Path("net.safetensors"), drawn(ROW))
    with pytest.raises(SystemExit) as stopped:
        main(["convert", *line.split()])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert not Path("out.pt").exists()
