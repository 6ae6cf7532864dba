"""Is a spec what its name says? A name of the zoo stands for the networks that the zoo builds under it, at any size."""

import re
from collections.abc import Iterator
from dataclasses import replace

from triptych import zoo
from triptych.spec.layers import Architecture, Conv, Dense, Layers, walk
from triptych.utils.errors import TriptychError

OWN = "own_"


def zoo_name(name: str) -> str | None:
    """The name of the zoo that a reader would take `name` for, whatever its capitals and separators; or None."""
    plain = _plain(name)
    return next((known for known in zoo.registry() if _plain(known) == plain), None)


def options_of(architecture: Architecture) -> zoo.Options | None:
    """The options at which the zoo builds exactly this spec under its own name, or None: it is another network, or at a
    width that its first layers do not tell."""
    name = architecture.name
    for options in _candidates(architecture) if name in zoo.registry() else ():
        try:
            if zoo.build_with(name, options) == architecture:
                return options
        except TriptychError:  # no network of the zoo at that size
            continue
    return None


def told_apart(architecture: Architecture) -> Architecture:
    """The spec under the name `own_NAME` where it has a name of the zoo and is none of those networks."""
    if zoo_name(architecture.name) is None or options_of(architecture) is not None:
        return architecture
    return replace(architecture, name=OWN + architecture.name)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _candidates(architecture: Architecture) -> Iterator[zoo.Options]:
    """Options that may give this spec: its input and classes, every head, the widths that its layers suggest."""
    entry = zoo.get_entry(architecture.name)
    whole = zoo.Options(architecture.classes, architecture.input)
    if not architecture.classes:
        return
    for head in (None, *entry.heads):
        try:
            layers = entry.build(replace(whole, head=head))
        except TriptychError:
            continue
        widths = [(_first_width(layers), _first_width(architecture.layers))]
        ratios = {1.0, entry.conformance[0], *(full / own for full, own in widths if full and own)}
        for ratio in sorted(ratios):
            for dense_width in (None, _dense_width(architecture.layers)):
                yield replace(whole, width_ratio=ratio, dense_width=dense_width, head=head)


def _first_width(layers: Layers) -> int | None:
    return next((layer.channels for _, layer in walk(layers) if isinstance(layer, Conv)), None)


def _dense_width(layers: Layers) -> int | None:
    return next((layer.units for _, layer in walk(layers) if isinstance(layer, Dense)), None)
