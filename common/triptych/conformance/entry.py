"""Where do two sides part before a layer computes anything: parameters, output shapes, and what reaches the network?"""

from __future__ import annotations

from collections.abc import Mapping

from triptych.conformance.compare import Check, compare
from triptych.conformance.comparison import Comparison, Difference, only_failed
from triptych.conformance.diagnosis import causes
from triptych.conformance.inputs import observe_reference_inputs
from triptych.conformance.reference_run import Arrays, layer_of
from triptych.conformance.tolerance import perturbations
from triptych.spec.layers import Flatten, Shape, children
from triptych.spec.shapes import output_shapes


def structure(both: Comparison) -> Difference | None:
    """Parameters and output shapes of both sides against the spec; if the parameters are right, both take the case's
    values, and the training pass that shows the shapes is kept for its phase."""
    held = {side.name: side.parameter_shapes() for side in (both.left, both.right)}
    if all(own == both.truth.parameter_shapes for own in held.values()) and (difference := _loaded(both)) is not None:
        return difference
    wrong: dict[str, tuple[str, str, Shape | None]] = {}
    faults = []
    shapes = both.run(lambda side: side.output_shapes(), "", "structure")
    for name, outputs in shapes.items():
        for expected, found in (
            (output_shapes(both.truth.case.architecture), outputs),
            (both.truth.parameter_shapes, held[name]),
        ):
            for path in dict.fromkeys((*expected, *found)):
                if found.get(path) != expected.get(path):
                    layer = path if expected is not both.truth.parameter_shapes else layer_of(path)
                    problem = f"{name} has {_shape(found, path)}, the spec {_shape(expected, path)}"
                    wrong.setdefault(layer, (path, problem, outputs.get(layer)))
                    faults.append(name)
    order = [*both.truth.layers, *wrong]
    for layer in sorted(wrong, key=order.index):
        if children(both.truth.layers.get(layer, Flatten(""))) and len(wrong) > 1:
            continue  # what is in it says more
        path, problem, shape = wrong[layer]
        check = Check("structure", path, float("inf"), 0.0, 0.0, problem)
        cause = causes.of_shape(both.truth, layer, shape) if path == layer else ""
        return Difference(layer, "structure", check, tuple(dict.fromkeys(faults)), cause)
    return None


def data(both: Comparison) -> Difference | None:
    """What reaches the network of stored images."""
    case = both.truth.case
    expected = observe_reference_inputs(case)
    arrays = both.run(lambda side: side.inputs(), "input", "data")
    left, right = arrays.values()

    def perturbed() -> list[Arrays]:
        return [observe_reference_inputs(case, rounding) for rounding in perturbations(case.seed)]

    failed = both.failures("data", expected, left, right, perturbed)
    if not failed:
        return None
    fault = both.at_fault(failed[0], expected, arrays)
    cause = causes.of_data(both.truth, failed, arrays[fault[0]] if fault else left)
    return Difference("input", "data", failed[0], fault, cause)


def _loaded(both: Comparison) -> Difference | None:
    """Both sides take the case's parameters and must hand back the same bits."""
    given = both.truth.case.parameters
    both.run(lambda side: side.load(given), "", "structure")
    arrays = both.run(lambda side: side.values(), "", "structure")
    for name, found in arrays.items():
        failed = only_failed(compare("structure", given, found, dict.fromkeys(given, 0.0)))
        if failed:
            path = failed[0].name
            cause = "" if path not in found else causes.of_parameter(both.truth, given, path, found[path])
            return Difference(layer_of(path), "structure", failed[0], (name,), cause)
    return None


def _shape(shapes: Mapping[str, Shape], path: str) -> str:
    return str(shapes[path]) if path in shapes else "nothing"
