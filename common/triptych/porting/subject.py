"""Somebody's network as a subject of the search: its parameters paired, given the spec's values, and what it runs set
beside the layers of the spec."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy.special import log_softmax, softmax

from triptych.backend.contract import Backend, Port, PortParameter, PortRun, TrainablePort
from triptych.conformance import levels, locate
from triptych.conformance.case import Case
from triptych.conformance.compare import STRANGERS, Arrays, message, problem
from triptych.conformance.diagnosis import causes
from triptych.conformance.diagnosis.explain import Difference, SubjectFailedError
from triptych.conformance.diagnosis.layer_faults import channels_first, channels_last
from triptych.conformance.diagnosis.value_faults import OTHER_ACTIVATIONS
from triptych.conformance.levels import Level
from triptych.conformance.locate import Located
from triptych.conformance.reference_run import INPUT, ReferenceRun, layer_of, maps_before_flatten, other_images
from triptych.conformance.subjects import ReferenceSubject, Subject
from triptych.conformance.tolerance import UNPERTURBED
from triptych.importers import layer_order
from triptych.porting import dropouts, own_images, own_loss, own_training, reach
from triptych.porting.align import Place, align, first_other_shape, places_of, role_of, turn_to_channels_first
from triptych.porting.dropouts import Described
from triptych.porting.pairing import matches, pair_network
from triptych.spec.kinds import kind_of
from triptych.spec.kinds.layer_pass import Conditions, exact
from triptych.spec.layers import BatchNorm, Shape
from triptych.utils.arrays import Array, largest, largest_difference
from triptych.utils.errors import TriptychError
from triptych.utils.shelf import Computed, select

RUNNING = ("running_mean", "running_var")
UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
LOW = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # by type, the precision that judges it
HOST = dict.fromkeys(("fp16", "bf16"), "fp32")  # what the rest of a network with layers of 16 bits runs in
SOFTMAX = "softmax"  # at a network's end, beside log_softmax, which hands a loss's gradient on as it is
NOWHERE = -9  # no place of a layer
ARRIVING = "gradient at the output of "
COPIES, SAME_COPY = 8, 1e-4  # of the images in one batch; of the largest value, whatever the precision
DROPOUT, STATISTICS, CALLED = "dropout", "statistics", "calls"
# Calls in evaluation, after all other levels: the images of each.
ONE, OTHERS, MANY, AGAIN = "(1 image)", "(3 images)", "(9 images)", "(again)"
CALLS = {"(2 images)": (0, 1), ONE: (0,), OTHERS: (0, 1, 0), MANY: (0, 1) * 4 + (0,), AGAIN: (0, 1)}


def calls_of(case: Case) -> dict[str, tuple[int, ...]]:
    """By the call's name, the images of the batches that a network is called with; none larger than the case's where
    memory is short."""
    return {call: images for call, images in CALLS.items() if call != MANY or not case.large}


class OwnNetwork(Subject):
    """Somebody's network; see `Subject`. Only those layers can be seen in it to which an operation corresponds."""

    def __init__(
        self,
        name: str,
        run: ReferenceRun,
        precision: str,
        backend: Backend | None,
        adapt: Callable[[], Port],
        mapping: Mapping[str, str],
        layout: str | None,
        softmax: str = "",
        rates: Mapping[str, float] | None = None,
        ignored: Sequence[str] = (),
        propose: Path | None = None,
    ) -> None:
        super().__init__(name, run, HOST.get(precision, precision))
        self.precision = precision
        self.backend = backend
        self.adapt = adapt
        self.layout = layout or "its default layout"
        self.softmax = softmax  # at its end, and left out
        self.mapping = mapping
        self.rates = rates or {}  # of the dropout that the spec has; in the case it is off
        self.ignored = ignored  # patterns of names, the network's own or the spec's
        self.maps = maps_before_flatten(run.case.architecture)
        self.propose = propose  # where a mapping to edit is written
        self.shapes: Mapping[str, Shape] = {}  # of its own arrays by path of the spec's, where they have another
        self.pairs: dict[str, str] = {}  # the network's own parameter by path of the spec's
        self.passes: dict[bool, PortRun] = {}  # of the values that are in the network, by mode
        self.aligned: dict[bool, dict[str, int]] = {}  # of these passes
        self.types: set[str] = set()  # that were seen to be computed in
        self.resizes, self.other_layout = True, ""  # of its own preparation of images
        self.permuted: dict[str, Shape] = {}  # dense layers whose columns were reordered, with the map's shape

    def failed(self, error: BaseException) -> None:
        """A network that does not run at all is no difference, but bad input."""
        if isinstance(error, TriptychError):
            raise error
        shape, said = self.run.case.images.shape, message(error)
        of_types = self.precision == "fp64" and re.search(r"dtype|float|double|half|precision", said, re.IGNORECASE)
        way_out = "; if it computes in less than float64 whatever it is given: locate's --precision fp32, fp16 or bf16"
        layer = self.port.raised_in(error)
        at = f" in its layer '{layer}'" if layer else ""
        text = f"'{self.name}' failed{at} on images {shape} as {self.layout}: {said}{way_out if of_types else ''}"
        raise NetworkFailedError(text, layer) from error

    def with_offer(self, located: Located) -> Located:
        """With what a layer was seen to compute in, where that is less than what is judged."""
        difference = located.difference
        if difference is None or difference.check.problem or self.precision not in ("fp64", "fp32"):
            return located
        low = next((name for name in reversed(LOW) if name in self.types - {self.images.dtype.name}), "")
        if not low:
            return located
        told = f"it computes in {low} somewhere: --precision {LOW[low]} judges it in that"
        note = "; ".join(filter(None, (difference.note, told)))
        cause, check = difference.cause, difference.check
        # One rounding of all that a layer is given, and of its result.
        small = (check.difference or 0.0) <= 4 * UNITS.get(low, 0.0) * check.scale
        if small and (not cause or causes.ROUNDED in cause):
            cause = f"it differs by no more than rounding to {low} would"
        return replace(located, difference=replace(difference, note=note, cause=cause))

    def parameter_shapes(self) -> Arrays:
        """Pair the network's parameters with the spec's, and give it the case's values: where that succeeds, every
        shape is the spec's. Raises SubjectFailedError for the first parameter without a partner."""
        self.port = self.adapt()
        self.layout = self.port.layout
        parameters = self.port.parameters(self.images)
        self.notes = (f"images given as {self.layout}; {len(parameters)} parameters",)
        parameters = self._with_outputs(parameters)
        infos, *others = layer_order.orders(self.run.case.architecture)
        made = pair_network(parameters, infos, self.mapping, self.ignored, self.propose, others)
        if made.wrong is not None:
            self._look_for_another_map(layer_of(made.wrong.tensor))
            text = "; ".join(made.notes)
            layer = layer_of(made.wrong.tensor)
            cause = made.cause or (self._left_out(made.wrong.tensor) if len(parameters) < len(infos) else "")
            raise SubjectFailedError(Difference(layer, "structure", made.wrong, (self.name,), cause, text))
        self.pairs, self.shapes = dict(made.pairs), made.shapes or {}
        self.notes += made.notes
        self.load()
        self.softmax = self.softmax if self._ends_in_softmax() else ""  # a loss's is taken off by the port
        self.notes += (f"the {self.softmax} at its end is left out",) if self.softmax else ()
        return self.run.parameter_shapes

    def _look_for_another_map(self, layer: str) -> None:
        """A dense layer of another size may only be given another map. Raises SubjectFailedError for the first layer
        before it whose map has another size."""
        if layer not in self.maps:
            return
        try:
            captured = self.port.run(self.images, train=False).captured
        except STRANGERS:
            return
        found = first_other_shape(self.run, captured, layer)
        if found is not None:
            path, shape = found
            expected = self.run.outputs(False)[path].shape
            wrong = problem("structure", path, f"has the shape {shape}, expected {expected}")
            cause = causes.of_shape(self.run, path, shape[1:])
            raise SubjectFailedError(Difference(path, "structure", wrong, (self.name,), cause))

    def _left_out(self, path: str) -> str:
        """What a parameter of the spec's that the network has not would be."""
        layer, name = self.run.layers.get(layer_of(path)), path.rpartition(".")[2]
        if name in ("running_mean", "running_var"):
            return (
                "it keeps no running statistics: those of the batch count in evaluation, too (track_running_stats), "
                "or those of each image (an instance norm)"
            )
        if isinstance(layer, BatchNorm) and name == "weight":
            return "gamma is left out, or fixed at 1 (affine, scale, fix_gamma)"
        return "the bias is left out" if name == "bias" else ""

    def restore(self) -> None:
        """The network as it was given."""
        if self.pairs:
            self.port.restore()

    def _ends_in_softmax(self) -> bool:
        """Whether what it puts out are shares, or their logarithms."""
        if not self.softmax:
            return False
        return are_shares(self.ran(False).outputs[0], self.softmax)

    def _with_outputs(self, parameters: Sequence[PortParameter]) -> Sequence[PortParameter]:
        """Choose the outputs that are compared, where there are more, and say which; with the parameters that these
        need. Raises SubjectFailedError where the network has too few."""
        returned, ends = len(self.port.shapes), self.run.ends
        if returned > len(ends):
            places = places_of([self.run.outputs(False)[end].shape[1:] for end in ends], self.port.shapes)
            first = places == list(range(len(ends)))
            which = f"the first {len(ends)}" if first else f"those at {places}, counted from 0, that have its shapes,"
            self.notes += (f"of its {returned} outputs only {which} can be compared",)
            if not first:
                self.port.choose(places)
                parameters = self.port.parameters(self.images)
        if returned < len(ends):
            text = (
                f"your network has {returned} output(s), the spec {len(ends)}: {', '.join(ends)}; --output names some"
            )
            wrong = problem("structure", ends[returned], text)
            raise SubjectFailedError(Difference(ends[returned], "structure", wrong, (self.name,)))
        return parameters

    def load(self) -> None:
        """Give the network the case's parameters."""
        self.port.load(self.as_its_own(self.run.parameters))
        self.passes, self.aligned = {}, {}

    def as_its_own(self, values: Mapping[str, Array]) -> Computed:
        """Values by path of the spec's as the network has them, by its names."""
        paths = {name: path for path, name in self.pairs.items() if path in values}
        permuted = {f"{dense}.weight": shape for dense, shape in self.permuted.items()}

        def value(name: str) -> Array:
            path = paths[name]
            array: Array = values[path]
            array = channels_last(array, permuted[path]) if path in permuted else array
            return array.reshape(self.shapes.get(path, array.shape))

        return Computed(paths, value)

    def release(self, *, training: bool) -> None:
        """That in training mode is looked at beside the gradients."""
        self.run.release(training=False)
        self.passes.pop(False, None)

    def let_go(self) -> None:
        """Of all passes, its own and the reference's; but for the gradients, what is asked of those runs again."""
        self.run.release(training=True)
        self.passes.clear()

    def own_values(self) -> Mapping[str, Array]:
        """What the network was given with, by path of the spec's and as that has it."""
        return self.as_the_spec(self.port.values())

    def as_the_spec(self, own: Mapping[str, Array]) -> Computed:
        """The network's values by its names as the spec has them, by path."""
        permuted = {f"{dense}.weight": shape for dense, shape in self.permuted.items()}

        def value(path: str) -> Array:
            array = own[self.pairs[path]].reshape(self.run.parameters[path].shape)
            return channels_first(array, permuted[path]) if path in permuted else array

        return Computed([path for path, name in self.pairs.items() if name in own], value)

    def prepared(self, function: Callable[..., Any]) -> Arrays:
        """What its own preparation makes of stored images; those of another size where it changes their size."""
        made, shape = own_images.made(self.run, function), self.run.case.architecture.input
        layout = next(layout for _, layout in made.values())
        self.other_layout = layout if layout not in ("", self.port.layout) and shape[0] != shape[2] else ""
        if self.other_layout:
            return {
                name: array.transpose(0, 2, 3, 1) if layout == "NHWC" else array for name, (array, _) in made.items()
            }
        if made[own_images.OTHER][0].shape[1:] != shape and made[own_images.SAME][0].shape[1:] == shape:
            self.notes += ("its preparation leaves the size of images as it is: no resize is compared",)
            self.resizes = False
            del made[own_images.OTHER]
        return {name: array for name, (array, _) in made.items()}

    def loss_of(self, function: Any) -> Arrays:
        """Its own loss of the reference's logits, and the gradient by them."""
        labels, arrays = own_loss.labels_of(self.run), {}
        for name, by, logits in own_loss.logits(self.run):
            with blamed("loss"):
                arrays[name], arrays[by] = self._trainable.loss(function, logits, labels)
        return arrays

    def moves(self, optimizer: Any, steps: int, untold: Sequence[str] = ()) -> Arrays:
        """What its own optimiser moves the parameters by in so many steps; `untold`: what these do not show."""
        self.notes += tuple(untold)
        start = own_training.begin(self.run)
        self.port.load(self.as_its_own(start))
        given = (self.as_its_own(gradients) for gradients in own_training.gradients(self.run, steps))
        made = self._trainable.optimize(optimizer, given)
        with blamed("optimiser"):
            moved = own_training.moves(start, (self.as_the_spec(values) for values in made))
        self.load()
        trained = own_training.trained(self.run)
        kept = [name for name in moved if own_training.path_of(name) in trained and not self.is_ignored(name)]
        return select(moved, kept)

    @property
    def _trainable(self) -> TrainablePort:
        if self.backend is None:
            raise TriptychError(f"'{self.name}' is a spec, which no optimiser of a framework trains")
        return cast(TrainablePort, self.port)

    def ran(self, train: bool) -> PortRun:
        """One pass, in training mode backward too."""
        if train not in self.passes:
            loss = self.run.loss() if train else {}
            cotangents = [loss[path] for path in self.run.ends if path in loss]
            if self.softmax == SOFTMAX:  # what sums to 0 over the classes, it takes back to the gradient by logits
                logits = (self.run.outputs(train)[path] for path in self.run.ends)
                cotangents = [dy / softmax(y, axis=1) for dy, y in zip(cotangents, logits, strict=False)]
            self.passes[train] = self.port.run(self.images, train=train, cotangents=cotangents)
            self.types |= {each.kept_as or each.value.dtype.name for each in self.passes[train].captured}
        return self.passes[train]

    def made(self, train: bool) -> Sequence[Array]:
        """The outputs of all its operations."""
        return [each.value for each in self.ran(train).captured]

    def seen(self, train: bool) -> dict[str, int]:
        """By path of a layer that can be seen, the index of its operation."""
        if train not in self.aligned:
            outputs = self.run.outputs(train)
            places = [Place(path, role_of(layer), outputs[path]) for path, layer in self.run.nodes(train)]
            turn_to_channels_first(places, self.ran(train).captured)
            others = partial(self._others, self.run.trace(train).inputs)
            self.aligned[train] = align(places, self.ran(train).captured, others)
        return self.aligned[train]

    def _others(self, inputs: Arrays, path: str) -> Iterator[Array]:
        """What other activations would make of what this one is given."""
        for _, record in OTHER_ACTIVATIONS:
            yield kind_of(record).reference(record, inputs[path], {}, Conditions(exact)).output

    def forward(self, train: bool) -> Arrays:
        """The outputs that can be seen, as the spec has them, and the network's own."""
        outputs, flattened = self.run.outputs(train), self.flattened()
        arrays = {}
        for path, index in self.seen(train).items():
            value, expected = self.ran(train).captured[index].value, outputs[path]
            if path in flattened and value.shape == expected.shape:
                value = channels_first(value, flattened[path])
            arrays[path] = value.reshape(expected.shape) if value.size == expected.size else value
        return arrays | self.outputs(train)

    def outputs(self, train: bool) -> dict[str, Array]:
        """The network's own outputs; what a softmax is given, where that is left out."""
        made = dict(zip(self.run.ends, self.ran(train).outputs, strict=True))
        seen = self.seen(train) if self.softmax else {}
        return made | {path: self.ran(train).captured[seen[path]].value for path in self.run.ends if path in seen}

    def gradients(self) -> Arrays:
        """What arrives at the outputs that can be seen, the parameters' gradients, and the images' own."""
        ran = self.ran(True)
        arrays = {ARRIVING + path: value for path, value in self.arriving().items()}
        arrays |= {} if ran.input_gradient is None else {INPUT: ran.input_gradient}
        paths = self.run.gradients.keys() & self.pairs.keys()  # JAX has gradients of running statistics, too
        known = [path for path in paths if self.pairs[path] in ran.gradients and not self.is_ignored(path)]
        return Computed([*arrays, *known], lambda path: arrays[path] if path in arrays else self._gradient(path))

    def _gradient(self, path: str) -> Array:
        """One parameter's, as the spec has it."""
        shape = self.run.case.parameters[path].shape
        gradient = self.ran(True).gradients[self.pairs[path]].reshape(shape)
        permuted = self.permuted.get(layer_of(path)) if path.endswith(".weight") else None
        return gradient if permuted is None else channels_first(gradient, permuted)

    def _gradients_agree(self) -> bool:
        """Whether the parameters' and the images' gradients are the spec's. What arrives at outputs tells no more then:
        where several values of a window are the largest, pooling may give any of them its gradient."""
        share, right = UNPERTURBED[self.precision], self.run.gradients
        ran = self.ran(True)
        paths = [path for path, name in self.pairs.items() if name in ran.gradients and path in right]
        own = Computed(paths, self._gradient)  # one at a time
        given = {} if ran.input_gradient is None else {INPUT: ran.input_gradient}
        return all(
            largest_difference(value, right[path]) <= share * largest(right[path])
            for path, value in chain(given.items(), own.items())
        )

    def arriving(self) -> dict[str, Array]:
        """By layer, the gradient that arrives at its output, where that can be seen in the spec's order; none where
        nothing comes of a difference."""
        if not self.run.case.large and self._gradients_agree():
            return {}
        right, flattened, captured = self.run.trace(True).arriving, self.flattened(), self.ran(True).captured
        gradients = {path: captured[index].gradient for path, index in self.seen(True).items() if path not in flattened}
        seen = {p: value for p, value in gradients.items() if value is not None and value.size == right[p].size}
        return {path: value.reshape(right[path].shape) for path, value in seen.items()}

    def statistics(self) -> Arrays:
        """The running statistics after one and after two passes in training mode."""
        names = {path: name for path, name in self.pairs.items() if path.rpartition(".")[2] in RUNNING}
        if not names or not self.run.statistics:
            return {}
        first = self.ran(True).statistics
        self.port.load({name: first[name] for name in names.values() if name in first})
        images, outputs = other_images(self.run.case), self.ran(True).outputs
        cotangents = [np.zeros_like(y) for y in outputs]  # MXNet moves them in the backward pass
        second = self.port.run(images, train=True, cotangents=cotangents).statistics
        self.load()
        after = {1: first, 2: second}
        arrays = {f"{path} ({n})": values[name] for n, values in after.items() for path, name in names.items()}
        return {name: arrays[name] for name in self.run.statistics if name in arrays and not self.is_ignored(name)}

    def dropouts(self) -> Arrays:
        """What it draws."""
        captured = self.ran(True).captured, self.ran(False).captured
        found = dropouts.observed(self.run, self.rates, self.seen(True), *captured) | self.drawn_by_itself()
        return {name: drawn for name, drawn in found.items() if not matches(name, self.ignored)}

    def drawn_by_itself(self) -> Described:
        """By the layer before it, what draws random numbers in training and is no dropout of the framework: of several
        copies of the images not the same comes out."""
        if self.port.pure or self.run.case.large:
            return {}
        try:
            copies = self.port.run(np.concatenate([self.images] * COPIES), train=True).captured
        except STRANGERS:  # so many images: calls in evaluation tell that
            return {}
        for index, each in enumerate(copies):
            values = each.value.reshape(COPIES, -1)
            if not largest(values - values[0]) <= SAME_COPY * largest(values):
                place = dropouts.follows(self.run, index, self.seen(True))
                return {f"{place}{dropouts.SURPLUS}": dropouts.described(0.0, dropouts.BY_ITSELF)}
        return {}

    def draws(self) -> bool:
        """See `drawn_by_itself`."""
        with self.exact():
            return bool(self.drawn_by_itself())

    def depends_on_batch(self, path: str) -> bool:
        """See `Subject.depends_on_batch`: of a layer that can be seen."""
        if path not in self.seen(False) or self.run.case.large:
            return False
        try:
            with self.exact():
                alone = self.port.run(self.images[:1], train=False).captured
        except STRANGERS:  # told by the calls in evaluation
            return False
        # In any order: the layout was found for the whole batch only.
        first = np.sort(self.ran(False).captured[self.seen(False)[path]].value[:1], None)
        others = [np.sort(each.value, None) for each in alone if each.value.size == first.size]
        return bool(others) and not any(largest(other - first) <= SAME_COPY * largest(first) for other in others)

    def draws_in_evaluation(self) -> bool:
        """Whether a second pass in evaluation, of the same values, puts out something else than the first."""
        if self.port.pure:
            return False
        with self.exact():
            first, second = (self.port.run(self.images, train=False).outputs for _ in range(2))
        return any(largest(y - x) > SAME_COPY * largest(x) for x, y in zip(first, second, strict=True))

    def calls(self) -> Arrays:
        """The outputs in evaluation, called as a user calls it. Raises SubjectFailedError for a batch that it cannot
        take."""
        arrays: dict[str, Array] = {}
        for call, images in calls_of(self.run.case).items():
            try:
                made = self._called_far() if call == MANY else self.port.call(self.images[list(images)])
            except STRANGERS as error:
                wrong = problem(CALLED, f"{self.run.ends[0]} {call}", f"failed: {message(error)}")
                cause = "it does not take every number of images"
                raise SubjectFailedError(Difference(self.run.ends[0], CALLED, wrong, (self.name,), cause)) from error
            arrays |= {f"{path} {call}": y for path, y in zip(self.run.ends, made, strict=True)}
        return arrays

    @cached_property
    def far(self) -> reach.Far:
        """How the images of the largest call grow, and some parameters; 16 bits hold no such values."""
        count = len(CALLS[MANY])
        return reach.Far((1.0,) * count) if self.precision in HOST else reach.far(self.run.case, count)

    def not_far(self) -> Iterator[str]:
        """Where values stay small all the same, once it was called."""
        short = self.far.short if "far" in vars(self) else ()
        if short:
            yield f"before {len(short)} activations, '{short[0]}' the first, no value goes so far that any bound shows"

    @property
    def far_images(self) -> Array:
        """Those of the largest call."""
        return np.asarray(
            self.images[list(CALLS[MANY])] * np.reshape(self.far.factors, (-1, 1, 1, 1)), self.images.dtype
        )

    def _called_far(self) -> tuple[Array, ...]:
        self.port.load(self.as_its_own(self.far.parameters(self.run.parameters)))
        try:
            return self.port.call(self.far_images)
        finally:
            self.load()

    def where_far(self) -> Difference | None:
        """The first layer that differs where values are as large as in the largest call."""
        away, case = self.far, self.run.case
        values = {
            path: (value * away.scales.get(path, 1.0)).astype(np.float32) for path, value in case.parameters.items()
        }
        other = copy(self)
        other.run = ReferenceRun(replace(case, parameters=values, tail=reach.BEYOND * away.factors[-1]))
        other.images = other.run.case.images.astype(self.images.dtype)
        other.load()
        try:
            with np.errstate(all="ignore"):  # its values may be no numbers
                right = ReferenceSubject(other.run)
                return locate.locate(other, right, "accumulated", levels=[levels.FORWARD_EVAL]).difference
        finally:
            self.load()

    def is_ignored(self, name: str) -> bool:
        """Whether an array of the spec is one that the user does not want to be compared."""
        path = name.partition(" ")[0]
        return matches(path, self.ignored) or matches(self.pairs.get(path, ""), self.ignored)

    def expected(self, level: Level, run: ReferenceRun) -> Arrays:
        """What the reference says of what can be seen; gradients with those that arrive at outputs, layer by layer."""
        if level.name == DROPOUT:
            rates = {path: rate for path, rate in self.rates.items() if not matches(path, self.ignored)}
            return {path: dropouts.described(rate) for path, rate in rates.items()}
        arrays = level.expected(run)
        if level.name == own_images.DATA:
            return arrays if self.resizes else select(arrays, [own_images.SAME])
        if level.name == own_training.UPDATE:
            kept = [name for name in arrays if own_training.path_of(name) in self.pairs and not self.is_ignored(name)]
            return select(arrays, kept)
        if level.name == CALLED and MANY in calls_of(run.case):
            outputs = reach.far_outputs(run, np.asarray(self.far_images, np.float64), self.far)
            arrays = {n: outputs[n.removesuffix(f" {MANY}")] if n.endswith(MANY) else v for n, v in arrays.items()}
        if level.name == CALLED and self.softmax:
            shares = softmax if self.softmax == SOFTMAX else log_softmax
            return {name: shares(value, axis=1) for name, value in arrays.items()}
        if level.name in ("gradient", STATISTICS):
            arrays = select(arrays, [name for name in arrays if not self.is_ignored(name)])
        if level.name.startswith("forward"):
            seen = {*self.seen(level is levels.FORWARD_TRAIN), *run.ends}
            return {path: value for path, value in arrays.items() if path in seen}
        if level.name != "gradient":
            return arrays
        arriving, ordered = self.arriving(), []
        maps = {ARRIVING + path: value for path, value in run.trace(True).arriving.items() if path in arriving}
        for path, _ in reversed(list(self.run.nodes(True))):
            ordered += [ARRIVING + path] if path in arriving else []
            ordered += [name for name in arrays if layer_of(name) == path]
        return Computed([*ordered, INPUT], lambda name: maps[name] if name in maps else arrays[name])

    def retry(self, difference: Difference, again: Callable[[], Difference | None]) -> Difference | None:
        """Try the first dense layer with its columns in height-width-channels order, if that is where they diverge."""
        order = list(self.run.layers)
        if self.permuted or difference.level == "gradient":
            return difference
        for dense, shape in self.maps.items():
            place = order.index(dense)
            if not place - 2 <= _shown(difference, order) <= place:
                continue
            self.permuted[dense] = shape
            self.load()
            better = again()
            shown, before = (_shown(each, order) for each in (better, difference))
            # Where something else is wrong before it, what is told of the other order is an order and no more.
            told = [each is not None and causes.is_told(each.cause) for each in (difference, better)]
            explained = before == shown and told == [False, True]
            if shown > place or before < shown == place or explained:
                self.notes += (
                    f"flattens height-width-channels: the columns of '{dense}' were permuted for it (NCHW weights "
                    "do not fit this network as they are)",
                )
                return better
            del self.permuted[dense]
            self.load()
        return difference

    def flattened(self) -> dict[str, Shape]:
        """The flatten layers, and dropouts behind them, whose output comes in another order, with the map's shape."""
        if not self.permuted:  # without another pass in evaluation
            return {}
        order, outputs = list(self.run.layers), self.run.outputs(train=False)
        layers: dict[str, Shape] = {}
        for dense, shape in self.permuted.items():
            for path in reversed(order[: order.index(dense)]):
                if outputs[path].ndim != 2:
                    break
                layers[path] = shape
        return layers


def _shown(difference: Difference | None, order: list[str]) -> int:
    """The place of the layer that shows a difference, which may be behind the one to blame; past all for none, before
    all for one that is no layer's."""
    if difference is None:
        return len(order)
    path = difference.check.tensor if difference.check.tensor in order else difference.layer
    return order.index(path) if path in order else NOWHERE


class NetworkFailedError(TriptychError):
    """A network that does not run at all; `layer` is the path of that in which it failed, in its own names, if it is
    known."""

    def __init__(self, text: str, layer: str) -> None:
        super().__init__(text)
        self.layer = layer


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Raises TriptychError, with what somebody's code raises in here, as bad input."""
    try:
        yield
    except TriptychError:
        raise
    except STRANGERS as error:
        raise TriptychError(f"the {what} failed: {message(error)}") from error


def are_shares(value: Array, end: str) -> bool:
    """Whether an output is the softmax, or its logarithm, that a network may end in."""
    if not end:
        return False
    shares = value if end == SOFTMAX else np.exp(value)
    return bool((shares >= 0).all()) and bool(np.allclose(shares.sum(1), 1, atol=1e-3))
