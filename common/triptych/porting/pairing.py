"""A whole network's parameters beside the spec's: what may be left out, written otherwise, or shared by two layers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

from triptych.backend.contract import PortParameter
from triptych.conformance.compare import Check, problem
from triptych.conformance.reference_run import layer_of
from triptych.porting.matching import longest_alignment, owner_of, pair, proposal
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import Shape
from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write

WAY_OUT = "--propose-mapping FILE writes one to edit"


@dataclass(frozen=True)
class Pairing:
    """The network's own name by canonical path; the first parameter without a partner, as a failed check, with its
    cause; and what was learned. `shapes`: the network's own, by path, where the spec's array has another."""

    pairs: Mapping[str, str]
    wrong: Check | None = None
    cause: str = ""
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, Shape] | None = None


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name, or the layer that it belongs to, is meant by one of the patterns."""
    return any(fnmatchcase(each, pattern) for pattern in patterns for each in (name, owner_of(name)) if each)


def pair_network(
    parameters: Sequence[PortParameter],
    infos: Sequence[ParameterInfo],
    mapping: Mapping[str, str],
    ignored: Sequence[str] = (),
    propose: Path | None = None,
    others: Sequence[Sequence[ParameterInfo]] = (),
) -> Pairing:
    """Which of a network's parameters is which of the spec's. `ignored`: patterns of names that may have no partner.
    `propose`: a file for what is known of it. `others`: other orders of the spec's, of which that counts which is most
    like the network's. Raises TriptychError where it is ambiguous."""
    infos = max((infos, *others), key=lambda order: _alike(parameters, order))
    try:
        pairing = _pair(parameters, infos, mapping, ignored)
    except TriptychError as error:
        write_proposal(propose, parameters, infos, mapping, {})
        raise TriptychError(
            f"{error}; {WAY_OUT}" if propose is None else f"{error}; {propose} is one to edit"
        ) from None
    write_proposal(propose, parameters, infos, mapping, pairing.pairs)
    return pairing


def _alike(parameters: Sequence[PortParameter], infos: Sequence[ParameterInfo]) -> int:
    """How many weights of both come in the same order."""
    have, need = ([each.shape for each in both if len(each.shape) > 1] for both in (parameters, infos))
    return len(longest_alignment(len(have), len(need), lambda i, j: int(have[i] == need[j])))


def write_proposal(
    path: Path | None,
    parameters: Sequence[PortParameter],
    infos: Sequence[ParameterInfo],
    mapping: Mapping[str, str],
    pairs: Mapping[str, str],
) -> None:
    """A mapping as a file, if one is asked for."""
    if path is not None:
        known = {**{canonical: name for name, canonical in mapping.items()}, **pairs}
        with atomic_write(path) as file:
            file.write(proposal(parameters, infos, known).encode())


def _pair(
    parameters: Sequence[PortParameter],
    infos: Sequence[ParameterInfo],
    mapping: Mapping[str, str],
    ignored: Sequence[str],
) -> Pairing:
    """The first way to see the network in which everything has its partner."""
    kept = [each for each in parameters if not matches(each.name, ignored) or each.name in mapping]
    first = Pairing(*pair(kept, infos, mapping, tried=True))
    unneeded = [each.name for each in kept if not each.needed and each.name not in mapping]
    needed = [each for each in kept if each.name not in unneeded]
    left_out = (f"left out, as the outputs do not depend on them: {', '.join(unneeded)}",)
    ways = [
        *([(list(parameters), ())] if len(kept) < len(parameters) else []),  # ignored is what happens to it
        *([(needed, left_out)] if unneeded else []),
        *((_reshaped(each, infos), notes) for each, notes in ((kept, ()), (needed, left_out))),
    ]
    if first.wrong is None:
        return first
    for each, notes in ways:
        pairs, wrong = pair(each, infos, mapping, tried=True)
        if wrong is None:
            own = {parameter.name: parameter.shape for parameter in parameters}
            shapes = {info.path: own[pairs[info.path]] for info in infos if own[pairs[info.path]] != info.shape}
            return Pairing(pairs, None, "", (*notes, *_written(shapes)), shapes)
    again = Pairing(*pair(needed, infos, mapping, tried=True)) if unneeded else first
    found = _shared(kept, infos, mapping) or _with_biases(needed, infos, mapping) or _left_over(again, needed)
    return found if found.cause else replace(found, cause=_of_shapes(found, needed, infos))


def _reshaped(parameters: Sequence[PortParameter], infos: Sequence[ParameterInfo]) -> list[PortParameter]:
    """Weights whose shape the spec does not have, in one that it lacks, if that has as many outputs and values: a dense
    layer may be written as a convolution of its whole map, a 1x1 convolution as a dense layer."""
    missing = Counter(info.shape for info in infos) - Counter(each.shape for each in parameters)
    surplus = Counter(each.shape for each in parameters) - Counter(info.shape for info in infos)
    made = []
    for each in parameters:
        fits = [
            s for s in missing if len(s) != len(each.shape) and s[0] == each.shape[0] and prod(s) == prod(each.shape)
        ]
        if fits and surplus[each.shape] and len(each.shape) > 1:
            missing -= Counter([fits[0]])
            surplus -= Counter([each.shape])
            each = replace(each, shape=fits[0])
        made.append(each)
    return made


def _written(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """What is written in another form."""
    forms = {4: "a convolution", 2: "a dense layer"}
    return tuple(f"'{layer_of(path)}' is written as {forms.get(len(s), s)}, weight {s}" for path, s in shapes.items())


def _shared(
    parameters: Sequence[PortParameter], infos: Sequence[ParameterInfo], mapping: Mapping[str, str]
) -> Pairing | None:
    """The second layer that uses the parameters of another one, where all would have a partner if it had its own."""
    uses = [(place, each) for each in parameters for place in each.places or (-1,)]
    expanded = [replace(each, name=f"{each.name}\n{place}") for place, each in sorted(uses, key=lambda use: use[0])]
    if len(expanded) == len(parameters) or mapping:
        return None
    try:
        pairs, wrong = pair(expanded, infos, mapping, tried=True)
    except TriptychError:
        return None
    if wrong is not None:
        return None
    first: dict[str, str] = {}
    for path in (info.path for info in infos):
        name = pairs[path].partition("\n")[0]
        if name in first:
            text = f"your network has no array of its own for it: '{name}' is used for '{first[name]}' already"
            cause = f"it shares the parameters of '{layer_of(first[name])}'"
            return Pairing({}, problem("structure", path, text), cause)
        first[name] = path
    return None


def _with_biases(
    parameters: Sequence[PortParameter], infos: Sequence[ParameterInfo], mapping: Mapping[str, str]
) -> Pairing | None:
    """The first layer with a bias that the spec's has not, where without such biases all have a partner."""
    layers = {layer_of(info.path) for info in infos if info.path.endswith(".bias")}
    biased = {info.shape for info in infos if info.path.endswith(".weight") and layer_of(info.path) in layers}
    weights = {owner_of(each.name): each for each in parameters if each.role == "weight" and len(each.shape) > 1}
    extra = [
        each
        for each in parameters
        if each.role == "bias" and owner_of(each.name) in weights and weights[owner_of(each.name)].shape not in biased
    ]
    pairs, wrong = pair([each for each in parameters if each not in extra], infos, mapping, tried=True)
    if not extra or wrong is not None:
        return None
    weight = weights[owner_of(extra[0].name)].name
    path = next(path for path, name in pairs.items() if name == weight)
    cause = "it has a bias that the spec's layer has not (bias, use_bias, no_bias)"
    text = f"your network has {extra[0].shape}, the spec no bias there"
    return Pairing({}, problem("structure", f"{layer_of(path)}.bias", text), cause)


def _of_shapes(found: Pairing, parameters: Sequence[PortParameter], infos: Sequence[ParameterInfo]) -> str:
    """What a weight without a partner would be of, if it is one that the spec lacks: groups, kernel, or channels."""
    right = next((info.shape for info in infos if found.wrong and info.path == found.wrong.tensor), ())
    surplus = Counter(each.shape for each in parameters) - Counter(info.shape for info in infos)
    wrong = next((each.shape for each in parameters if surplus[each.shape] and len(each.shape) == len(right)), ())
    if wrong == (1,) != right and found.wrong and found.wrong.tensor.endswith(".weight"):
        return f"it has one slope for all, not one for each of the {right[0]} channels"
    if len(right) < 2 or not wrong:
        return ""
    if wrong[0] != right[0]:
        what = "channels" if len(right) > 2 else "units"
        return f"it has {wrong[0]} {what}, not {right[0]}" if wrong[1:] == right[1:] else ""
    if wrong[2:] != right[2:]:
        return f"the kernel is {wrong[2:]}, not {right[2:]}" if wrong[1] == right[1] else ""
    return f"it takes {wrong[1]} channels in each group, not {right[1]} (groups)" if len(right) > 2 else ""


def _left_over(first: Pairing, parameters: Sequence[PortParameter]) -> Pairing:
    """Where something of the network's own is too much, the line says how to leave it out."""
    assert first.wrong is not None
    surplus = next((each for each in parameters if each.name == first.wrong.tensor), None)
    if surplus is None:
        return first
    pattern = f"{owner}*" if (owner := owner_of(surplus.name)) else surplus.name
    told = "nothing uses it" if not surplus.places else "a head of its own, or a constant, is no part of the spec"
    return replace(first, notes=(f"{told}: --ignore '{pattern}' leaves it out",))
