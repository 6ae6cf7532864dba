"""`feature-maps`: what the first blocks of a network see of one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli import options
from triptych.cli.run_options import DEFAULT_START, ModelOptions, RunOptions, StartOptions
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.training.feature_maps import MapStatistics
    from triptych.training.models import Model


def feature_maps(
    image: Annotated[Path, Parameter(help="An image file.")],
    /,
    *,
    run: Annotated[Path | None, Parameter(name="--run", help="A trained run; without it a fresh --arch.")] = None,
    changes: StartOptions = DEFAULT_START,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    blocks: Annotated[int, Parameter(converter=options.positive, help="How many of the first blocks.")] = 3,
    layers: Annotated[str | None, Parameter(help="These layers instead, e.g. 'block1.*,block2.conv1'.")] = None,
    channels: Annotated[int, Parameter(converter=options.positive, help="Maps to show of each layer.")] = 8,
    backend: options.BackendName = None,
    device: options.DeviceName = "cpu",
    out: Annotated[Path, options.picture("--out", "The figure: .png, .svg or .pdf.")] = Path("feature-maps.png"),
    json: options.JsonFile = None,
) -> None:
    """Draw the first feature maps of every block on one image, of a trained run or of a network at its start.

    Example: triptych feature-maps coat.png --run runs/vgg11 --blocks 2
    """
    from triptych.backend import registry
    from triptych.backend.execution import DEFAULT
    from triptych.data import decoded
    from triptych.report import pictures
    from triptych.training import feature_maps, sessions

    name, load = options.backend_name(backend), loader(run, changes, network)
    loaded = registry.load(name)
    sessions.check_execution([loaded], device, changes.precision or DEFAULT.precision)
    model, start = load()
    sessions.check_execution([loaded], device, model.recipe.precision)
    paths = feature_maps.chosen(model.architecture, layers, blocks)
    if not image.is_file():
        raise TriptychError(f"there is no image file {image}")
    stored = decoded.decode([image])
    maps = feature_maps.capture(loaded, model, stored, paths, device)
    title = f"{model.architecture.name}, {start}, on {name}: {image.name}"
    pictures.save(pictures.feature_maps(stored[0], maps, title=title, channels=channels), out)
    statistics = feature_maps.describe(maps)
    facts = {"arch": model.architecture.name, "start": start, "backend": name, "figure": str(out)}
    options.write_json(json, facts | {"layers": [vars(layer) for layer in statistics]})
    if json != "-":
        show(statistics, title)
        print(f"figure: {out}")


def show(statistics: Sequence[MapStatistics], title: str) -> None:
    """A row per layer."""
    columns = ("layer", "maps", "zeros", "channels with zeros only", "largest value")
    cells = [
        (layer.layer, "x".join(map(str, layer.shape)), f"{layer.zeros:.1%}", str(layer.dead), f"{layer.scale:.3g}")
        for layer in statistics
    ]
    print_table(columns, cells, title=title, right=(2, 3, 4))


def loader(run: Path | None, changes: StartOptions, network: options.NetworkOptions) -> Callable[[], tuple[Model, str]]:
    """What gives the model, and in words what its parameters are; the options are checked before."""
    from triptych.training import models
    from triptych.training.recipe import Recipe, start_name

    if run is not None:
        checked = ModelOptions(changes, network)
        return lambda: (checked.load(run), f"trained ({run})")
    if replace(changes, arch=None, init=None, seed=None) != DEFAULT_START:
        raise TriptychError("without --run nothing is trained: only --arch, its size, --init and --seed can be given")
    name = "vgg11" if changes.arch is None else changes.arch
    base = Recipe("feature-maps", architecture=name, network=network.options(name))
    model = models.draw_model(RunOptions(**vars(changes)).apply(base, options.DEFAULT_NETWORK))
    return lambda: (model, f"untrained ({start_name(model.recipe, model.architecture)}, seed {model.recipe.seed})")
