"""The studies that train, as data: which runs, which axis, which published figures."""

from dataclasses import replace
from typing import Any

from triptych.data.batches import Augmentation
from triptych.optim.optimizers import Adam
from triptych.optim.schedules import OneCycle
from triptych.studies import dense_scores, fine_tuning, map_contents, traps
from triptych.studies.runner import PublishedFigures, Run, Trained
from triptych.studies.settings import (
    ALEXNET,
    LENET,
    LIVELY,
    LIVELY_RECIPE,
    MINI,
    QUICK_LENET,
    SMALL_ALEXNET,
    SMALL_VGG,
    VGG11,
)
from triptych.training.recipes import RECIPES
from triptych.zoo import Options

VGG11_EPOCHS = Trained(
    name="vgg11-epochs",
    question="How does the textbook's VGG-11 learn, epoch by epoch?",
    source="Dive into Deep Learning, section 8.2, as run with MXNet (Fashion-MNIST at 224x224)",
    base=RECIPES["d2l-vgg"],
    runs=(
        Run(
            "VGG-11",
            published=PublishedFigures(
                "the textbook, run with MXNet",
                "channels / 4, dense 4096, 224x224, batch 128, SGD 0.05, 5 epochs",
                seconds=37.0,  # "36 to 38"
                loss=(0.9464, 0.4087, 0.3344, 0.2917, 0.2609),
                train=(0.658, 0.850, 0.878, 0.893, 0.904),
                test=(0.857, 0.888, 0.900, 0.903, 0.909),
            ),
        ),
    ),
    quick=MINI | SMALL_VGG | LIVELY | {"learning_rate": 0.02},
)

SMALLER = "channels / 8, dense 512, Adam 0.001, {}, batch and epochs not stated"
RESOLUTION = Trained(
    name="resolution",
    question="What do images of 96x96 save against 224x224, and what do they cost in accuracy?",
    source="An exercise of Dive into Deep Learning, section 8.2, as a text answers it that trains VGG-11 with channels "
    "/ 8, dense layers of 512 and Adam at 0.001",
    base=RECIPES["adam-vgg"],
    runs=(
        Run(
            "larger images",
            {"size": (224, 224)},
            {"size": (64, 64)},
            PublishedFigures(traps.EXERCISES, SMALLER.format("224x224"), 96.7, test=(0.911,)),
        ),
        Run(
            "smaller images",
            {"size": (96, 96)},
            {"size": (32, 32)},
            PublishedFigures(traps.EXERCISES, SMALLER.format("96x96"), 25.5, test=(0.912,)),
        ),
    ),
    quick=MINI | LIVELY | {"width_ratio": 8, "learning_rate": 0.02},
    notes=("224x224 against 96x96; with --quick 64x64 against 32x32.",),
    traps=traps.of(traps.EXERCISES),
)

SMALLEST: dict[str, Any] = {"architecture": "alexnet_small"}
SIMPLIFIED = "answers to the textbook's exercises on AlexNet"
ALEXNET_SIMPLIFY = Trained(
    name="alexnet-simplify",
    question="What can be dropped from AlexNet without falling under 0.85 on Fashion-MNIST?",
    source="An exercise of Dive into Deep Learning, section 8.1, answered with Adam at rates of 0.001 to 0.004",
    base=replace(RECIPES["adam-alexnet-0.001"], initializer=""),
    runs=(
        Run(
            "AlexNet, 3 epochs",
            published=PublishedFigures(SIMPLIFIED, "3 epochs, Adam, a rate of 0.001 to 0.004", 265.6, test=(0.863,)),
        ),
        Run(
            "no 4096-4096",
            {"architecture": "alexnet_no_fc2"},
            published=PublishedFigures(SIMPLIFIED, "Adam, a rate of 0.001 to 0.004", 213.5, test=(0.887,)),
        ),
        Run(
            "also no 384-384",
            SMALLEST,
            published=PublishedFigures(SIMPLIFIED, "Adam, a rate of 0.001 to 0.004", 190.9, test=(0.886,)),
        ),
        Run(
            "also rate 0.004",
            SMALLEST | {"learning_rate": 0.004},
            published=PublishedFigures(SIMPLIFIED, "Adam 0.004", 80.0, test=(0.890,)),
        ),
        Run(
            "also rate 0.002",
            SMALLEST | {"learning_rate": 0.002},
            published=PublishedFigures(SIMPLIFIED, "Adam 0.002", 80.3, test=(0.908,)),
        ),
    ),
    quick=MINI | SMALL_ALEXNET | {"epochs": 3},
    floor=0.85,
    notes=(
        "The text names rates of 0.001 to 0.004, and not which of them its first three rows have; here it is 0.001.",
        "A learning rate costs no time: the published seconds of the last two rows are of another machine or setting "
        "than those above, and their ratio to the first row says nothing about AlexNet.",
    ),
)

DEPTH = Trained(
    name="depth",
    question="How deep does a VGG have to be, in blocks and in convolutions per block, and where does it stop paying?",
    source="Simonyan and Zisserman 2014, table 3 (on ImageNet): accuracy rises with depth, then flattens",
    base=replace(LIVELY_RECIPE, network=Options(input=(0, 32, 32), width_ratio=4, dense_width=512)),
    runs=(
        *(
            Run(f"{number} of 5 blocks", {"architecture": f"vgg11_{number}block{'s' * (number > 1)}"}, series="blocks")
            for number in range(1, 5)
        ),
        Run("VGG-11, all 5 blocks", {"architecture": "vgg11"}, series="blocks"),
        *(
            Run(f"VGG-{number}", {"architecture": f"vgg{number}"}, series="convolutions per block")
            for number in (13, 16, 19)
        ),
    ),
    quick=MINI | {"width_ratio": 8, "dense_width": 64},
    notes=("At 32x32, the smallest image that five poolings leave something of, so that every depth can be run.",),
    depth=True,
)

# The steps train with the textbook's LeNet recipe; ReLU does not bear its rate.
RELU_RATE: dict[str, Any] = {"learning_rate": 0.1}
WIDE_LENET: dict[str, Any] = {"architecture": "lenet_dropout", "width_ratio": 0.25, **RELU_RATE}
AUGMENTED = Augmentation(crop_padding=2, flip=True)
SHALLOW = Trained(
    name="shallow",
    question="What did AlexNet change in LeNet, step by step, and what did VGG add?",
    source="Dive into Deep Learning, sections 7.6, 8.1 and 8.2: VGG is slower and larger than AlexNet",
    base=RECIPES["d2l-lenet"],
    runs=(
        LENET,
        Run("ReLU for sigmoid", {"architecture": "lenet_relu", **RELU_RATE}, QUICK_LENET),
        Run("also max for average pooling", {"architecture": "lenet_max", **RELU_RATE}, QUICK_LENET),
        Run("also dropout", {"architecture": "lenet_dropout", **RELU_RATE}, QUICK_LENET),
        Run("also 4 times as wide", WIDE_LENET, QUICK_LENET),
        Run("also crops and flips", WIDE_LENET | {"augmentation": AUGMENTED}, QUICK_LENET),
        ALEXNET,
        VGG11,
    ),
    quick=MINI,
    notes=(
        "With --quick LeNet and its steps train with Adam at 0.003, all alike.",
        "LeNet and its steps see 28x28 images, AlexNet and VGG-11 224x224 (with --quick 65x65 and 32x32), each with "
        "the learning rate of its own section; 0.1 for the steps with ReLU, which do not bear LeNet's 0.9.",
        "The widest LeNet is still far from AlexNet's width; AlexNet's other kernels and layers come with it at once.",
    ),
)

INCEPTION = Trained(
    name="inception",
    question="What did each generation of GoogLeNet buy, on the same data?",
    source="Szegedy et al. 2014, Ioffe and Szegedy 2015, Szegedy et al. 2015 and 2016",
    base=replace(LIVELY_RECIPE, architecture="googlenet", network=Options(input=(0, 96, 96))),
    runs=(
        Run("GoogLeNet (v1)", quick={"dropout": 0.1}),
        Run("v2: batch norm, 3x3 twice for 5x5", {"architecture": "inception_v2"}),
        Run("v3: factorised 7x7, wider", {"architecture": "inception_v3"}, {"dropout": 0.1}),
        Run("v4: deeper, one plan", {"architecture": "inception_v4"}, long=True),
        Run("Inception-ResNet v1: residual", {"architecture": "inception_resnet_v1"}),
        Run("Inception-ResNet v2: residual, as large as v4", {"architecture": "inception_resnet_v2"}, long=True),
    ),
    quick=MINI
    | {"size": (75, 75), "width_ratio": 8, "data": "fashion-mnist-mini@train=800,test=500", "batch_size": 16}
    | {"optimizer": Adam(), "learning_rate": 0.002},
    quick_compilation="quick",  # of networks this deep, compiling for speed takes longer than a hundred steps do
    notes=(
        "All at 96x96 (with --quick 75x75, the smallest that v3 takes), where the papers use 224x224 and 299x299: the "
        "operations are fewer, their order stays. GoogLeNet trains with its two auxiliary classifiers.",
        "Top-5 errors on ImageNet, one network and crop: GoogLeNet 10.1 % (Szegedy et al. 2014, table 3), v2 7.8 %, "
        "v3 5.6 %, Inception-ResNet v1 5.5 %, v4 5.0 %, Inception-ResNet v2 4.9 % (Szegedy et al. 2016, table 2).",
        "With --quick a hundred steps of 16 images, with Adam at 0.002, GoogLeNet and v3 with a dropout of 0.1 (with "
        "0.5 v3's loss is still that of chance then), and without the two largest, v4 and Inception-ResNet v2.",
    ),
)

ASCEND_CIFAR10 = Trained(
    name="ascend-cifar10",
    question="How does VGG-11 learn CIFAR-10 by the Ascend text's recipe, one cycle of 150 epochs stopped after 60?",
    source="A text on VGG-11 for CIFAR-10 on Ascend, trained with torch_npu",
    base=RECIPES["ascend-cifar10"],
    runs=(Run("VGG-11"),),
    quick=MINI
    | {"width_ratio": 8, "epochs": 3, "dropout": 0.1}
    | {"schedule": OneCycle(total_epochs=3, maximum=0.02), "initializer": "kaiming_uniform"},
    notes=(
        "The learning rate 1.0 that the text gives is overwritten by the cycle's start, 0.004, and the cycle moves the "
        "momentum too, 0.95 to 0.85 and back, though SGD was built without any: that is what PyTorch really does.",
        "With --quick the whole cycle in three epochs, up to 0.02, from Kaiming's start and with a dropout of 0.1, on "
        "grey images: with 0.5 behind every convolution nothing is learned in so few steps.",
    ),
    traps=traps.of(traps.ASCEND),
)

STUDIES = (
    VGG11_EPOCHS,
    RESOLUTION,
    ALEXNET_SIMPLIFY,
    DEPTH,
    SHALLOW,
    INCEPTION,
    ASCEND_CIFAR10,
    map_contents.STUDY,
    dense_scores.STUDY,
    fine_tuning.STUDY,
)
