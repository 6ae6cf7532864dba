"""Makes the notebooks from their sources, one Markdown file for all frameworks: `python docs/notebooks.py` executes
them and writes docs/notebooks/*.ipynb with their outputs.

A source is text and fenced blocks: ```python all, or ```python torch (mxnet, jax) for a cell that a framework has in
its own words. A source with such blocks makes a notebook per framework, cell by cell alike; one without makes one."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_suffix("")
FRAMEWORKS = {"torch": "PyTorch", "mxnet": "MXNet Gluon", "jax": "JAX, Flax NNX"}
CELL = re.compile(r"^```python (\w+)\n(.*?)^```$", re.M | re.S)
MOST = 40_000  # bytes of a notebook's outputs


def notebooks() -> dict[str, tuple[Path, str]]:
    """By name of a notebook its source and the framework of its cells."""
    found: dict[str, tuple[Path, str]] = {}
    for source in sorted(FOLDER.glob("*.md")):
        own = [name for name in FRAMEWORKS if f"```python {name}\n" in source.read_text(encoding="utf-8")]
        found |= {f"{source.stem}-{name}": (source, name) for name in own} or {source.stem: (source, "torch")}
    return found


def cells(name: str) -> Iterator[tuple[str, str]]:
    """Kind ("markdown" or "code") and text of every cell."""
    source, framework = notebooks()[name]
    text = source.read_text(encoding="utf-8").replace("FRAMEWORK", FRAMEWORKS[framework])
    for place, part in enumerate(CELL.split(text)):
        if place % 3 == 0 and part.strip():
            yield "markdown", part.strip()
        elif place % 3 == 2 and kinds(text)[place // 3] in ("all", framework):
            yield "code", part.strip()


def kinds(text: str) -> list[str]:
    """Whose each block is, in order."""
    return [match[1] for match in CELL.finditer(text)]


def execute(name: str, changes: Mapping[str, str] | None = None) -> list[list[dict[str, Any]]]:
    """The outputs of every code cell, executed one after the other in one namespace; `changes`: lines of code that are
    replaced first, for a shorter run."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    namespace: dict[str, Any] = {"__name__": "notebook"}
    outputs = []
    for number, code in enumerate((text for kind, text in cells(name) if kind == "code"), 1):
        for old, new in (changes or {}).items():
            code = code.replace(old, new)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"<{name}, cell {number}>", "exec"), namespace)
        outputs.append(_outputs(printed.getvalue(), [plt.figure(n) for n in plt.get_fignums()]))
        plt.close("all")
    return outputs


def _outputs(printed: str, figures: list[Any]) -> list[dict[str, Any]]:
    text = [{"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}] if printed else []
    pictures = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=72, metadata={"Software": None})
        data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
        pictures.append({"output_type": "display_data", "metadata": {}, "data": data})
    return [*text, *pictures]


def notebook(name: str, outputs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The notebook in Jupyter's format 4."""
    found: list[dict[str, Any]] = []
    number = 0
    for place, (kind, text) in enumerate(cells(name)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell{place}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        if kind == "code":
            cell |= {"execution_count": number + 1, "outputs": outputs[number]}
            number += 1
        found.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def main(names: list[str]) -> None:
    """Execute and write the notebooks of these names, or all."""
    for name in names or notebooks():
        written = notebook(name, execute(name))
        (FOLDER / f"{name}.ipynb").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        print(f"{name}.ipynb", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
