"""The named recipes: the trainings that the networks' texts describe, and the short one of `compare`."""

from __future__ import annotations

from dataclasses import replace

from triptych.data.batches import Augmentation
from triptych.optim.optimizers import SGD, Adam
from triptych.optim.schedules import OneCycle, Plateau
from triptych.training.recipe import Recipe
from triptych.utils.errors import unknown
from triptych.zoo import Options

# The textbook's first edition trains every one of these for 5 epochs, its later ones for 10.
_D2L_VGG = Recipe(
    name="d2l-vgg",
    source="Dive into Deep Learning, section 8.2: VGG-11, channels / 4, 224x224",
    architecture="vgg11",
    data="fashion-mnist",
    network=Options(input=(0, 224, 224), width_ratio=4, dense_width=4096),
    epochs=5,
    learning_rate=0.05,
    initializer="xavier_uniform",
)
_D2L_ALEXNET = replace(
    _D2L_VGG,
    name="d2l-alexnet",
    source="Dive into Deep Learning, section 8.1: AlexNet, 224x224",
    architecture="alexnet",
    network=Options(input=(0, 224, 224)),
    learning_rate=0.01,
)
# What is not known of the following texts, as a batch size or the start, is as in the textbook.
_ADAM_ALEXNET = replace(
    _D2L_ALEXNET,
    name="adam-alexnet",
    source="a text on simplifying AlexNet for Fashion-MNIST: Adam at 0.002, the best of three learning rates",
    epochs=3,
    learning_rate=0.002,
    optimizer=Adam(),
)
_PLAIN_VGG16 = replace(
    _D2L_VGG,
    name="plain-vgg16",
    source="a text that trains VGG-16 unchanged, but for 10 classes and grey images, with SGD at 0.05",
    architecture="vgg16",
    network=Options(10, (0, 224, 224)),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        _D2L_VGG,
        _D2L_ALEXNET,
        replace(
            _D2L_ALEXNET,
            name="d2l-nin",
            source="Dive into Deep Learning, section 8.3: NiN, 224x224, and the first edition's learning rate",
            architecture="nin",
            learning_rate=0.1,
        ),
        replace(
            _D2L_ALEXNET,
            name="d2l-googlenet",
            source="Dive into Deep Learning, section 8.4: GoogLeNet, 96x96, and the first edition's learning rate",
            architecture="googlenet_d2l",
            network=Options(input=(0, 96, 96)),
            learning_rate=0.1,
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
        replace(
            _D2L_VGG,
            name="adam-vgg",
            source="a text on VGG-11 for Fashion-MNIST: channels / 8, dense layers of 512, Adam at 0.001",
            network=Options(input=(0, 224, 224), width_ratio=8, dense_width=512),
            learning_rate=0.001,
            optimizer=Adam(),
        ),
        _ADAM_ALEXNET,
        *(
            replace(
                _ADAM_ALEXNET,
                name=f"adam-alexnet-{rate}",
                source=f"the same text: Adam at {rate}, one of three learning rates",
                learning_rate=rate,
            )
            for rate in (0.004, 0.001)
        ),
        _PLAIN_VGG16,
        replace(_PLAIN_VGG16, name="plain-vgg19", source="the same text: VGG-19", architecture="vgg19"),
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
}


def get_recipe(name: str) -> Recipe:
    """The recipe `name`. Raises TriptychError with the nearest match if there is none."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
