"""What to train of a pretrained network, by how much data there is and how like the first it is."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from triptych.studies.runner import Run, Trained
from triptych.studies.settings import LIVELY_RECIPE, MINI, SMALL_VGG
from triptych.zoo import Options

PRETRAINED = "pretraining"
SCRATCH = "everything, from scratch"  # what each case's treatments are held against
# Four classes against six and ten: were the numbers equal, the new task would start with the old one's last layer.
FIRST = "classes=0-3"


# By case: its data and for how many epochs of it, in full and with --quick.
CASES = {
    "little data, similar": (
        {"data": "fashion-mnist@classes=4-9,train=600", "epochs": 30},
        {"data": "fashion-mnist-mini@classes=4-9,train=120,test=600", "epochs": 24},
    ),
    "much data, similar": (
        {"data": "fashion-mnist@classes=4-9", "epochs": 5},
        {"data": "fashion-mnist-mini@classes=4-9,test=600", "epochs": 2},
    ),
    "little data, different": (
        {"data": "cifar10@train=600", "epochs": 30},
        {"data": "synthetic@train=120", "epochs": 24},
    ),
    "much data, different": ({"data": "cifar10", "epochs": 5}, {"data": "synthetic", "epochs": 8}),
}
TREATMENTS: dict[str, dict[str, Any]] = {
    "last layer only": {"freeze": ("block*", "dense1.*", "dense2.*")},
    "upper layers": {"freeze": ("block1.*", "block2.*", "block3.*")},
    "everything, pretrained": {},
    SCRATCH: {"init_from": ""},
}


def runs() -> Iterator[Run]:
    """The pretraining, then every treatment of every case."""
    quick_first = {"data": f"fashion-mnist-mini@{FIRST},test=600", "epochs": 4}
    yield Run(PRETRAINED, {"data": f"fashion-mnist@{FIRST}"}, quick_first)
    for case, (full, quick) in CASES.items():
        for treatment, changes in TREATMENTS.items():
            start = "" if "init_from" in changes else PRETRAINED
            beside = f"{case}: {SCRATCH}"
            yield Run(f"{case}: {treatment}", full | changes, quick, series=case, start=start, beside=beside)


STUDY = Trained(
    name="transfer",
    question="What should be trained of a pretrained network: the last layer, the upper layers, all, or a new one?",
    source="the usual advice by two questions: is there little data or much, and is it similar or different? "
    "(Stanford's CS231n, Transfer Learning)",
    base=replace(
        LIVELY_RECIPE,
        architecture="vgg11",
        data=f"fashion-mnist@{FIRST}",
        network=Options(input=(1, 32, 32), width_ratio=4, dense_width=512),
        batch_size=32,
    ),
    runs=tuple(runs()),
    quick=MINI | SMALL_VGG,
    compete=True,
    notes=(
        "Pretrained on the first four classes of Fashion-MNIST (t-shirt, trouser, pullover, dress). Similar: the other "
        "six. Different: CIFAR-10 in grey. Little: 600 images (with --quick 120); much: all of them.",
        "The last dense layer is always new. 'Upper layers' are the last two blocks and the dense layers.",
        "The usual advice: little and similar, the last layer; little and different, more of the upper layers; much "
        "and similar, everything from pretrained; much and different, everything, from scratch if need be.",
        "All at the same learning rate and, within a case, for as many epochs.",
        "With --quick 'different' is the synthetic set, whose ten drawn patterns are far easier than photographs: "
        "which treatment wins there says nothing about CIFAR-10.",
    ),
)
