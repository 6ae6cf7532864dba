"""The verbs of `import triptych`: lazy, and one line for what does not fit. docs/python.md shows what they do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import triptych
from helpers import python
from marks import every_backend, needs_backend
from triptych import zoo
from triptych.backend import registry
from triptych.spec.layers import Initializer
from triptych.spec.records import encode
from triptych.training.recipe import Recipe, vary
from triptych.utils.errors import TriptychError

LENET = triptych.load("lenet")


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, triptych; print([name for name in sys.modules if name.startswith(('triptych.', 'numpy'))])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_its_verbs_are_documented_and_anything_else_is_no_attribute() -> None:
    verbs = [name for name in triptych.__all__ if not name.startswith("_")]
    assert verbs == sorted(("build", "conform", "convert", "emit", "load", "locate", "port", "train"))
    assert all(name in (triptych.__doc__ or "") and getattr(triptych, name).__doc__ for name in verbs)
    with pytest.raises(AttributeError, match="no attribute 'conforms'"):
        triptych.conforms  # noqa: B018


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("vgg12", {}, "did you mean"),
        (LENET, {"classes": 3}, "options are for a name of the zoo"),
        ("empty.json", {}, "empty.json"),
        ("other.json", {}, "missing or unknown in Architecture"),
        ("deep.json", {}, "deep.json"),
    ],
)
def test_what_is_no_network_is_one_line(
    arch: object, options: dict[str, int], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.json").write_text("")
    Path("other.json").write_text(json.dumps(encode(LENET) | {"more": 1}))
    Path("deep.json").write_text("[" * 100_000)
    with pytest.raises(TriptychError, match=message) as refused:
        triptych.load(arch, **options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


@every_backend
def test_a_network_starts_as_its_spec_says(name: str) -> None:
    """Another initializer in the spec is another start, and another seed too."""
    backend = registry.load(name)
    ones = replace(LENET, initializer=Initializer("constant", 1.0))
    assert np.all(backend.to_canonical(triptych.build(ones, backend=name))["conv1.weight"] == 1)
    first, second = (backend.to_canonical(triptych.build(LENET, backend=name, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first["conv1.weight"], second["conv1.weight"])


def test_a_network_of_ones_own_needs_an_architecture() -> None:
    with pytest.raises(TriptychError, match="give it, or its name"):
        triptych.locate(object())


@needs_backend
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "nonsense"}, "has no device 'nonsense' here"),
        ({"out": "used"}, "--out used is already used"),
        ({"init_from": "nothing"}, "cannot read the parameters nothing"),
    ],
)
def test_what_training_needs_is_checked_before_the_data(options: dict[str, str], words: str, here: Path) -> None:
    (here / "used").mkdir()
    (here / "used" / "notes").write_text("mine")
    with pytest.raises(TriptychError, match=words):
        triptych.train("d2l-lenet", backend=registry.installed()[0], data="nothing", **options)


def test_a_recipe_is_trained_in_a_new_folder_only(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    if not registry.installed():
        pytest.skip("no framework is installed")
    with pytest.raises(TriptychError):
        triptych.train("d2l-lenet", backend=registry.installed()[0], data="synthetic", epochs=1, out=tmp_path)
    assert (tmp_path / "mine").read_text() == "kept"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: triptych.locate("torch", "torch"), "name two"),
        (lambda: triptych.locate("reference"), "name two"),
        (lambda: triptych.locate("torch", precision="bf16"), "unknown precision 'bf16'"),
        (lambda: triptych.locate("torch", mode="foo"), "unknown mode 'foo'"),
        (lambda: triptych.locate("torch", updates=("foo",)), "unknown update 'foo'"),
        (lambda: triptych.conform("lenet", backends="torhc"), "unknown backend 'torhc'"),
        (lambda: triptych.conform("lenet", backends=[], precisions=("int8",)), "unknown precision 'int8'"),
        (lambda: triptych.train("d2l-lenet", bogus=1), "unknown field of a recipe 'bogus'"),
    ],
)
def test_wrong_arguments_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TriptychError, match=message):
        call()


def test_options_beside_a_network_are_options_of_it() -> None:
    varied = vary(Recipe("x"), network=zoo.Options(classes=5), width_ratio=16.0)
    assert varied.network == zoo.Options(classes=5, width_ratio=16.0)


def test_a_name_of_the_zoo_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lenet").mkdir()
    assert triptych.load("lenet") == LENET
    with pytest.raises(TriptychError, match="lenet"):
        triptych.load("./lenet")


@every_backend
def test_looking_leaves_the_process_as_it_was(name: str) -> None:
    """A network that is built for a check sets what it needs: no TF32, and in JAX float64 for the whole process."""
    program = f"""
import triptych
from triptych.backend import registry
framework = registry.load({name!r})
before = framework.precision_flags()
triptych.locate({name!r}, arch="lenet", updates=("momentum",))
assert framework.precision_flags() == before
if {name!r} == "jax":
    import jax.numpy as jnp
    assert jnp.ones(2).dtype == "float32"
"""
    python(program)


def test_weights_are_converted_there_and_back(tmp_path: Path) -> None:
    from triptych.weights import initializers, store

    parameters = initializers.draw(LENET, 0)
    store.save(tmp_path / "lenet.safetensors", parameters)
    triptych.convert(tmp_path / "lenet.safetensors", tmp_path / "lenet.npz", arch="lenet")
    triptych.convert(tmp_path / "lenet.npz", tmp_path / "back.safetensors", arch=LENET)
    back = store.load(tmp_path / "back.safetensors")
    assert all(np.array_equal(back[path], array) for path, array in parameters.items())
    with pytest.raises(TriptychError, match="'lenet' has no weights"):
        triptych.convert("lenet", tmp_path / "lenet.pt")
