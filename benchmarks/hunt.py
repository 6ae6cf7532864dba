"""Random networks, judged on every installed framework with gradients and two training steps, to find what is wrong in
a framework or in this project; what fails is reduced and written as JSON.

python benchmarks/hunt.py --minutes 10 --seed 0 [--backend torch,mxnet,jax] [--folder FOLDER] [--bare]

Every backend works in a process of its own with a time limit for each network, because a framework may end its process;
that is a finding like any other. `--bare` takes the frameworks' own layers where a backend has a detour around a known
bug (`BARE`): what is found then is known, and shows what a hunt is able to find. Expect some
6 networks a minute on a busy machine with two cores, and no finding from an unchanged project.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import hunt_grammar
import hunt_reduce

from triptych.backend import registry
from triptych.spec import layers as spec
from triptych.spec.layers import Architecture
from triptych.spec.records import decode, encode, write

REDUCING = 60.0  # seconds at most for one finding
LIMIT = 120.0  # seconds for one network on one backend: JAX compiles
FRESH = 60  # networks after which a process is replaced: what is compiled stays in memory
BATCHES = (2, 4, 5)
UNSEEN = "would hide a fault"  # what the reference says of a network on whose case nothing can be judged
SKIPPED = ("data", "update")  # levels that no layer decides, but for the update by momentum: two steps of the trainer


@dataclass(frozen=True)
class Discovery:
    """Why a network does not conform on one backend."""

    backend: str
    precision: str
    level: str
    tensor: str
    text: str

    @property
    def kind(self) -> tuple[str, str, str]:
        """What a reduced network must have in common with it, or one backend with another: not the array, nor how far
        it is off, nor the numbers in a message."""
        text = "differs" if self.text.startswith("differs") else re.sub(r"\d+", "0", self.text)
        return self.precision, self.level, text


def judge(backend: str, bare: bool, value: dict[str, Any], seed: int, batch: int) -> Discovery | None:
    """The first level at which a backend fails, float64 before float32; None if it conforms. A network on which no
    fault could be seen is not judged: its level is `UNSEEN`."""
    from triptych.conformance.case import make_case
    from triptych.conformance.conform import PRECISIONS, conform
    from triptych.conformance.levels import LEVELS
    from triptych.conformance.reference_run import ReferenceRun

    loaded = registry.load(backend)
    if bare:
        use_own_layers(backend)
    run = ReferenceRun(make_case(decode(value, Architecture), seed, batch))
    levels = [level for level in LEVELS if level.name not in SKIPPED or level.optimizer == "momentum"]
    for precision in PRECISIONS:
        try:
            report = conform(loaded, run, precision, levels=levels)
        except ValueError as error:
            if UNSEEN not in str(error):
                raise
            return Discovery(backend, "", UNSEEN, "", str(error))
        if report.failures:
            first = report.failures[0]
            return Discovery(backend, precision, first.level, first.tensor, first.text)
    return None


def _torch_layers() -> dict[type, Any]:
    from torch import nn

    def hard_sigmoid(layer: spec.HardSigmoid, shape: spec.Shape) -> Any:
        own = (layer.slope, layer.offset) == (1 / 6, 0.5)
        return nn.Hardsigmoid() if own else import_module("triptych_torch.functions").HardSigmoid(*_line(layer))

    def conv(layer: spec.Conv, shape: spec.Shape) -> Any:
        window = (layer.kernel, layer.stride, layer.padding, layer.dilation)
        return nn.Conv2d(shape[0], layer.channels, *window, layer.groups, layer.bias)

    return {spec.HardSigmoid: hard_sigmoid, spec.Conv: conv}


def _line(layer: spec.HardSigmoid) -> tuple[float, float]:
    return layer.slope, layer.offset


def _mxnet_layers() -> dict[type, Any]:
    from mxnet.gluon import nn

    layers = import_module("triptych_mxnet.layers")

    def avg_pool(layer: spec.AvgPool, shape: spec.Shape) -> Any:
        return nn.AvgPool2D(
            layer.kernel, layer.stride, layer.padding, layer.ceil, count_include_pad=layer.count_padding
        )

    return {
        spec.ConvTranspose: lambda layer, shape: nn.Conv2DTranspose(**layers._transposed(layer, shape)),
        spec.AvgPool: avg_pool,
        spec.PReLU: lambda layer, shape: nn.PReLU(in_channels=1 if layer.shared else shape[0]),
    }


BARE: dict[str, Callable[[], dict[type, Any]]] = {"torch": _torch_layers, "mxnet": _mxnet_layers}


def use_own_layers(backend: str) -> None:
    """Take a framework's own layers from now on, in this process."""
    if backend in BARE:
        import_module(f"triptych_{backend}.layers").LAYERS.update(BARE[backend]())


class JudgeProcess:
    """A process that answers questions with `function`; it is started when it is asked and replaced when it ends."""

    def __init__(self, function: Callable[..., Any], limit: float = LIMIT) -> None:
        self.function = function
        self.limit = limit
        self.process: Any = None
        self.answered = 0

    def ask(self, *arguments: Any) -> tuple[Any, str]:
        """The answer, and nothing; or None, and how the process ended."""
        text = f"no answer after {self.limit:.0f} s"
        with suppress(EOFError, OSError):
            if self.process is None:
                self._start()
            self.pipe.send(arguments)
            if self.pipe.poll(self.limit):
                answer, text = self.pipe.recv()
                self.answered += 1
                if not text and self.answered < FRESH:
                    return answer, ""
                self.end()
                return answer, text
            self.end()
            return None, text
        self.process.join()
        text = ending(self.process.exitcode)
        self.end()
        return None, text

    def _start(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=answer, args=(theirs, self.function), daemon=True)
        self.process.start()
        theirs.close()
        self.answered = 0
        self.pipe.recv()  # it has started: that does not count

    def end(self) -> None:
        """Stop the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process = None


def answer(pipe: Any, function: Callable[..., Any]) -> None:
    """The life of a worker, until nobody asks any more: what a question raises is an answer, too."""
    with suppress(EOFError, OSError):
        pipe.send("ready")
        while True:
            arguments = pipe.recv()
            try:
                given = function(*arguments), ""
            except Exception as error:
                given = None, f"{type(error).__name__}: {error}"
            pipe.send(given)


def ending(code: int) -> str:
    """How a process ended, in words."""
    return f"the process ended by {signal.Signals(-code).name}" if code < 0 else f"the process ended with {code}"


def ask(
    worker: JudgeProcess, backend: str, bare: bool, architecture: Architecture, seed: int, batch: int
) -> Discovery | None:
    """The finding of one network on one backend; a process that ends, or takes too long, is one."""
    finding, text = worker.ask(backend, bare, encode(architecture), seed, batch)
    return Discovery(backend, "", "(run)", "", text) if text else finding


def hunt(names: list[str], folder: Path, seed: int, minutes: float, bare: bool) -> int:
    """Draw and judge until the time is over; the number of findings. What several backends have in common is one: it is
    reduced on the first of them."""
    end = monotonic() + 60 * minutes
    workers = {name: JudgeProcess(judge) for name in names}
    number = unseen = findings = 0
    while monotonic() < end:
        random = Random(f"{seed} {number}")
        drawn, batch = hunt_grammar.draw(random), random.choice(BATCHES)
        found = {name: ask(worker, name, bare, drawn, seed, batch) for name, worker in workers.items()}
        number += 1
        if any(finding and finding.level == UNSEEN for finding in found.values()):
            unseen += 1
            continue
        for kind in dict.fromkeys(finding.kind for finding in found.values() if finding):
            alike = [finding for finding in found.values() if finding and finding.kind == kind]
            ask_first = partial(ask, workers[alike[0].backend], alike[0].backend, bare, seed=seed, batch=batch)
            reduced = reduce_by(drawn, kind, ask_first)
            findings += 1
            keep(folder / f"{seed}-{number - 1}-{alike[0].backend}.json", alike, reduced, drawn, seed=seed, batch=batch)
        if number % 20 == 0:
            print(f"{number} networks", flush=True)
    for worker in workers.values():
        worker.end()
    judged = f"{number - unseen} networks judged on {', '.join(names)}, {unseen} not ({UNSEEN}), seed {seed}"
    print(f"{judged}: {findings} findings", flush=True)
    return findings


Ask = Callable[[Architecture], Discovery | None]


def reduce_by(
    drawn: Architecture, kind: tuple[str, ...], ask: Callable[[Architecture], Discovery | None]
) -> Architecture:
    """The smallest network with a finding of this kind that is found in `REDUCING` seconds."""
    end = monotonic() + REDUCING

    def fails(smaller: Architecture) -> bool:
        finding = ask(smaller) if monotonic() < end else None
        return finding is not None and finding.kind == kind

    return hunt_reduce.reduce(drawn, fails)


def keep(file: Path, alike: list[Discovery], reduced: Architecture, drawn: Architecture, **how: int) -> None:
    """Write a finding, and print it."""
    record = {**how, "findings": alike, "reduced": reduced, "drawn": drawn}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(write(record))
    for finding in alike:
        where = f"{finding.backend} {finding.precision} {finding.level} {finding.tensor}"
        print(f"{file.stem} {where}: {finding.text}", flush=True)
    print(f"    {reduced.input} {reduced.layers}", flush=True)


def main(arguments: list[str]) -> int:
    """Exit status 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default=",".join(registry.installed()))
    parser.add_argument("--folder", type=Path, default=Path("findings"))
    parser.add_argument("--bare", action="store_true")
    given = parser.parse_args(arguments)
    return 1 if hunt(given.backend.split(","), given.folder, given.seed, given.minutes, given.bare) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
