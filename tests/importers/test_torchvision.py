"""torchvision's classification networks become networks of the spec, at small sizes of images where they take them."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from marks import later
from triptych.importers.steps import Request
from triptych.importers.torch_export import load
from triptych.spec.layers import Graph, walk

if any(importlib.util.find_spec(package) is None for package in ("torch", "torchvision")):
    pytest.skip("torch or torchvision is not installed; a job of `make test-all` has both", allow_module_level=True)

import torch

from torch_checks import check_same, operators_of_torchvision, perturbed

# Height and width, and the modes. EfficientNet drops whole blocks at random in training, which the spec has not. The
# last of Inception's 94 batch norms see 8 values of two such images, and rounding grows to 2e-12 of its gradient.
BOTH, EVALUATION = (False, True), (False,)
NETWORKS: dict[str, tuple[int, tuple[bool, ...]]] = {
    "googlenet": (64, BOTH),
    "inception_v3": (107, EVALUATION),
    "resnet18": (64, BOTH),
    "resnet34": (64, BOTH),
    "resnet50": (64, BOTH),
    "resnet101": (64, EVALUATION),
    "resnext50_32x4d": (64, BOTH),
    "wide_resnet50_2": (64, EVALUATION),
    "densenet121": (64, BOTH),
    "densenet161": (64, EVALUATION),
    "squeezenet1_0": (64, BOTH),
    "squeezenet1_1": (64, BOTH),
    "mobilenet_v2": (64, BOTH),
    "mobilenet_v3_small": (64, BOTH),
    "mobilenet_v3_large": (64, BOTH),
    "mnasnet0_5": (64, BOTH),
    "mnasnet1_0": (64, BOTH),
    "shufflenet_v2_x0_5": (64, BOTH),
    "shufflenet_v2_x1_0": (64, BOTH),
    "regnet_x_400mf": (64, BOTH),
    "regnet_y_400mf": (64, BOTH),
    "efficientnet_b0": (64, EVALUATION),
    "efficientnet_v2_s": (64, EVALUATION),
    "alexnet": (224, BOTH),
    "vgg11": (224, EVALUATION),
    "vgg13_bn": (224, EVALUATION),
    "vgg16": (224, EVALUATION),
}
WITHOUT_HEADS = {"aux_logits": False, "init_weights": True}


def made(name: str, **options: Any) -> Any:
    try:
        from torchvision import models
    except RuntimeError:  # a torch of another build has none of its compiled operators
        made.library = operators_of_torchvision()  # type: ignore[attr-defined]
        from torchvision import models
    torch.manual_seed(0)
    return perturbed(getattr(models, name)(weights=None, **options))


@later
@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision(name: str) -> None:
    size, modes = NETWORKS[name]
    module = made(name, **(WITHOUT_HEADS if name in ("googlenet", "inception_v3") else {}))
    shape = (3, size, size)
    imported = load(module, Request(input=shape))
    for train in modes:
        check_same(module, imported, shape, train=train, images=2)
    trained = sum(array.size for path, array in (imported.parameters or {}).items() if "running" not in path)
    assert trained == sum(parameter.numel() for parameter in module.parameters())
    assert not any(isinstance(layer, Graph) for _, layer in walk(imported.architecture.layers))


@later
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_out_and_said(name: str) -> None:
    shape = (3, 299, 299)
    module = made(name, init_weights=True)
    imported = load(module, Request(input=shape))
    assert "in training the module has" in imported.remarks[0]
    for part in ("AuxLogits", "aux1", "aux2"):
        setattr(module, part, None)
    check_same(module, imported, shape, train=False, images=1)
