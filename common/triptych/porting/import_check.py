"""Whether an import computes what its source computes: that runs in its own framework on a few drawn images, beside
the float64 reference of the spec, before anything is judged by the spec.

A network's own weights may all be ones and zeros, on which most faults hide. So it is given drawn ones, imported again,
and compared in evaluation and in training. Its own are compared where they make another architecture, and those of a
file always.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy.special import softmax

from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.conformance.compare import STRANGERS, Check, message
from triptych.importers.steps import EVALUATION_ALONE, FOR_TRAINING, Imported, ImportRefusedError, Request
from triptych.porting import discover
from triptych.porting.import_reference import ImportReference
from triptych.porting.onnx_session import OnnxSession
from triptych.porting.search_size import search_size
from triptych.porting.source_network import adapter_of, opened
from triptych.porting.strangers import is_rounding, softmax_at_the_end
from triptych.porting.subject import LOW, RUNNING, SOFTMAX, are_shares
from triptych.spec.analysis import parameters, totals
from triptych.spec.footprint import check_judged
from triptych.spec.layers import Architecture, BatchNorm, outputs, walk
from triptych.utils import stderr
from triptych.utils.arrays import Array, Arrays, largest_difference
from triptych.utils.errors import TriptychError
from triptych.utils.process import memory_is_short, return_large_memory
from triptych.utils.randomness import generator
from triptych.utils.shelf import Computed, Shelf

IMAGES = 2  # one would be taken for another axis of one, and is too few for a batch norm in training
LARGE = 5_000_000_000  # multiply-accumulates, where evaluation is of one image, and training of batch norms alone
MOST = 999_983  # values that are drawn of an array, a prime: all others repeat them
FREEDOM = 2  # degrees of it in Student's t: the tail of the second image is heavy
MODES = {False: "evaluation", True: "training"}
LAYOUTS = (None, "NCHW")  # of images: the framework's own, and where that fails


class WrongImportError(ImportRefusedError):
    """An import does not compute what its source computes."""


@dataclass(frozen=True, eq=False)
class Origin:
    """What a spec was imported from: how messages call it; the framework that runs it; what makes it, to be watched, in
    a precision, for images laid out in some way and so many outputs; whether it has a training mode; and whether its
    own weights count more than drawn ones, as those of a file do."""

    name: str
    framework: str
    start: Callable[[str, str | None, int], Any]
    trains: bool = True
    is_file: bool = False
    precision: str = "fp64"  # the sharpest in which it runs


def of_candidate(imported: Imported, name: str, candidate: Any, request: Request) -> Imported:
    """The import of somebody's own module or block, which stays as it is, once it is seen to compute the same. Raises
    WrongImportError where it does not."""
    adapted = discover.find_adapter(candidate)
    assert adapted is not None
    backend, adapter = adapted

    def start(precision: str, layout: str | None, count: int) -> Any:
        return adapter.Port(_copied(candidate), layout, exact(precision), count)

    return _compared(imported, request, Origin(name, backend, start))


def of_file(imported: Imported, path: Path, weights: Path | None, request: Request) -> Imported:
    """The import of a file, once it is seen to compute what the file does, where something here runs that. Raises
    WrongImportError where it does not."""
    if path.suffix == ".onnx":
        started = partial(OnnxSession, path, request.outputs)
        origin = Origin(path.name, "onnxruntime", lambda *_: started(), False, is_file=True, precision="fp32")
        return _compared(imported, request, origin)
    try:
        source = opened(path, weights, training=False)
    except TriptychError as error:
        return _unseen(imported, path.name, str(error))
    adapter = adapter_of(source.backend)

    def start(precision: str, layout: str | None, count: int) -> Any:
        return adapter.Port(source.make(), layout, exact(precision), count)

    return _compared(imported, request, Origin(path.name, source.backend, start, adapter.FILES_TRAIN, is_file=True))


def drawn_images(architecture: Architecture) -> Array:
    """An image of normal values, and one with a heavy tail."""
    random = generator(0, "import", "images")
    pair = random.standard_normal(architecture.input), random.standard_t(FREEDOM, architecture.input)
    return np.stack(pair).astype(np.float32)


def drawn_values(values: Arrays) -> Arrays:
    """Others by the same names: those of which none is negative stay so, as a variance must."""
    return Computed(values, lambda name: _drawn(name, values[name]))


def _drawn(name: str, value: Array) -> Array:
    some = generator(0, "import", name).random(min(value.size, MOST), np.float32)
    draw = np.resize(some, value.shape)
    if (value >= 0).all() and value.any():
        return (value * (draw * 1.4 + 0.1)).astype(np.float32)
    return (value + (float(value.ravel()[:MOST].std()) or 0.1) * (draw - 0.5)).astype(np.float32)


def _copied(candidate: Any) -> Any:
    """What may be changed; the object itself where it cannot be copied, as the port puts everything back."""
    try:
        return copy.deepcopy(candidate)
    except Exception:
        return candidate


def _unseen(imported: Imported, name: str, reason: str) -> Imported:
    """With a line that says that nothing was compared, and why."""
    return replace(imported, remarks=(*imported.remarks, f"the import was not compared with {name} itself: {reason}"))


def _let_go(ports: list[Any]) -> None:
    """Of networks that have run, which are as they were given again: two of them are twice the memory."""
    while ports:
        ports.pop().restore()
    gc.collect()  # blocks and their scopes refer to each other
    if memory_is_short():
        return_large_memory()


def _compared(imported: Imported, request: Request, origin: Origin) -> Imported:
    framework = registry.load(origin.framework) if origin.framework in registry.BACKENDS else None
    ports: list[Any] = []
    try:
        with stderr.silenced(), framework.precise() if framework else nullcontext():
            remarks = _Comparison(imported, request, origin, ports).remarks()
    except WrongImportError:
        raise
    except STRANGERS as error:
        return _unseen(imported, origin.name, str(error) if isinstance(error, TriptychError) else message(error))
    finally:
        _let_go(ports)
    return replace(imported, remarks=(*imported.remarks, *remarks))


@dataclass(eq=False)
class _Subject:
    """An import and the network that it is of, with the `values` by its own names that were drawn for it, if any."""

    imported: Imported
    port: Any
    values: Arrays

    def statistics(self, ran: Any) -> dict[str, Array]:
        """Those of the batch norms after a pass, which are found by the drawn values that they had."""
        marks = {self.values[n].astype(np.float64).tobytes(): n for n in ran.statistics if n in self.values}
        before = {p: v for p, v in (self.imported.parameters or {}).items() if p.rpartition(".")[2] in RUNNING}
        names = {path: marks.get(np.asarray(value, np.float64).tobytes()) for path, value in before.items()}
        return {path: ran.statistics[name] for path, name in names.items() if name is not None}


@dataclass(eq=False)
class _Comparison:
    """Of an import with what it was made of. `ports`: what was started of it."""

    imported: Imported
    request: Request
    origin: Origin
    ports: list[Any]

    def __post_init__(self) -> None:
        """Raises TriptychError for more than the memory that is here."""
        check_judged(self.imported.architecture, IMAGES)
        self.precision = self.origin.precision
        architecture, remarks = self.imported.architecture, self.imported.remarks
        images, large = drawn_images(architecture), totals(architecture).macs > LARGE
        self.images = {True: images, False: images[-1:] if large else images}
        self.softmax = softmax_at_the_end(remarks)
        norms = any(isinstance(layer, BatchNorm) for _, layer in walk(architecture.layers))
        trains = self.origin.trains and not any(EVALUATION_ALONE in line for line in remarks)
        self.modes = (False, True) if trains and (norms or not large) else (False,)
        if any(FOR_TRAINING in line for line in remarks):
            self.modes = (True,)

    def remarks(self) -> list[str]:
        """What could not be compared, or not in float64. Raises WrongImportError for a difference."""
        drawn = self.again()
        found = [] if drawn is None else [self.judged(drawn, train) for train in self.modes]
        same = drawn is not None and drawn.imported.architecture.layers == self.imported.architecture.layers
        whole = self.imported.parameters is not None or not parameters(self.imported.architecture)
        if whole and (self.origin.is_file or not same):
            modes = self.modes if drawn is None else self.modes[:1]
            drawn = None
            _let_go(self.ports)  # of what could not be copied, the values are still the drawn ones
            own = _Subject(self.imported, self.started({}), {})
            self.forget(own.port)
            found += [self.judged(own, train) for train in modes]
        return list(dict.fromkeys(filter(None, found)))

    def again(self) -> _Subject | None:
        """The network with drawn weights, imported again; None where that cannot be had."""
        try:
            port = self.started({})
        except STRANGERS:
            self.precision = "fp32"  # a constant of its code may be of that type
            port = self.started({})
        try:
            values = Shelf(drawn_values(port.values()))
            self.forget(port)
            port.load(values)
            imported = port.imported(self.request)
            return _Subject(replace(imported, parameters=cast(Any, Shelf(imported.parameters or {}))), port, values)
        except TriptychError:
            return None

    def forget(self, port: Any) -> None:
        """What it was given with, where nobody wants that back: a file's network is made anew."""
        if self.origin.is_file and not isinstance(port, OnnxSession):
            port.forget()

    def started(self, values: Arrays) -> Any:
        """The network with these values, where there are any, ready to run."""
        failed: list[BaseException] = []
        for layout in LAYOUTS:
            try:
                port = self.origin.start(self.precision, layout, len(outputs(self.imported.architecture)))
                port.parameters(self.images[False])
                self.ports.append(port)
                port.load(values)
                return port
            except STRANGERS as error:
                failed.append(error)
        raise failed[0]

    def judged(self, subject: _Subject, train: bool) -> str:
        """What could not be compared in one mode. Raises WrongImportError for a difference."""
        if train and self.agrees_on_small_images(subject):
            return ""
        images = self.images[train]
        if train and isinstance(subject.port, OnnxSession) and subject.port.batch:  # whose statistics are of so many
            images = np.resize(images, (subject.port.batch, *images.shape[1:]))
        reference = ImportReference(subject.imported, images, train)
        check, precision = self.sharpest(subject, reference)
        if check.passed:
            sharp = precision == self.origin.precision
            return "" if sharp else f"the import was compared as far as {precision} rounds"
        if why := check.problem * ("finite" in check.problem) or self.wavering(subject, reference):
            return f"the import was not compared in {MODES[train]}: {why}"
        differs = f"{check.tensor} {check.text}{reference.where(subject.port)}"
        raise WrongImportError(
            f"the import does not compute what {self.origin.name} computes in {MODES[train]}: {differs}; this is a "
            "fault of triptych, please report it"
        )

    def agrees_on_small_images(self, subject: _Subject) -> bool:
        """Whether it is seen to agree in training on fewer pixels, where every window ends as on its own: a pass with
        all its maps takes a tenth of the memory there. What does not, or does not run on them, is judged on its own."""
        small = replace(subject.imported, architecture=search_size(subject.imported.architecture))
        if small.architecture == subject.imported.architecture or self.precision != self.origin.precision:
            return False
        reference = ImportReference(small, drawn_images(small.architecture), True)
        try:
            return reference.nearest(self.observed(subject, reference), self.precision).passed
        except STRANGERS:
            return False

    def sharpest(self, subject: _Subject, reference: ImportReference) -> tuple[Check, str]:
        """The check in float64; in the precision that is seen where the network does not compute in that throughout."""
        low = ""
        if self.precision == "fp64":
            try:
                check = reference.nearest(self.observed(subject, reference), "fp64")
            except STRANGERS:
                check = None
            if check is not None:
                low = "" if check.passed else self.low(subject.port, reference)
                if check.passed or not (low or is_rounding(check)):
                    return check, "fp64"
            self.precision = "fp32"
            subject.port = self.started(subject.values)
        precision = self.low(subject.port, reference) or low or "fp32"
        return reference.nearest(self.observed(subject, reference), precision), precision

    def wavering(self, subject: _Subject, reference: ImportReference) -> str:
        """Says that the network does not compute the same twice, if so."""
        first, second = (self.observed(subject, reference) for _ in range(2))
        same = all(np.array_equal(second[name], value) for name, value in first.items())
        return "" if same else "what comes out is drawn, or changes from call to call"

    def low(self, port: Any, reference: ImportReference) -> str:
        """The precision of fewest bits that it is seen to compute in, below float64."""
        captured = port.run(reference.images, train=reference.train).captured
        types = {each.kept_as or each.value.dtype.name for each in captured}
        return next((LOW[name] for name in reversed(LOW) if name in types), "")

    def observed(self, subject: _Subject, reference: ImportReference) -> dict[str, Array]:
        """Its outputs, as the spec has them, and in training its running statistics."""
        names, train, port = outputs(reference.architecture), reference.train, subject.port
        ran = port.run(reference.images, train=train) if train or self.request.outputs else None
        made = port.call(reference.images) if ran is None else ran.outputs
        if self.request.outputs and ran is not None:
            made = tuple(_nearest_of([each.value for each in ran.captured], reference.exact[name]) for name in names)
        found = {name: _in_order(value, reference.exact[name]) for name, value in zip(names, made, strict=True)}
        reference.ends = {n: self.softmax for n, value in found.items() if are_shares(value, self.softmax)}
        if self.request.keep_softmax:  # a loss's is taken off by the port
            lost = {n for n, value in found.items() if are_shares(reference.exact[n], SOFTMAX)}
            found |= {n: softmax(found[n], axis=1) for n in lost if not are_shares(found[n], SOFTMAX)}
        return found | (subject.statistics(ran) if train else {})


def _in_order(value: Array, expected: Array) -> Array:
    """A map as the spec has it: the code of a channels-last framework may put it out in either order."""
    other = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
    return (
        _nearest_of([value, other], expected)
        if value.shape == other.shape == expected.shape
        else (other if other.shape == expected.shape else value)
    )


def _nearest_of(values: list[Array], expected: Array) -> Array:
    """The one that differs least, of those that have as many values."""
    alike = [value.reshape(expected.shape) for value in values if value.size == expected.size]
    return min(alike, key=lambda value: largest_difference(value, expected), default=np.zeros(0))
