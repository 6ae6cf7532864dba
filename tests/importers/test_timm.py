"""timm's convolutional networks become networks of the spec."""

from __future__ import annotations

import importlib.util
from contextlib import suppress

import pytest

from marks import later
from triptych.importers.steps import Request
from triptych.importers.torch_export import load
from triptych.spec.layers import Graph, walk

if any(importlib.util.find_spec(package) is None for package in ("torch", "torchvision", "timm")):
    pytest.skip(
        "torch, torchvision or timm is not installed; a job of `make test-all` has all", allow_module_level=True
    )

import torch

from torch_checks import check_same, operators_of_torchvision, perturbed

# Height and width, and the modes. In training rounding grows to 2e-12 through the 149 batch norms of Inception v4,
# layer by layer, on 171 pixels as on 107.
BOTH, EVALUATION = (False, True), (False,)
NETWORKS: dict[str, tuple[int, tuple[bool, ...]]] = {
    "inception_v4": (107, EVALUATION),
    "inception_resnet_v2": (107, BOTH),
    "inception_v3": (107, EVALUATION),
    "legacy_xception": (96, BOTH),
    "xception41": (96, BOTH),
    "resnet18": (64, BOTH),
    "resnetv2_50": (64, BOTH),
    "res2net50_26w_4s": (64, BOTH),
    "seresnet18": (64, BOTH),
    "dpn68": (64, BOTH),
    "densenet121": (64, BOTH),
    "mobilenetv2_100": (64, BOTH),
    "vgg11": (224, EVALUATION),
}

GRAPHS = ("res2net50_26w_4s", "dpn68")  # a part of a map goes into two places of its own unit


@later
@pytest.mark.parametrize("name", NETWORKS)
def test_timm(name: str) -> None:
    with suppress(RuntimeError):  # a torch of the same build has them
        test_timm.library = operators_of_torchvision()  # type: ignore[attr-defined]
    import timm

    size, modes = NETWORKS[name]
    torch.manual_seed(0)
    module = perturbed(timm.create_model(name, num_classes=10))
    imported = load(module, Request(input=(3, size, size)))
    for train in modes:
        check_same(module, imported, (3, size, size), train=train, images=2)
    assert any(isinstance(layer, Graph) for _, layer in walk(imported.architecture.layers)) == (name in GRAPHS)
