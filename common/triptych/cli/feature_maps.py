"""`feature-maps`: what the first blocks of a network see of one image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import (
    DeviceName,
    JsonFile,
    NetworkOptions,
    RunOptions,
    load_backend,
    picture,
    whole,
    write_json,
)

if TYPE_CHECKING:
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
    from dataclasses import asdict

    from triptych.data import decoded
    from triptych.report import pictures
    from triptych.report.tables import print_table
    from triptych.training import feature_maps
    from triptych.utils.errors import TriptychError

    if not image.is_file():
        raise TriptychError(f"there is no image file {image}")
    if channels < 1:
        raise TriptychError(f"--channels {channels} must be at least 1")
    model, start = load(run, options, network)
    patterns = [pattern.strip() for pattern in (layers or "").split(",") if pattern.strip()]
    architecture = model.architecture
    paths = feature_maps.matching(architecture, patterns) if patterns else feature_maps.stages(architecture, blocks)
    stored = decoded.decode([image])
    chosen = load_backend(backend)
    maps = feature_maps.capture(chosen, model, stored, paths, device)
    title = f"{architecture.name}, {start}, on {chosen.name}: {image.name}"
    pictures.save(pictures.feature_maps(stored[0], maps, title=title, channels=channels), out)
    rows = feature_maps.describe(maps)
    if json is not None:
        found = {"arch": architecture.name, "start": start, "backend": chosen.name, "figure": str(out)}
        write_json(json, found | {"layers": [asdict(row) for row in rows]})
    if json != "-":
        columns = ("layer", "maps", "zeros", "channels with zeros only", "largest value")
        cells = [(r.layer, "x".join(map(str, r.shape)), f"{r.zeros:.1%}", str(r.dead), f"{r.scale:.3g}") for r in rows]
        print_table(columns, cells, title=title, right=(2, 3, 4))
        print(f"figure: {out}")


def load(run: Path | None, options: RunOptions, network: NetworkOptions) -> tuple[Model, str]:
    """The model, and in words what its parameters are."""
    from dataclasses import replace

    from triptych.cli.evaluate import load_model
    from triptych.training import models
    from triptych.training.recipe import NATIVE, Recipe
    from triptych.utils.errors import TriptychError
    from triptych.weights import initializers

    if run is not None:
        return load_model(run, options, network), f"trained ({run})"
    if replace(options, arch=None, init=None, seed=None) != DEFAULT_OPTIONS:
        raise TriptychError("without --run nothing is trained: only --arch, its size, --init and --seed can be given")
    name = "vgg11" if options.arch is None else options.arch
    architecture = network.build(name)
    recipe = options.apply(Recipe("feature-maps", architecture=name, network=network.options(name)), NetworkOptions())
    if recipe.initializer == NATIVE:
        raise TriptychError(
            "feature maps of an untrained network need a shared start; --init native is each framework's"
        )
    law = initializers.parse(recipe.initializer)
    parameters = initializers.draw(architecture, recipe.seed, law)
    return models.Model(recipe, architecture, parameters, ()), f"untrained ({recipe.initializer}, seed {recipe.seed})"
