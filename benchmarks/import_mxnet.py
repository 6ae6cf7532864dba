"""What becomes of MXNet's networks, against MXNet itself, as one table in Markdown: Gluon's zoo and strangers' files.

python benchmarks/import_mxnet.py FOLDER [NAME ...] > benchmarks/results/import-mxnet.md

FOLDER holds `*/NAME-symbol.json` with `NAME-0001.params`; the NAMEs are those of the zoo (all: half an hour or more).
Arrays of the zoo are drawn. Both sides compute in float64, the gradients are of a fixed cotangent.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mxnet_runs import GLUON_ZOO, bare_outputs, draw, gluon_input, largest_distance, run_mxnet, run_reference
from triptych.backend import registry
from triptych.importers import mxnet_symbol
from triptych.importers.mxnet_json import VARIABLE
from triptych.importers.mxnet_network import convert, load, read_arrays
from triptych.importers.steps import Imported, Request
from triptych.spec.layers import Graph, walk


def main(folder: Path, names: tuple[str, ...]) -> None:
    """Print a row for every file of the folder and every name."""
    registry.load("mxnet")
    print("| network | operators | layers | graphs | input | outputs | gradients | seconds to import |")
    print("|---" * 8 + "|")
    for symbol in sorted(folder.glob("*/*-symbol.json")):
        for params in sorted(symbol.parent.glob(f"{symbol.name.removesuffix('-symbol.json')}-*.params")):
            print(_stranger(symbol, params), flush=True)
    for name in names:
        print(_gluon(name), flush=True)


def _stranger(path: Path, params: Path) -> str:
    import mxnet as mx

    began = time.perf_counter()
    imported = load(path, params, Request())
    seconds = time.perf_counter() - began
    parsed = mxnet_symbol.read(path)
    symbol = bare_outputs(mx.sym.load(str(path)), parsed)
    return _row(f"{path.parent.name}/{params.stem}", parsed, symbol, imported, read_arrays(params), 2, seconds)


def _gluon(name: str) -> str:
    import mxnet as mx

    text = mx.gluon.model_zoo.vision.get_model(name)(mx.sym.var("data")).tojson()
    text = text.replace('"p": "0.5"', '"p": "0"')  # without dropout, whose masks are not MXNet's
    symbol, shape = mx.sym.load_json(text), gluon_input(name)
    arrays = draw(symbol, shape)
    began = time.perf_counter()
    parsed = mxnet_symbol.parse(text, name)
    imported = convert(parsed, arrays, Request(input=shape[1:]), name=name, files=(name, name))
    return _row(name, parsed, symbol, imported, arrays, shape[0], time.perf_counter() - began)


def _row(
    name: str, parsed: mxnet_symbol.Symbol, symbol: Any, imported: Imported, arrays: Any, batch: int, seconds: float
) -> str:
    x = np.random.default_rng(0).normal(size=(batch, *imported.architecture.input))
    distances = []
    for train in (False, True):
        theirs, ours = run_mxnet(symbol, arrays, x, train, "float64"), run_reference(imported, x, train)
        distances.append(f"{largest_distance(imported, arrays, theirs, ours):.1e}")
    operators = sum(node.operator != VARIABLE for node in parsed.nodes)
    layers = [layer for _, layer in walk(imported.architecture.layers)]
    graphs = sum(isinstance(layer, Graph) for layer in layers)
    size = "x".join(map(str, imported.architecture.input))
    cells = (name, operators, len(layers), graphs, size, *distances, f"{seconds:.2f}")
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or GLUON_ZOO)
