"""The way back to MXNet: a symbol's own parameter file, and the states that its `gluon.Trainer` loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers.mxnet_back import Back
from triptych.optim.multipliers import factors_of, text_of
from triptych.optim.optimizers import COUNT, SGD, Adam, Optimizer, float32, rates_of
from triptych.spec import analysis
from triptych.utils.errors import TriptychError
from triptych.utils.files import write_atomically
from triptych.weights.formats import mxnet_params
from triptych.weights.formats.inert_pickle import Call, Name
from triptych.weights.formats.pickle_writer import dumps

Arrays = Mapping[str, NDArray[Any]]


def write(path: Path, back: Back, parameters: Arrays, optimizer: Optimizer, state: Arrays, rate: float) -> str:
    """Write the parameters (`path` with `.params`) and the states (`path`); returns what loads them. Raises
    TriptychError for an optimiser that MXNet does not have, for a name by which the weights would be written over those
    that they began from, and as `Back.arrays` does."""
    kind, options, slots = _kind(optimizer)
    weights = path.with_suffix(".params")
    if back.params is not None and weights.exists() and weights.samefile(back.params):
        raise TriptychError(f"'{path}' would write the weights over {back.params}; give it another name or folder")
    own = back.file(parameters)
    trained = [info.path for info in analysis.parameters(back.architecture) if info.trained]
    held: dict[str, float] = dict.fromkeys(trained, 1.0)
    if kind != "Adam":  # MXNet's velocity holds the learning rate, with the sign of a step
        held = {one: -float32(rate * factor) for one, factor in rates_of(optimizer, back.architecture).items()}
    remembered = [
        back.arrays({one: state[f"{slot}.{one}"] * held[one] for one in trained if f"{slot}.{one}" in state})
        for slot in slots
    ]
    numbers = {name: number for number, name in enumerate(sorted(name.partition(":")[2] for name in own))}
    by_index: dict[int, Any] = {}
    for name in sorted(remembered[0] if remembered else ()):
        values = tuple(_array(arrays[name]) for arrays in remembered)
        by_index[numbers[name]] = values if len(slots) > 1 else values[0]
    counts = dict.fromkeys(by_index, int(state.get(COUNT, 0)))
    made = Call(Name("mxnet.optimizer.optimizer", kind), (), _fields(optimizer, options, rate, counts))
    mxnet_params.write(weights, own)
    write_atomically(path, dumps((by_index, made)))
    return _told(path, weights, back, optimizer)


def _kind(optimizer: Optimizer) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """MXNet's class, its own fields, and the slots in its order."""
    if type(optimizer) is SGD:
        if optimizer.nesterov and optimizer.weight_decay:
            raise TriptychError(
                "MXNet's NAG decays by the weight that it has moved already: with --nesterov and "
                "--weight-decay its next step would be another"
            )
        lazy = {} if optimizer.nesterov else {"lazy_update": True}
        slots = ("velocity",) if optimizer.momentum else ()
        return "NAG" if optimizer.nesterov else "SGD", {"momentum": optimizer.momentum, **lazy}, slots
    if type(optimizer) is Adam:
        own = {"beta1": optimizer.beta1, "beta2": optimizer.beta2, "epsilon": optimizer.eps, "lazy_update": True}
        return "Adam", own, ("mean", "variance")
    raise TriptychError(f"MXNet 1.9 has no trainer for {optimizer.name}; the states of sgd and adam go back to it")


def _array(value: NDArray[Any]) -> Call:
    handle = {"handle": bytearray(mxnet_params.record(value))}
    return Call(Name("mxnet.ndarray.ndarray", "NDArray"), (None,), handle)


def _fields(optimizer: Optimizer, own: Mapping[str, Any], rate: float, counts: dict[int, int]) -> dict[str, Any]:
    """The attributes of an optimizer of MXNet 1.9.1 (python/mxnet/optimizer/optimizer.py), less its parameters."""
    steps = max(counts.values(), default=0)
    return {
        "rescale_grad": 1.0,
        "lr_scheduler": None,
        "lr": rate,
        "wd": optimizer.weight_decay,
        "lr_mult": {},
        "wd_mult": {},
        "begin_num_update": 0,
        "num_update": steps,
        "_all_index_update_counts": {0: counts},
        "_index_update_count": counts,
        "clip_gradient": None,
        "multi_precision": False,
        "aggregate_num": 4 if type(optimizer) is SGD and not optimizer.nesterov else 0,
        "idx2name": {},
        "sym_info": (),
        "allow_np_array": False,
        **own,
    }


def _told(path: Path, weights: Path, back: Back, optimizer: Optimizer) -> str:
    """What loads the two files; a rate and a decay of its own are attributes of MXNet's parameters, and of no file."""
    lines = f"net.collect_params().load('{weights.name}'), gluon.Trainer.load_states('{path.name}')"
    if optimizer.multipliers:
        factors = text_of(factors_of(optimizer.multipliers, back.architecture))
        lines += f"; set lr_mult (rate) and wd_mult (decay) before: {factors}"
    if optimizer.weight_decay and optimizer.decayed == "weights":
        lines += "; set wd_mult = 0 of every bias, gamma and beta before"
    return lines
