"""PyTorch's optimiser state (`torch.save(optimizer.state_dict(), ...)`) as canonical state, without PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.trainer_states import Arrays, TrainerStates
from triptych.utils.errors import TriptychError
from triptych.weights.formats import torch_file

SLOTS = {"momentum_buffer": "velocity", "exp_avg": "mean", "exp_avg_sq": "variance"}
_SETTINGS = {"momentum": "momentum", "nesterov": "nesterov", "weight_decay": "weight_decay", "eps": "eps"}
# Options that no optimizer here has, and what each has to be.
_PLAIN = {"dampening": 0, "amsgrad": False, "maximize": False}
Convert = Callable[[str, NDArray[Any]], tuple[str, NDArray[Any]]]  # of a name and its array: the path, and canonical


def load(path: Path, paths: Mapping[str, str], convert: Convert) -> TrainerStates:
    """What an optimizer remembers of the parameters whose canonical `paths` are told by name, in the order of
    `module.parameters()`; `convert` makes canonical arrays of them. Raises TriptychError for what is no such file, is
    of another network, or of an optimizer that is not known here."""
    state, groups = _read(path)
    names = list(paths)
    by_index = _names(path, groups, names)
    slots: dict[str, Arrays] = {}
    steps = 0
    for index, entry in state.items():
        if index not in by_index or not isinstance(entry, dict):
            raise TriptychError(f"{path} has a state {str(index)[:40]!r}; the network has {len(names)} parameters")
        for key, value in entry.items():
            if key == "step":
                steps = max(steps, _steps(path, value))
            elif isinstance(value, np.ndarray) and key in SLOTS:
                canonical, array = convert(by_index[index], value)
                slots.setdefault(SLOTS[key], {})[canonical] = array
            elif value is not None:
                raise TriptychError(
                    f"{path}: '{key}' of '{by_index[index]}' belongs to no optimizer that is known here"
                )
    lr, decay = _by_path(groups, "lr", by_index, paths), _by_path(groups, "weight_decay", by_index, paths)
    moving = [value for value in lr.values() if value]
    rate = max(moving, key=moving.count, default=0.0)  # that of most parameters
    rates = {p: value / rate if rate else 1.0 for p, value in lr.items()}
    most = max(decay.values(), default=0.0)
    return TrainerStates(
        _kind(path, groups[0]),
        _settings(path, groups),
        rate,
        steps,
        {slot: {p: array for p, array in arrays.items() if rates[p]} for slot, arrays in slots.items()},
        rates={p: factor for p, factor in rates.items() if factor},
        decays={p: value / most if most else 1.0 for p, value in decay.items()},
        frozen=frozenset(p for p, factor in rates.items() if not factor),
    )


def _read(path: Path) -> tuple[dict[Any, Any], list[dict[str, Any]]]:
    value = torch_file.read_tree(path)
    value = value.get("optimizer", value.get("optimizer_state_dict", value)) if isinstance(value, dict) else value
    wrong = f"{path} is no state of an optimizer; write it with torch.save(optimizer.state_dict(), file)"
    if not isinstance(value, dict):
        raise TriptychError(wrong)
    state, groups = value.get("state"), value.get("param_groups")
    if not isinstance(state, dict) or not isinstance(groups, list) or not groups:
        raise TriptychError(wrong)
    for group in groups:
        if not isinstance(group, dict) or not _all_are(int, group.get("params")):
            raise TriptychError(wrong)
        if not _all_are(str, group.get("param_names", [])):
            raise TriptychError(wrong)
    return state, groups


def _names(path: Path, groups: list[dict[str, Any]], names: list[str]) -> dict[int, str]:
    """The parameter's name by its number. Several groups count their parameters one behind the other, so that only
    their own names tell."""
    numbers = [number for group in groups for number in group["params"]]
    named = [name for group in groups for name in group.get("param_names", ())]
    if len(named) == len(numbers):
        unknown = [name for name in named if name not in names]
        if unknown:
            raise TriptychError(f"{path} is of another network: it has a parameter '{unknown[0]}'")
        return dict(zip(numbers, named, strict=True))
    if len(groups) > 1:
        raise TriptychError(
            f"{path} has {len(groups)} groups of parameters without names; make the optimizer of "
            "module.named_parameters() (PyTorch 2.6), or with one group"
        )
    if len(numbers) != len(names):
        raise TriptychError(f"{path} is of {len(numbers)} parameters, the network has {len(names)}")
    return dict(zip(numbers, names, strict=True))


def _all_are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _steps(path: Path, value: Any) -> int:
    number = _as_number(value)
    if not 0 <= number < 2**53:
        raise TriptychError(f"{path} does not say after how many steps it is")
    return int(number)


def _kind(path: Path, group: Mapping[str, Any]) -> str:
    """By the options that PyTorch always writes: RAdam, too, has betas, and RMSprop a momentum."""
    if "betas" in group and "amsgrad" in group:
        return "adamw" if group.get("decoupled_weight_decay") else "adam"
    if "dampening" in group:
        return "sgd"
    raise TriptychError(f"{path} is of another optimizer than PyTorch's SGD, Adam and AdamW")


def _settings(path: Path, groups: list[dict[str, Any]]) -> dict[str, float | bool | str]:
    for group in groups:
        for name, plain in _PLAIN.items():
            if group.get(name, plain) != plain:
                raise TriptychError(f"{path}: {name} is {group[name]}, which no optimizer here has")
    group = max(groups, key=lambda one: _as_number(one.get("weight_decay", 0)))
    known: dict[str, float | bool | str] = {}
    known |= {ours: group[name] for name, ours in _SETTINGS.items() if isinstance(group.get(name), int | float)}
    if not known.get("nesterov", True):
        del known["nesterov"]
    betas = group.get("betas")
    if isinstance(betas, tuple | list) and len(betas) == 2:
        known |= {"beta1": _as_number(betas[0]), "beta2": _as_number(betas[1])}
    return known


def _by_path(
    groups: list[dict[str, Any]], option: str, by_index: Mapping[int, str], paths: Mapping[str, str]
) -> dict[str, float]:
    """What the groups say of an option, for each parameter."""
    numbered = ((number, _as_number(group.get(option, 0))) for group in groups for number in group["params"])
    return {paths[by_index[number]]: value for number, value in numbered}


def _as_number(value: Any) -> float:
    array = np.asarray(value)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiub" else math.nan
