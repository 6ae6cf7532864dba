"""Settings and rows that several training studies share."""

from dataclasses import replace
from typing import Any

from triptych.optim.optimizers import SGD, Adam
from triptych.studies.runner import Run
from triptych.training.recipe import Recipe

# Two epochs of the mini set are 320 steps: with the settings below every network learns in them, on every backend.
MINI: dict[str, Any] = {"data": "fashion-mnist-mini", "batch_size": 32, "dense_width": None, "epochs": 2}
SMALL_VGG: dict[str, Any] = {"size": (32, 32), "width_ratio": 8}
SMALL_ALEXNET: dict[str, Any] = {"size": (65, 65), "width_ratio": 8}  # the smallest that its poolings take
# From Xavier's start the deeper VGG do not begin to learn within a few epochs of SGD without momentum.
LIVELY: dict[str, Any] = {"optimizer": SGD(momentum=0.9), "initializer": "kaiming_uniform"}
LIVELY_RECIPE = Recipe("study", data="fashion-mnist", epochs=5, learning_rate=0.01, **LIVELY)

# Sigmoids take most of a short training to begin with SGD, and ReLU does not bear the rate that they want.
QUICK_LENET: dict[str, Any] = {"optimizer": Adam(), "learning_rate": 0.003}

# The three families' first networks, each as Dive into Deep Learning trains it; for the recipe d2l-lenet.
LENET = Run("LeNet", quick=QUICK_LENET)
ALEXNET = Run(
    "AlexNet",
    {"architecture": "alexnet", "size": (224, 224), "batch_size": 128, "learning_rate": 0.01},
    SMALL_ALEXNET | LIVELY,
)
VGG11 = Run(
    "VGG-11",
    {"architecture": "vgg11", "size": (224, 224), "batch_size": 128, "learning_rate": 0.05}
    | {"width_ratio": 4, "dense_width": 4096},
    SMALL_VGG | LIVELY | {"learning_rate": 0.02},
)

# The families' first networks, to be looked at when they are trained: with --quick, too, they have maps to look at.
NETWORKS = "three-networks"
LOOKED_AT = (
    LENET,
    replace(ALEXNET, quick={**ALEXNET.quick, "size": (97, 97)}),
    replace(VGG11, quick={**VGG11.quick, "size": (64, 64)}),
)
