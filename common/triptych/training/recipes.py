"""The named recipes: the trainings that the networks' texts describe, and the short one of `compare`."""

from typing import Any

from triptych.data.batches import Augmentation
from triptych.optim.optimizers import SGD, Adam
from triptych.optim.schedules import OneCycle, Plateau
from triptych.training.recipe import Recipe, vary
from triptych.utils.errors import check_known
from triptych.zoo import Options

# The textbook's first edition trains every one of these for 5 epochs, its later ones for 10.
_RECIPES = (
    Recipe(
        name="d2l-vgg",
        source="Dive into Deep Learning, section 8.2: VGG-11, channels / 4, 224x224",
        architecture="vgg11",
        data="fashion-mnist",
        network=Options(input=(0, 224, 224), width_ratio=4, dense_width=4096),
        epochs=5,
        learning_rate=0.05,
        initializer="xavier_uniform",
    ),
    Recipe(
        name="d2l-lenet",
        source="Dive into Deep Learning, section 7.6",
        architecture="lenet",
        data="fashion-mnist",
        network=Options(input=(0, 28, 28)),
        batch_size=256,
        epochs=10,
        learning_rate=0.9,
        initializer="xavier_uniform",
    ),
    Recipe(
        name="ascend-cifar10",
        # From Kaiming's start nothing is learned: dropout behind every convolution lets the first loss be 205.
        source="a text on VGG-11 for CIFAR-10 on Ascend: OneCycle of 150 epochs, stopped after 60. It leaves the "
        "start to PyTorch (`--init native`); here it is Xavier's for all backends",
        architecture="vgg11",
        data="cifar10",
        network=Options(input=(3, 32, 32), head="small"),
        batch_size=128,
        test_batch_size=100,
        epochs=60,
        learning_rate=1.0,  # given to SGD, as no momentum is; the schedule overwrites both
        optimizer=SGD(weight_decay=5e-4),
        schedule=OneCycle(total_epochs=150, maximum=0.1),
        initializer="xavier_uniform",
        augmentation=Augmentation(crop_padding=4, flip=True),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    ),
    Recipe(
        name="imagenet-vgg",
        source="Simonyan and Zisserman 2014, section 3.1: column D, images of one scale. The paper cuts 224 out of "
        "256 pixels, here the whole image is shifted; after how many epochs it divides the rate is not stated",
        architecture="vgg16",
        data="./imagenet",  # class folders; `--data` says where
        network=Options(1000, (3, 224, 224)),
        batch_size=256,
        epochs=74,
        learning_rate=0.01,
        optimizer=SGD(momentum=0.9, weight_decay=5e-4),
        schedule=Plateau(measure="accuracy", patience=2),
        augmentation=Augmentation(crop_padding=16, flip=True, colour=0.1),
        mean=(0.485, 0.456, 0.406),
        std=(1 / 255,) * 3,  # the paper subtracts the mean of pixels of 0 .. 255 and divides by nothing
    ),
    Recipe(
        name="compare",
        source="the short training of `triptych compare`: small enough for minutes on two cores",
        architecture="vgg11",
        data="fashion-mnist-mini",
        network=Options(input=(0, 32, 32), width_ratio=8),
        batch_size=32,
        epochs=4,
        learning_rate=0.02,
        optimizer=SGD(momentum=0.9),
        initializer="kaiming_uniform",  # with Xavier it takes most of these few steps to start learning
    ),
)
_AS_DATA = Options(input=(0, 224, 224))
# By name: the recipe that it departs from, its source, and in what. What is not known of the texts behind the
# textbook's, as a batch size or the start, is as in the textbook.
_VARIATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "d2l-alexnet": (
        "d2l-vgg",
        "Dive into Deep Learning, section 8.1: AlexNet, 224x224",
        {"architecture": "alexnet", "network": _AS_DATA, "learning_rate": 0.01},
    ),
    "d2l-nin": (
        "d2l-alexnet",
        "Dive into Deep Learning, section 8.3: NiN, 224x224, and the first edition's learning rate",
        {"architecture": "nin", "learning_rate": 0.1},
    ),
    "d2l-googlenet": (
        "d2l-alexnet",
        "Dive into Deep Learning, section 8.4: GoogLeNet, 96x96, and the first edition's learning rate",
        {"architecture": "googlenet_d2l", "size": (96, 96), "learning_rate": 0.1},
    ),
    "adam-vgg": (
        "d2l-vgg",
        "a text on VGG-11 for Fashion-MNIST: channels / 8, dense layers of 512, Adam at 0.001",
        {"width_ratio": 8, "dense_width": 512, "learning_rate": 0.001, "optimizer": Adam()},
    ),
    "adam-alexnet": (
        "d2l-alexnet",
        "a text on simplifying AlexNet for Fashion-MNIST: Adam at 0.002, the best of three learning rates",
        {"epochs": 3, "learning_rate": 0.002, "optimizer": Adam()},
    ),
    "adam-alexnet-0.004": (
        "adam-alexnet",
        "the same text: Adam at 0.004, one of three learning rates",
        {"learning_rate": 0.004},
    ),
    "adam-alexnet-0.001": (
        "adam-alexnet",
        "the same text: Adam at 0.001, one of three learning rates",
        {"learning_rate": 0.001},
    ),
    "plain-vgg16": (
        "d2l-vgg",
        "a text that trains VGG-16 unchanged, but for 10 classes and grey images, with SGD at 0.05",
        {"architecture": "vgg16", "network": Options(10, (0, 224, 224))},
    ),
    "plain-vgg19": ("plain-vgg16", "the same text: VGG-19", {"architecture": "vgg19"}),
}

RECIPES = {recipe.name: recipe for recipe in _RECIPES}
for _name, (_base, _source, _changes) in _VARIATIONS.items():
    RECIPES[_name] = vary(RECIPES[_base], name=_name, source=_source, **_changes)


def get_recipe(name: str) -> Recipe:
    """The recipe `name`. Raises TriptychError with the nearest match if there is none."""
    check_known("recipe", [name], RECIPES)
    return RECIPES[name]
