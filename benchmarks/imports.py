"""What becomes of networks of every kind that can be imported, against their own frameworks, as one table in Markdown.

nice -n 10 python benchmarks/imports.py [KIND ...]   # all of `import_cases.KINDS`

Rows of benchmarks/results/imports.md that are measured again are replaced; the others stay, with the day they are of.
Weights are drawn, those of ONNX and Keras files their own. The judge is that of `triptych locate`.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from import_cases import KINDS, Case, cases, keras_outputs

from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.conformance.compare import STRANGERS, Check, compare, failures, message, worst
from triptych.conformance.levels import FORWARD_EVAL, FORWARD_TRAIN, GRADIENT, PARAMETERS, Level
from triptych.importers.steps import EVALUATION_ALONE, Imported, ImportRefusedError, Request
from triptych.porting import source_network, sources
from triptych.porting.import_check import drawn_images
from triptych.porting.import_reference import ImportReference
from triptych.porting.onnx_session import OnnxSession
from triptych.porting.own_network import locate_port
from triptych.porting.source_network import SourceNetwork
from triptych.porting.strangers import is_rounding, softmax_at_the_end
from triptych.porting.subject import are_shares
from triptych.spec.layers import PReLU, outputs, walk
from triptych.utils.errors import TriptychError

RESULT = Path(__file__).parent / "results" / "imports.md"
PRECISIONS = ("fp64", "fp32")
IN_FLOAT32: dict[type, str] = {PReLU: "mxnet"}  # layers by whose framework computes so, whatever its arrays have
PASSES = (FORWARD_EVAL, FORWARD_TRAIN, GRADIENT)
HEADS = ("kind", "network", "layers", "images", "result", *(level.name for level in PASSES), "import, s", "with", "day")
TEXT = """# Networks of every kind, imported

By `nice -n 10 python benchmarks/imports.py` on two busy cores, every row on the day and `with` the versions that it
names: torchvision's and timm's in an environment of their own, with a newer PyTorch than the others. The largest
difference of a network from its own framework, as a share of its budget ([conformance](../../docs/conformance.md)): in
evaluation, in training without dropout, and of all gradients, on two images with drawn weights, in every layer that can
be seen. That is in float64, or, where an operator has float32 alone (MXNet's PReLU rounds its slopes to that), in
float32, which is said. 0 is bit for bit the same. Where rounding grows through many batch norms a budget grows with it,
in perturbed executions, and only until it explains the difference: such shares come near 1. ONNX files (by onnxruntime,
in float32), Keras files (by the formulas of their layers in NumPy), PyTorch's programs, and what keeps its dropout or
whose parameters cannot be told apart, have only their outputs in evaluation compared, with their own weights; what was
traced has evaluation alone. `layers` are those of the spec; `import, s` is the import without any comparison. The port
of AlexNet to MXNet differs by MXNet's own LRN, which is off in float32 where values are large; torchvision's
MobileNet v3 by PyTorch's derivative of hardsigmoid, whose 1/6 is float32's
([upstream](../../docs/upstream.md) has both).

"""
Shares = dict[str, float]


def main(kinds: Sequence[str]) -> None:
    """Measure these kinds, and write the table after every network."""
    rows = read_rows()
    for kind in kinds or KINDS:
        for old in [key for key, row in rows.items() if key[0] == kind and "| skipped: " in row]:
            del rows[old]
        for case in cases(kind):
            cells = (kind, case.name, *measured(case), versions(kind), datetime.now(UTC).date().isoformat())
            rows[kind, case.name] = f"| {' | '.join(cells)} |"
            print(rows[kind, case.name], flush=True)
            write_rows(rows)


def read_rows() -> dict[tuple[str, str], str]:
    """The rows of the table as it is, by kind and network."""
    lines = RESULT.read_text().splitlines() if RESULT.exists() else []
    cells = {line: [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")}
    return {(found[0], found[1]): line for line, found in cells.items() if found[0] in KINDS}


def write_rows(rows: dict[tuple[str, str], str]) -> None:
    """The page, kinds in the order of the script."""
    order = list(KINDS)
    lines = [rows[key] for key in sorted(rows, key=lambda key: order.index(key[0]))]
    RESULT.write_text(TEXT + "\n".join([f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|", *lines]) + "\n")


def versions(kind: str) -> str:
    """Of what a kind needs, and of what its networks are from: what is installed."""
    names = (name.partition(".")[0] for name in KINDS[kind][0].split())
    return " ".join(f"{name} {version(name)}" for name in names if find_spec(name))


def measured(case: Case) -> tuple[str, ...]:
    """Layers, images, result, shares and seconds of one network."""
    nothing = ("",) * (len(HEADS) - 4)  # beside kind, network, versions and day
    if case.missing:
        return *nothing[:2], f"skipped: {case.missing}", *nothing[3:]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = case.make(Path(folder))
            began = time.perf_counter()
            imported = imported_of(made, case)
            seconds = time.perf_counter() - began
        except ImportRefusedError as error:
            return *nothing[:2], f"refused: {error}".replace("|", "/"), *nothing[3:]
        try:
            result, shares = judged(made, imported)
        except STRANGERS as error:
            result, shares = f"not compared: {message(error)}".replace("|", "/"), {}
    architecture = imported.architecture
    return (
        str(sum(1 for _ in walk(architecture.layers))),
        "x".join(map(str, architecture.input)),
        result,
        *(f"{shares[level.name]:.2g}" if level.name in shares else "" for level in PASSES),
        f"{seconds:.2f}",
    )


def imported_of(made: Any, case: Case) -> Imported:
    """The import of a file or an object alone, before anything is compared."""
    request = Request(input=case.input)
    if isinstance(made, Path):
        return sources.read(str(made), request, case.weights, checked=False)
    return sources.from_object(made, case.name, None, request, checked=False)


def judged(made: Any, imported: Imported) -> tuple[str, Shares]:
    """What came out, and the shares by level; of outputs alone where more cannot be had."""
    if isinstance(made, Path) and made.suffix == ".onnx":
        return said([by_outputs(imported, OnnxSession(made).call, "fp32")], "fp32")
    if isinstance(made, Path) and made.suffix == ".hdf5":
        return said([by_outputs(imported, partial(keras_outputs, made), "fp64")], "fp64")
    failed: BaseException | None = None
    for judge in (by_levels, by_calls):
        for precision in PRECISIONS:
            try:
                found = judge(made, imported, precision)
            except STRANGERS as error:  # one precision alone, dropout that stays, parameters that cannot be paired
                failed = failed or error
                continue
            low = computes_in_float32(made, imported) and all(map(is_rounding, failures(found)))
            if precision == PRECISIONS[-1] or not failures(found) or not low:
                return said(found, precision)
    assert failed is not None
    raise failed


def computes_in_float32(made: Any, imported: Imported) -> bool:
    """Whether a layer of it computes in float32 whatever its arrays have."""
    frameworks = {IN_FLOAT32.get(type(layer)) for _, layer in walk(imported.architecture.layers)} - {None}
    return bool(frameworks) and opened(made, "", training=False).backend in frameworks


def said(found: list[Check], precision: str) -> tuple[str, Shares]:
    """The nearest check of every level in words."""
    failed = failures(found)
    agrees = "agrees" if precision == "fp64" else f"agrees ({precision})"
    result = f"differs: {failed[0].level} {failed[0].tensor} {failed[0].text}" if failed else agrees
    return result, {check.level: check.ratio for check in found}


def by_levels(made: Any, imported: Imported, precision: str) -> list[Check]:
    """As `triptych locate` judges somebody's network: of each level the check nearest to its budget."""
    nearest: dict[str, Check] = {}

    def noting(level: Level) -> Level:
        def noted(name: str, *compared: Any) -> list[Check]:
            checks = (level.compare or compare)(name, *compared)
            nearest.update({name: check} if (check := worst(checks)) else {})
            return checks

        return replace(level, compare=noted)

    evaluation_alone = any(EVALUATION_ALONE in line for line in imported.remarks)
    rows = [noting(level) for level in (PARAMETERS, *PASSES[: 1 if evaluation_alone else None])]
    softmax = softmax_at_the_end(imported.remarks)
    network = opened(made, softmax, training=not evaluation_alone).make()
    located = locate_port(network, imported.architecture, precision=precision, softmax=softmax, rows=rows)
    if located.difference is None:
        return list(nearest.values())
    if located.difference.level == PARAMETERS.name:
        raise TriptychError(f"its parameters are not paired: {located.difference.check.text}")
    return [located.difference.check]


def by_calls(made: Any, imported: Imported, precision: str) -> list[Check]:
    """Outputs in evaluation, by its framework, with the weights that it has."""
    source = opened(made, softmax_at_the_end(imported.remarks), training=False)
    adapter = source_network.adapter_of(source.backend)
    with registry.load(source.backend).precise():
        port = adapter.Port(source.make(), None, exact(precision), len(outputs(imported.architecture)))
        port.parameters(drawn_images(imported.architecture))
        port.load({})
        return [by_outputs(imported, port.call, precision)]


def opened(made: Any, softmax: str, *, training: bool) -> SourceNetwork:
    """A file or an object as its framework runs it."""
    if isinstance(made, Path):
        return source_network.opened(made, bare=bool(softmax), training=training)
    return source_network.of_object(made, softmax)


def by_outputs(imported: Imported, call: Callable[[Any], Sequence[Any]], precision: str) -> Check:
    """As the check of an import judges a file: outputs in evaluation with the weights of the file."""
    images = drawn_images(imported.architecture)
    reference = ImportReference(imported, images, train=False)
    names, softmax = outputs(imported.architecture), softmax_at_the_end(imported.remarks)
    observed = dict(zip(names, map(np.asarray, call(images)), strict=True))
    reference.ends = {name: softmax for name, value in observed.items() if are_shares(value, softmax)}
    return replace(reference.nearest(observed, precision), level=FORWARD_EVAL.name)


if __name__ == "__main__":
    for name in registry.installed():
        registry.load(name)
    unknown = [kind for kind in sys.argv[1:] if kind not in KINDS]
    if unknown:
        sys.exit(f"no kind {unknown[0]!r}; there are {', '.join(map(repr, KINDS))}")
    main(sys.argv[1:])
