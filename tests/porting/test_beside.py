"""What somebody trains a network with, beside it: optimiser and schedule, loss, and the images' preparation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import triptych
from triptych.__main__ import main
from triptych.backend.registry import installed
from triptych.conformance.levels import PARAMETERS
from triptych.porting.beside import Beside
from triptych.porting.discover import find
from triptych.porting.own_network import locate_port
from triptych.spec.layers import Architecture, BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, Initializer, ReLU
from triptych.utils.errors import TriptychError

NORM = BatchNorm("norm", momentum=0.1, unbiased=False)
LAYERS = (Conv("conv", 4, (3, 3), bias=False), NORM, ReLU("relu"), GlobalAvgPool("pool"), Flatten("flatten"))
NET = Architecture("net", (3, 8, 10), 5, (*LAYERS, Dense("fc", 5)), Initializer("kaiming_normal"))
PLAN = "sgd:learning_rate=0.1,momentum=0.9,weight_decay=5e-4"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
IMAGENET = "mean=0.485,0.456,0.406 std=0.229,0.224,0.225"


def judge(backend: str, **given: Any) -> Any:
    """The difference of what is given from what it should be."""
    if backend not in installed():
        pytest.skip(f"{backend} is not installed")
    names = {key: f"beside_{backend}:{text}" for key, text in given.items() if not key.startswith("right")}
    net = find(f"beside_{backend}:net")
    return locate_port(net, NET, beside=Beside(**given | names), rows=(PARAMETERS,)).difference


@pytest.mark.parametrize(
    ("backend", "name", "plan"),
    [
        *(("torch", "right", PLAN), ("torch", "of_parameters", PLAN), ("torch", "stepped", f"{PLAN} step:every=3")),
        *(("torch", "adam", "adam:learning_rate=1e-3"), ("mxnet", "right", PLAN), ("mxnet", "of_parameters", PLAN)),
        *(("mxnet", "alone", PLAN), ("jax", "right", PLAN)),
        *(("jax", "of_network", PLAN), ("jax", "adam", "adam:learning_rate=0.001")),
    ],
)
def test_a_right_optimiser_agrees(backend: str, name: str, plan: str) -> None:
    assert judge(backend, optimizer=name, right_optimizer=plan) is None


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
def test_a_change_after_the_last_step_is_not_told_as_agreed() -> None:
    beside = Beside(optimizer="beside_torch:right", right_optimizer=f"{PLAN} step:every=500")
    located = locate_port(find("beside_torch:net"), NET, beside=beside, rows=(PARAMETERS,))
    assert located.difference is None
    assert "the schedule changes for 502 steps, of which the first 120 are compared" in located.notes


@pytest.mark.parametrize(
    ("backend", "name", "plan", "cause"),
    [
        ("torch", "rate", PLAN, "the learning rate is 0.01, not 0.1"),
        ("torch", "dampened", PLAN, "the gradient is dampened by 1 - momentum"),
        ("torch", "half", PLAN, "the gradient is dampened: multiplied by 0.5 on its way into the velocity"),
        ("torch", "nesterov", PLAN, "Nesterov momentum"),
        ("torch", "decay", PLAN, "the weight decay is 0.0001, not 0.0005"),
        ("torch", "weights_only", PLAN, "weight decay does not reach biases, gamma and beta"),
        ("torch", "right", f"{PLAN},decayed=weights", "weight decay reaches biases, gamma and beta too"),
        ("torch", "forgotten", PLAN, "it does not move: the optimiser was not given it"),
        (
            "torch",
            "adam",
            PLAN.replace(",weight_decay=5e-4", ""),
            "those of adam, not of sgd, and the learning rate is 0.001",
        ),
        ("torch", "decoupled", "adam:learning_rate=1e-3", "those of adamw with a weight decay of 0.01, not of adam"),
        ("torch", "late", f"{PLAN} step:every=3", "the schedule is late by a step"),
        ("torch", "right", f"{PLAN} step:every=3", "the learning rate does not change"),
        ("mxnet", "decay", PLAN, "the weight decay is 0.0001, not 0.0005"),
        ("mxnet", "rescaled", PLAN, "the gradient is divided by 64"),
        ("mxnet", "stepped", f"{PLAN} step:every=3", "the learning rate is inside the velocity"),
        ("mxnet", "adam", "adam:learning_rate=1e-3", "eps is added before the bias correction (MXNet's form)"),
        ("jax", "behind", PLAN, "weight decay is added behind the step"),
        ("jax", "masked", PLAN, "weight decay does not reach biases, gamma and beta"),
        ("jax", "inside", "adam:learning_rate=1e-3", "eps stands inside the root"),
    ],
)
def test_a_wrong_optimiser_is_explained(backend: str, name: str, plan: str, cause: str) -> None:
    difference = judge(backend, optimizer=name, right_optimizer=plan)
    assert difference.level == "update"
    assert cause in difference.cause


@pytest.mark.parametrize(
    ("backend", "name", "cause"),
    [
        *(("torch", "criterion", None), ("mxnet", "criterion", None), ("jax", "criterion", None)),
        *(("torch", "summed", "summed over the batch"), ("mxnet", "summed", "summed over the batch")),
        *(("torch", "smoothed", "labels are smoothed by 0.1"), ("torch", "overflowing", "it overflows")),
        ("jax", "overflowing", "it overflows where logits are large"),
    ],
)
def test_a_loss_is_compared(backend: str, name: str, cause: str | None) -> None:
    difference = judge(backend, loss=name)
    assert (difference is None) if cause is None else (cause in difference.cause)


def of(
    size: tuple[int, int], values: Callable[[Any], Any], kind: Any = Image.Resampling.BILINEAR
) -> Callable[..., Any]:
    """A preparation of one image as Pillow has it: resized, and its values changed."""

    def prepare(image: Any) -> Any:
        planes = [Image.fromarray(plane).resize(size, kind) for plane in np.float32(image).transpose(2, 0, 1)]
        return values(np.stack([np.asarray(plane) for plane in planes], axis=-1)).transpose(2, 0, 1)

    return prepare


def normal(x: Any) -> Any:
    return (x / 255 - MEAN) / STD


@pytest.mark.parametrize(
    ("prepare", "cause"),
    [
        (of((10, 8), normal), None),
        (lambda images: normal(images).transpose(0, 3, 1, 2), None),  # leaves the size as it is
        (lambda images: normal(images), "the images come as NHWC"),
        (of((10, 8), lambda x: (x - MEAN) / STD), "the pixels are 0 to 255, not 0 to 1"),
        (of((10, 8), lambda x: normal(x[..., ::-1])), "the channels are in reverse order (BGR for RGB)"),
        (of((10, 8), lambda x: (normal(x) - MEAN) / STD), "the images are normalised twice"),
        (of((10, 8), lambda x: x / 255 / STD), "the mean is not subtracted"),
        (of((10, 8), lambda x: x / 255), "the images are not normalised"),
        (of((10, 8), lambda x: (x / 255 - 0.1) / 0.3), "mean=0.1,0.1,0.1 std=0.3,0.3,0.3"),
        (of((10, 8), normal, Image.Resampling.BICUBIC), "it is resized by another filter: bicubic"),
        (of((8, 10), normal), "height and width are exchanged"),
    ],
)
def test_a_preparation_is_compared(prepare: Callable[..., Any], cause: str | None) -> None:
    torch = pytest.importorskip("torch")
    assert torch
    given = Beside(preprocess=prepare, right_preprocess=IMAGENET)
    difference = locate_port(find("beside_torch:net"), NET, beside=given, rows=(PARAMETERS,)).difference
    assert (difference is None) if cause is None else (cause in difference.cause)
    assert difference is None or (difference.layer, difference.level) == ("input", "data")


def test_another_networks_optimiser_and_preparation_may_be_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("torch", "mxnet"):
        if name not in installed():
            pytest.skip(f"{name} is not installed")
    sides = ["locate", "--left", "beside_torch:net", "--right", "beside_mxnet:net", "--input", "3x8x10"]
    sides += ["--right-optimizer", "beside_mxnet:right"]
    for name, status, said in (("right", 0, "update agree"), ("decay", 1, "level update")):
        with pytest.raises(SystemExit) as ended:
            main([*sides, "--left-optimizer", f"beside_torch:{name}"])
        assert ended.value.code == status
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": "m:o"}, "--left-optimizer is compared with --right-optimizer"),
        ({"right_preprocess": "d2l-vgg"}, "--right-preprocess is what --left-preprocess is compared with"),
    ],
)
def test_one_side_alone_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(TriptychError, match=said):
        Beside(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": print, "right_optimizer": "sgd:lr=0.1"}, "unknown setting of optimizer 'sgd' 'lr'"),
        ({"optimizer": print, "right_optimizer": "sgd:momentum=0.9"}, "does not say its learning_rate"),
        ({"optimizer": print, "right_optimizer": " "}, "' ' is no optimiser: write for example"),
        ({"optimizer": print, "right_optimizer": "sgd"}, "is no optimiser: write for example"),
        ({"optimizer": print, "right_optimizer": print}, "has no network at the right"),
        ({"optimizer": print, "right_optimizer": f"{PLAN} plateau"}, "follows the loss"),
        ({"preprocess": print, "right_preprocess": "maen=1"}, "did you mean 'mean'"),
        ({"preprocess": print, "right_preprocess": "mean"}, "is no preparation of images"),
        ({"preprocess": 3, "right_preprocess": IMAGENET}, "a int is no function of images"),
    ],
)
def test_what_says_nothing_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TriptychError, match=said):
        Beside(**given).rows(NET)


def test_a_network_without_classes_has_no_loss() -> None:
    with pytest.raises(TriptychError, match="has no classes"):
        Beside(loss=print).rows(replace(NET, classes=0))


def test_from_python() -> None:
    pytest.importorskip("torch")
    beside = {"optimizer": find_named("decay"), "right_optimizer": PLAN}
    difference = triptych.locate(find("beside_torch:net"), NET, beside=beside).difference
    assert difference is not None


def find_named(name: str) -> Any:
    from triptych.porting.discover import find_beside

    return find_beside(f"beside_torch:{name}")
