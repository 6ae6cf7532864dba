"""The state of an optimiser as a file for somebody's own training loop: PyTorch's `load_state_dict`, optax's
`flax.serialization.from_bytes`, the `load_states` of MXNet's trainer."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.exporting import mxnet_trainer
from triptych.importers import optax_states, torch_states
from triptych.importers.mxnet_back import Back
from triptych.optim.multipliers import Factors, text_of
from triptych.optim.optimizers import COUNT, SGD, Adam, AdamW, Optimizer, decay_of, float32, rates_of
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError
from triptych.weights.formats import flax_msgpack, torch_file
from triptych.weights.naming import NAMINGS, NamedArrays

State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class States:
    """What is written: the optimiser with its state (arrays by slot and path, as it crosses the contract), the learning
    rate that it had last, and the network."""

    optimizer: Optimizer
    state: State
    learning_rate: float
    architecture: Architecture
    flatten: str | None = None  # how a Flax network flattens a map; None: in its own way
    back: Back | None = None  # where MXNet's go
    parameters: State = field(default_factory=dict)  # of the same moment: MXNet's file of weights is written, too

    def of(self, slot: str, path: str) -> NDArray[Any] | None:
        """What a slot remembers of a parameter."""
        return self.state.get(f"{slot}.{path}")


def write(path: Path, states: States) -> str:
    """Write the file that its ending names; returns what loads it. Raises TriptychError for another ending, and for an
    optimiser that the target has in another form."""
    if path.suffix not in WRITERS:
        raise TriptychError(f"'{path}' must end in {', '.join(WRITERS)}")
    if states.back is not None and path.suffix != ".states":
        raise TriptychError(f"--symbol and --params are for .states, MXNet's, not for '{path}'")
    if type(states.optimizer) not in (SGD, Adam, AdamW):
        raise TriptychError(f"the states of {states.optimizer.name} are not written; those of sgd, adam and adamw are")
    return WRITERS[path.suffix](path, states)


def _torch(path: Path, states: States) -> str:
    """One group for each weight decay and learning rate; parameters by their names, in the module's order."""
    optimizer, decay = states.optimizer, decay_of(states.optimizer, states.architecture)
    factors = rates_of(states.optimizer, states.architecture)
    names = NamedArrays(states.architecture, NAMINGS["torch"]).names
    count = {"step": np.asarray(states.state[COUNT], np.float32)} if COUNT in states.state else {}
    groups: list[dict[str, Any]] = []
    entries: dict[int, dict[str, NDArray[Any]]] = {}
    first = 0
    for strength, factor in dict.fromkeys((decay[path], factors[path]) for path in decay):
        paths = [path for path in decay if (decay[path], factors[path]) == (strength, factor)]
        rate = states.learning_rate * factor
        numbers = list(range(first, first + len(paths)))
        first += len(paths)
        for number, one in zip(numbers, paths, strict=True):
            slots = {theirs: states.of(slot, one) for theirs, slot in torch_states.SLOTS.items()}
            kept = {theirs: value for theirs, value in slots.items() if value is not None}
            entries |= {number: {**count, **kept}} if kept else {}
        named = {"params": numbers, "param_names": [names[one] for one in paths]}
        groups.append({"lr": rate, "weight_decay": strength, **_torch_options(optimizer), **named})
    torch_file.write_tree(path, {"state": entries, "param_groups": groups})
    kind = {SGD: "SGD", Adam: "Adam", AdamW: "AdamW"}[type(optimizer)]
    several = f"{len(groups)} groups of named parameters, as `param_groups` says"
    given = "module.named_parameters()" if len(groups) == 1 else several
    return f"torch.optim.{kind}({given}, ...).load_state_dict(torch.load('{path.name}')){_other_eps(optimizer)}"


def _torch_options(optimizer: Optimizer) -> dict[str, Any]:
    """A group as PyTorch writes it."""
    common = {"maximize": False, "foreach": None, "differentiable": False, "fused": None}
    if isinstance(optimizer, SGD):
        return {"momentum": optimizer.momentum, "dampening": 0, "nesterov": optimizer.nesterov, **common}
    assert isinstance(optimizer, Adam)
    decoupled = isinstance(optimizer, AdamW)
    own = {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.eps, "amsgrad": False, "capturable": False}
    return {**own, "decoupled_weight_decay": decoupled, **common}


def _optax(path: Path, states: States) -> str:
    """As the usual chain has it; the decay that is coupled stands before. With multipliers a chain for each group."""
    optimizer = states.optimizer
    named = NamedArrays(states.architecture, NAMINGS["flax"], states.flatten)
    if optimizer.multipliers:
        chain, arrays, empty, more = _several_chains(states, named)
    else:
        mask = optimizer.decayed != "all"
        paths = list(decay_of(optimizer, states.architecture))
        chain = _chain(optimizer, states.learning_rate, mask)
        arrays, empty = _of_chain(states, named, paths, paths, optimizer.weight_decay, mask)
        more = ""
    flax_msgpack.write(path, arrays, empty)
    told = f"flax.serialization.from_bytes(({chain}).init(parameters), open('{path.name}', 'rb').read())"
    return told + more + _other_eps(optimizer)


def _of_chain(
    states: States, named: NamedArrays, paths: Sequence[str], own: Collection[str], decay: float, masked: bool = False
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays of one chain's state, and what is empty in it: of all `paths` those that are its `own` have arrays."""
    optimizer = states.optimizer
    coupled = bool(decay) and not isinstance(optimizer, AdamW)
    inner = "/inner_state" * masked
    place, empty = ("1/0", [f"0{inner}", "1/1"]) if coupled else ("0", ["1"])
    if isinstance(optimizer, AdamW):
        empty = [f"1{inner}", "2"]
    slots = () if _is_plain(optimizer) else optimizer.slots
    empty += [place] * (not slots)
    arrays = {}
    for theirs, slot in optax_states.SLOTS.items():
        for one in paths if slot in slots else ():
            name, value = f"{place}/{theirs}/{named.names[one]}", states.of(slot, one)
            if one not in own:
                empty.append(name)
            elif value is not None:
                arrays[name] = named.from_canonical(one, value)
    if optimizer.counts:
        arrays[f"{place}/count"] = np.asarray(states.state.get(COUNT, 0), np.int32)
    return arrays, empty


def _several_chains(states: States, named: NamedArrays) -> tuple[str, dict[str, NDArray[Any]], list[str], str]:
    """`optax.multi_transform`: its text, arrays, empty places, and which parameter has which label."""
    optimizer = states.optimizer
    decay, rates = decay_of(optimizer, states.architecture), rates_of(optimizer, states.architecture)
    strength = optimizer.weight_decay or 1.0
    factors = {one: Factors(rates[one], float32(decay[one] / strength)) for one in decay}
    chains: list[str] = []
    arrays: dict[str, NDArray[Any]] = {}
    empty: list[str] = []
    for group in dict.fromkeys(factors.values()):
        label = f"rate={group.rate:g},decay={group.decay:g}" if optimizer.weight_decay else f"rate={group.rate:g}"
        own = {one for one in factors if factors[one] == group}
        one_chain = replace(optimizer, weight_decay=optimizer.weight_decay * group.decay, multipliers=())
        chains.append(f"'{label}': {_chain(one_chain, states.learning_rate * group.rate)}")
        found, nothing = _of_chain(states, named, list(decay), own, one_chain.weight_decay)
        place = f"inner_states/{label}/inner_state"
        arrays |= {f"{place}/{name}": value for name, value in found.items()}
        empty += [f"{place}/{name}" for name in nothing]
    if not optimizer.weight_decay:
        factors = {one: Factors(group.rate) for one, group in factors.items()}
    text = f"; labels: of every parameter its rate and decay, 1 but for {text_of(factors)}"
    return f"optax.multi_transform({{{', '.join(chains)}}}, labels)", arrays, empty, text


def _is_plain(optimizer: Optimizer) -> bool:
    """SGD without momentum, which in optax remembers nothing."""
    return isinstance(optimizer, SGD) and not optimizer.momentum


def _other_eps(optimizer: Optimizer) -> str:
    """What an Adam that goes on elsewhere does otherwise from there on."""
    before = isinstance(optimizer, Adam) and optimizer.eps_added == "before"
    return "; it adds eps after the correction of the bias from there on, not before" if before else ""


def _chain(optimizer: Optimizer, rate: float, masks: bool = False) -> str:
    masked = ", mask=weights" * masks
    if isinstance(optimizer, SGD):
        nesterov = ", nesterov=True" if optimizer.nesterov else ""
        momentum = "" if _is_plain(optimizer) else f", {optimizer.momentum:g}"
        own = f"optax.sgd({rate:g}{momentum}{nesterov})"
    else:
        assert isinstance(optimizer, Adam)
        decay = f", weight_decay={optimizer.weight_decay:g}{masked}" if isinstance(optimizer, AdamW) else ""
        kind = "adamw" if isinstance(optimizer, AdamW) else "adam"
        own = f"optax.{kind}({rate:g}, {optimizer.beta1:g}, {optimizer.beta2:g}, {optimizer.eps:g}{decay})"
    if optimizer.weight_decay and not isinstance(optimizer, AdamW):
        return f"optax.chain(optax.add_decayed_weights({optimizer.weight_decay:g}{masked}), {own})"
    return own


def _mxnet(path: Path, states: States) -> str:
    """With the weights beside them, as both have the names of one symbol."""
    if states.back is None:
        raise TriptychError(f"'{path}' takes the names of a network of MXNet's: give --symbol and --params")
    own = (states.optimizer, states.state, states.learning_rate)
    return mxnet_trainer.write(path, states.back, states.parameters, *own)


WRITERS: dict[str, Callable[[Path, States], str]] = {".pt": _torch, ".msgpack": _optax, ".states": _mxnet}
