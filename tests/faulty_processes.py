"""One of several processes, which make mistakes that people make: `python faulty_processes.py TASK`, a run for each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from triptych.backend import registry
from triptych.backend.group import Group, Share
from triptych.conformance import processes
from triptych.conformance.processes import Assignment
from triptych.data.batches import Batch
from triptych.optim.optimizers import SGD
from triptych.spec import records
from triptych.training.distributed.membership import one_of

weight: Any = Share.__dict__["weight"].fget
cut = processes.cut
rates = SGD.rates
Fault = Callable[[Group], AbstractContextManager[Any]]


def weighed(change: Callable[[Share], float]) -> Fault:
    return lambda group: patch.object(Share, "weight", property(change))


def cut_otherwise(change: Callable[[Batch, tuple[Share, ...], Group], tuple[Batch, tuple[Share, ...]]]) -> Fault:
    def wrong(plan: Any, group: Group, accumulate: int) -> Any:
        whole = zip(plan, cut(plan, group, accumulate), strict=True)
        return [change(batch, shares, group) if group.size > 1 else (mine, shares) for batch, (mine, shares) in whole]

    return lambda group: patch.object(processes, "cut", wrong)


def same_images(batch: Batch, shares: tuple[Share, ...], group: Group) -> tuple[Batch, tuple[Share, ...]]:
    (share,) = shares
    first = np.arange(len(share))
    return batch.part(first), shares


def dropped_tail(batch: Batch, shares: tuple[Share, ...], group: Group) -> tuple[Batch, tuple[Share, ...]]:
    (share,) = shares
    short = replace(share, end=share.end - 1) if group.rank and len(share) > 1 else share
    return batch.part(np.arange(short.begin, short.end)), (short,)


def faster(factor: float) -> Fault:
    return lambda group: patch.object(SGD, "rates", lambda self, rate, momentum: rates(self, rate * factor, momentum))


def batch_without_tail(batch: Batch, shares: tuple[Share, ...], group: Group) -> tuple[Batch, tuple[Share, ...]]:
    """What is left of a batch when it is cut into equal parts."""
    (share,) = group.shares(len(batch) // group.size * group.size)
    return batch.part(np.arange(share.begin, share.end)), (share,)


def other_start(group: Group) -> AbstractContextManager[Any]:
    made = processes.make_case

    def moved(architecture: Any, seed: int) -> Any:
        case = made(architecture, seed)
        return replace(case, parameters={k: v + np.float32(1e-3 * group.rank) for k, v in case.parameters.items()})

    return patch.object(processes, "make_case", moved)


def other_start_kept(group: Group) -> AbstractContextManager[Any]:
    """DistributedDataParallel would send the first one's to all; it is told not to."""
    from triptych_torch import training

    class Unsynchronised(training.DistributedDataParallel):
        def __init__(self, module: Any, **named: Any) -> None:
            super().__init__(module, init_sync=False, **named)

    both = patch.multiple("triptych_torch.training", DistributedDataParallel=Unsynchronised)
    return _all(both, other_start(group))


class _all(AbstractContextManager[None]):  # noqa: N801
    def __init__(self, *contexts: AbstractContextManager[Any]) -> None:
        self.contexts = contexts

    def __enter__(self) -> None:
        for context in self.contexts:
            context.__enter__()

    def __exit__(self, *error: object) -> None:
        for context in reversed(self.contexts):
            context.__exit__(None, None, None)


def same_masks(group: Group) -> AbstractContextManager[Any]:
    """Every process takes the first's part of the masks."""
    networks = import_module(f"triptych_{BACKEND}.model").Network
    taking = networks.taking

    def first(self: Any, share: Share, synchronised: bool) -> Any:
        return taking(self, replace(share, begin=share.first, end=share.first + len(share)), synchronised)

    return patch.object(networks, "taking", first)


def same_masks_on_a_mesh(group: Group) -> AbstractContextManager[Any]:
    from triptych_jax import shared

    return patch.object(shared.lax, "axis_index", lambda axis: np.int32(0))


def other_masks(group: Group) -> AbstractContextManager[Any]:
    """Every process seeds its own."""
    training = import_module(f"triptych_{BACKEND}.training")
    seeded = training.derive_seed
    return patch.object(training, "derive_seed", lambda *purpose: seeded(*purpose, group.rank))


def local_batch_norm(group: Group) -> AbstractContextManager[Any]:
    backend = registry.load(BACKEND)
    return patch.object(backend, "Trainer", partial(backend.Trainer, synchronised=False))


def summed_on_a_mesh(group: Group) -> AbstractContextManager[Any]:
    from triptych_jax import shared

    total = shared._total

    def summed(values: Any, mesh: Any) -> Any:
        figures, gradients, moved = total(values, mesh)
        return figures, {path: group.size * value for path, value in gradients.items()}, moved

    return patch.object(shared, "_total", summed)


def added_though_all_have_it(group: Group) -> AbstractContextManager[Any]:
    """A batch that all have whole counts as often as there are processes."""
    from triptych_jax import compiled

    made = compiled.pass_function

    def added(definition: Any, smoothing: float, spread: Any = None) -> Any:
        run = made(definition, smoothing, spread)
        if spread is not None:
            return run

        def often(*given: Any) -> Any:
            passed = run(*given)
            gradients = {path: group.size * value for path, value in passed.gradients.items()}
            return passed._replace(gradients=gradients)

        return often

    return patch.object(compiled, "pass_function", added)


FAULTS: dict[str, Fault] = {
    "none": lambda group: nullcontext(),
    "gradients summed, not averaged": weighed(lambda share: 2 * weight(share)),
    "an uneven last batch weighed as an even one": weighed(lambda share: 0.5),
    "all see the same images": cut_otherwise(same_images),
    "one drops its tail": cut_otherwise(dropped_tail),
    "the same dropout masks everywhere": same_masks,
    "dropout seeded by rank": other_masks,
    "batch norm local": local_batch_norm,
    "another start": other_start,
    "the learning rate scaled": faster(2),
    "the learning rate scaled twice": faster(4),
    "the learning rate divided": faster(0.5),
}
# where a framework makes the same mistake by another way
OWN: dict[str, dict[str, Fault]] = {
    "torch": {"another start": other_start_kept},
    "mxnet": {"one drops its tail": cut_otherwise(batch_without_tail)},
    "jax": {
        "gradients summed, not averaged": summed_on_a_mesh,
        "an uneven last batch weighed as an even one": added_though_all_have_it,
        "one drops its tail": cut_otherwise(batch_without_tail),
        "the same dropout masks everywhere": same_masks_on_a_mesh,
    },
}
BACKEND = ""  # whose processes these are


# What JAX meets when it traces a function, and not when it calls one.
TRACED = summed_on_a_mesh, added_though_all_have_it, same_masks_on_a_mesh


def forget_compiled() -> None:
    """What JAX has compiled without a fault does not have it."""
    from triptych_jax import compiled

    for made in (compiled.compile_pass, compiled.compile_step):
        made.cache_clear()


def main(file: Path) -> None:
    global BACKEND
    task = records.decode(json.loads(file.read_text()), Assignment)
    BACKEND = task.backend
    backend = registry.load(task.backend)
    group = backend.join("cpu", 1)
    with one_of(group):
        made = {}
        faults = FAULTS | OWN[task.backend]
        for name, fault in sorted(faults.items(), key=lambda item: item[1] in TRACED):
            if fault in TRACED:
                forget_compiled()
            with fault(group):
                made |= {f"{name}/{key}": value for key, value in processes.steps(backend, task, group).items()}
        if group.rank == 0:
            np.savez(file.with_name(processes.OUT), allow_pickle=False, **made)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
