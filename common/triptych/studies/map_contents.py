"""What the first blocks of the three families make of one image: figures, and how coarse the maps are."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from triptych.backend.contract import Backend
from triptych.data import preprocess
from triptych.report import figures, pictures
from triptych.spec.analysis import analyse
from triptych.studies import Cell, StudyResult, Table, join, shown
from triptych.studies.runner import Outcome, Trained
from triptych.studies.settings import LOOKED_AT, MINI, NETWORKS
from triptych.training import feature_maps, models
from triptych.training.recipes import RECIPES

BLOCKS = 2  # LeNet has no more
IMAGE = 0  # of the test set
NOISE = 0.25  # the share of variance that averaging over four independent values leaves
PICTURE = "the picture"


def look(outcomes: Sequence[Outcome], backend: Backend, device: str) -> StudyResult:
    """A figure, rows and sentences per network."""
    return join([look_at(outcome, backend, device) for outcome in outcomes])


def look_at(outcome: Outcome, backend: Backend, device: str) -> StudyResult:
    """The first blocks of one trained network."""
    model = models.load_run(outcome.folder)
    test = outcome.planned.dataset.test
    stored = test.images[IMAGE : IMAGE + 1]
    maps = feature_maps.capture(backend, model, stored, feature_maps.stages(model.architecture, BLOCKS), device)
    seen = preprocess.apply_reference(stored, model.transform, dtype=np.float32)[0]
    places = {info.path: info for info in analyse(model.architecture)}
    rows: list[dict[str, Cell]] = []
    for each in feature_maps.describe({PICTURE: seen, **maps}):
        values = maps.get(each.layer, seen)
        place = places.get(each.layer)
        rows.append(
            {
                "network": outcome.name,
                "backend": outcome.backend,
                "end of": each.layer,
                "maps": "x".join(map(str, each.shape)),
                "zeros": each.zeros,
                "dead channels": each.dead,
                "largest": each.scale,
                "sees, pixels": place.receptive_field[0] if place else 1,
                "step, pixels": place.stride[0] if place else 1,
                "left at half size": shown(feature_maps.coarse_share(values)),
                "likeness to the picture": shown(feature_maps.likeness(values, seen)),
            }
        )
    what = f"test image {IMAGE} ({outcome.planned.dataset.class_names[test.labels[IMAGE]]})"
    title = f"{outcome.name}, {outcome.backend}"
    drawn = figures.svg(pictures.feature_maps(stored[0], maps, title=f"{title}: {what}"))
    table = Table.of(f"The first {BLOCKS} blocks on {what}", rows)
    return StudyResult((table,), ((f"The first maps of each block: {title}", drawn),), (sentence(title, rows),))


def sentence(title: str, rows: Sequence[Mapping[str, Cell]]) -> str:
    """What the last of the blocks still holds of the picture, from the rows of one network."""
    first, last = rows[0], rows[-1]
    size, values = (math.prod(map(int, str(row["maps"]).split("x"))) for row in (first, last))
    pixels = str(first["maps"]).split("x")[1]
    share, like = last["left at half size"], last["likeness to the picture"]
    sees = last["sees, pixels"]
    said = f"{title}: {last['end of']} has {values:,} values for {size:,} pixels, each sees {sees} of {pixels} a side"
    if isinstance(share, float):
        kind = "neighbouring places say much the same" if share > 0.5 else "neighbouring places differ"
        said += f"; at half its size {share:.0%} of its variance is left (noise: {NOISE:.0%}): {kind}"
    if isinstance(like, float):
        said += f"; its maps' likeness to the picture is {like:.2f}"
    return f"{said}."


STUDY = Trained(
    name="feature-maps",
    question="What do the first blocks of LeNet, AlexNet and VGG see of one image?",
    source="the remark that the first layers of a network see coarse information, as edges and outlines",
    base=RECIPES["d2l-lenet"],
    runs=LOOKED_AT,
    quick=MINI,
    networks=NETWORKS,
    look=look,
    notes=(
        "A block ends with a pooling in LeNet and AlexNet; VGG's are its own.",
        "'Left at half size' is the share of the variance within the maps that averaging over squares of 2x2 leaves: "
        "near 1 for broad shapes, 1/4 for noise, next to nothing for thin lines. It is of the map's own grid, whose "
        "step in pixels stands beside it.",
        "'Likeness' is the mean absolute correlation of a map with the picture at the map's size.",
        "LeNet sees 28x28 images, AlexNet and VGG-11 224x224 (with --quick 97x97 and 64x64), enlarged from 28x28; an "
        "enlarged picture has no detail of its own, so that its maps are the smoother.",
    ),
)
