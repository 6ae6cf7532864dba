"""`feature-maps`: what the first blocks of a network see of one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import DeviceName, JsonFile, NetworkOptions, backend_name, picture, whole, write_json
from triptych.cli.run_options import ModelOptions, RunOptions

if TYPE_CHECKING:
    from triptych.training.feature_maps import MapStatistics
    from triptych.training.models import Model

DEFAULT_NETWORK = NetworkOptions()
DEFAULT_OPTIONS = RunOptions()


def feature_maps(
    image: Annotated[Path, Parameter(help="An image file.")],
    /,
    *,
    run: Annotated[Path | None, Parameter(name="--run", help="A trained run; without it a fresh --arch.")] = None,
    options: RunOptions = DEFAULT_OPTIONS,
    network: NetworkOptions = DEFAULT_NETWORK,
    blocks: Annotated[int, Parameter(converter=whole, help="How many of the first blocks.")] = 3,
    layers: Annotated[str | None, Parameter(help="These layers instead, e.g. 'block1.*,block2.conv1'.")] = None,
    channels: Annotated[int, Parameter(converter=whole, help="Maps to show of each layer.")] = 8,
    backend: Annotated[str | None, Parameter(help="torch, mxnet or jax; the first installed if left out.")] = None,
    device: DeviceName = "cpu",
    out: Annotated[Path, Parameter(help="The figure: .png, .svg or .pdf.", validator=picture("--out"))] = Path(
        "feature-maps.png"
    ),
    json: JsonFile = None,
) -> None:
    """Draw the first feature maps of every block on one image, of a trained run or of a network at its start.

    Example: triptych feature-maps coat.png --run runs/vgg11 --blocks 2
    """
    from triptych.backend import registry
    from triptych.data import decoded
    from triptych.report import pictures
    from triptych.training import feature_maps
    from triptych.utils.errors import TriptychError

    for option, number in (("--channels", channels), ("--blocks", blocks)):
        if number < 1:
            raise TriptychError(f"{option} {number} must be at least 1")
    name, load = backend_name(backend), loader(run, options, network)
    if not image.is_file():
        raise TriptychError(f"there is no image file {image}")
    model, start = load()
    paths = feature_maps.chosen(model.architecture, layers, blocks)
    stored = decoded.decode([image])
    maps = feature_maps.capture(registry.load(name), model, stored, paths, device)
    title = f"{model.architecture.name}, {start}, on {name}: {image.name}"
    pictures.save(pictures.feature_maps(stored[0], maps, title=title, channels=channels), out)
    statistics = feature_maps.describe(maps)
    if json is not None:
        facts = {"arch": model.architecture.name, "start": start, "backend": name, "figure": str(out)}
        write_json(json, facts | {"layers": [vars(layer) for layer in statistics]})
    if json != "-":
        show(statistics, title)
        print(f"figure: {out}")


def show(statistics: Sequence[MapStatistics], title: str) -> None:
    """A row per layer."""
    from triptych.report.tables import print_table

    columns = ("layer", "maps", "zeros", "channels with zeros only", "largest value")
    cells = [
        (layer.layer, "x".join(map(str, layer.shape)), f"{layer.zeros:.1%}", str(layer.dead), f"{layer.scale:.3g}")
        for layer in statistics
    ]
    print_table(columns, cells, title=title, right=(2, 3, 4))


def loader(run: Path | None, options: RunOptions, network: NetworkOptions) -> Callable[[], tuple[Model, str]]:
    """What gives the model, and in words what its parameters are; the options are checked before."""
    from dataclasses import replace

    from triptych.training import models
    from triptych.training.recipe import Recipe, start_name
    from triptych.utils.errors import TriptychError

    if run is not None:
        checked = ModelOptions(options, network)
        return lambda: (checked.load(run), f"trained ({run})")
    if replace(options, arch=None, init=None, seed=None) != DEFAULT_OPTIONS:
        raise TriptychError("without --run nothing is trained: only --arch, its size, --init and --seed can be given")
    name = "vgg11" if options.arch is None else options.arch
    base = Recipe("feature-maps", architecture=name, network=network.options(name))
    model = models.draw_model(options.apply(base, NetworkOptions()))
    return lambda: (model, f"untrained ({start_name(model.recipe, model.architecture)}, seed {model.recipe.seed})")
