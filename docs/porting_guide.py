"""Runs the snippets of the porting guide; the figures on its pages come from here.

    python docs/porting_guide.py            # runs every page and writes the measured figures into it
    python docs/porting_guide.py pooling    # one page

A page is Markdown (MyST). Each `##` section holds one block of Python per framework, named by its caption, and possibly
an `Input` block that all share. They leave `result`; the results must agree within `tolerance` times the largest value.
A trap is an admonition with one block of one framework: it continues after that framework's snippet and leaves the
`result` that one gets by falling into it. How far that is from the right one is what `Measured` says.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend import registry

FOLDER = Path(__file__).parent / "porting"
FRAMEWORKS = {"PyTorch": "torch", "MXNet Gluon": "mxnet", "JAX, Flax NNX": "jax"}  # caption: backend
TOLERANCE = 1e-5  # of the largest value: float32 through a few layers or steps

BLOCK = re.compile(r"^```\{code-block\} python\n:caption: (?P<caption>[^\n]+)\n\n(?P<code>.*?)^```$", re.M | re.S)
TRAP = re.compile(r"^:::\{admonition\} Trap: (?P<title>[^\n]+)\n:class: warning\n(?P<body>.*?)^:::$", re.M | re.S)
MEASURED = re.compile(r"^Measured: `(?P<figure>[^`]*)`", re.M)
PLANTED = re.compile(r"Planted bug: (?:none: .+|`(?P<mutant>[^`]+)`)\.$", re.M)


@dataclass(frozen=True)
class Trap:
    """A port that runs and is wrong; `figure` is the printed difference, `mutant` the planted bug that proves it."""

    title: str
    framework: str
    code: str
    figure: str
    mutant: str | None


@dataclass(frozen=True)
class Section:
    """One subject: code by caption (`Input` and the frameworks'), and its traps."""

    page: str
    title: str
    code: Mapping[str, str]
    traps: tuple[Trap, ...]


def pages() -> dict[str, Path]:
    """The pages by name, without those that have no snippets."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.md")) if path.stem not in ("index", "ascend")}


def parse(page: str, text: str) -> list[Section]:
    """The sections of a page that hold code."""
    found = []
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        blocks = {match["caption"]: match["code"] for match in BLOCK.finditer(TRAP.sub("", part))}
        if blocks:
            traps = tuple(_trap(match) for match in TRAP.finditer(part))
            found.append(Section(page, part.partition("\n")[0], blocks, traps))
    return found


def _trap(match: re.Match[str]) -> Trap:
    """The parts of an admonition; raises ValueError where one is missing or doubled."""
    parts = [list(pattern.finditer(match["body"])) for pattern in (BLOCK, MEASURED, PLANTED)]
    if [len(part) for part in parts] != [1, 1, 1]:
        raise ValueError(f"trap {match['title']!r} needs one block, one 'Measured: `...`' and one 'Planted bug: ...'")
    (block,), (measured,), (planted,) = parts
    return Trap(match["title"], block["caption"], block["code"], measured["figure"], planted["mutant"])


@cache
def imports() -> Mapping[str, str]:
    """What the snippets take for granted, by framework: the blocks on the guide's first page."""
    (section,) = parse("index", (FOLDER / "index.md").read_text(encoding="utf-8"))
    return section.code


def as_array(value: Any) -> NDArray[np.float64]:
    """Any framework's array, or numbers, as float64; MXNet, which has no 0-dimensional arrays, gets one."""
    value = value.detach() if hasattr(value, "detach") else value
    array = np.asarray(value.asnumpy() if hasattr(value, "asnumpy") else value, np.float64)
    return array.reshape(()) if array.size == 1 else array


def run(section: Section, framework: str, trap: Trap | None = None) -> tuple[NDArray[np.float64], float]:
    """The `result` of a framework's snippet, or of a trap after it, and the section's tolerance."""
    registry.load(FRAMEWORKS[framework])  # settles what the framework's import needs
    namespace: dict[str, Any] = {"np": np}
    parts = [imports()[framework], section.code.get("Input", ""), section.code[framework]]
    for code in [*parts, *([trap.code] if trap else [])]:
        exec(compile(code, f"<{section.page}: {section.title}, {framework}>", "exec"), namespace)
    return as_array(namespace["result"]), namespace.get("tolerance", TOLERANCE)


def difference(wrong: NDArray[np.float64], right: NDArray[np.float64]) -> str:
    """In words, to two digits: shapes, numbers that are none, single values, or a share of the largest right value."""
    if wrong.shape != right.shape:
        return f"shape {wrong.shape} instead of {right.shape}"
    if not np.isfinite(wrong).all():
        return f"{np.sum(~np.isfinite(wrong))} of {wrong.size} values are not finite"
    if right.size == 1:
        return f"{wrong.item():.3g} instead of {right.item():.3g}"
    return f"{float(f'{relative(wrong, right):.2g}'):g} of the largest value"


def same_figure(measured: str, printed: str) -> bool:
    """The same words, and numbers that differ by no more than one in the last digit, where two processors may round to
    different sides. Counts and shapes are the same."""
    if measured == printed:
        return True
    wrong, is_share, of = measured.partition(" of the largest value")
    if not is_share or printed.partition(" of the largest value")[1:] != (is_share, of):
        return False
    left, right = float(wrong), float(printed.removesuffix(is_share))
    return abs(left - right) <= 1.001 * 10.0 ** (math.floor(math.log10(max(left, right))) - 1)


def relative(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The largest difference over the largest value; infinite where shapes differ or a value is not finite."""
    if left.shape != right.shape or not np.isfinite([left, right]).all():
        return np.inf
    return float(np.abs(left - right).max() / np.abs(right).max())


def measure(section: Section) -> tuple[list[str], list[str]]:
    """What is wrong with a section, in words, and the figure of each of its traps. Runs all three frameworks."""
    runs = {framework: run(section, framework) for framework in FRAMEWORKS}
    results = {framework: result for framework, (result, _) in runs.items()}
    tolerance = next(iter(runs.values()))[1]
    problems = [
        f"{framework} differs from {other} by {relative(results[framework], results[other]):.2g}"
        for framework in FRAMEWORKS
        for other in FRAMEWORKS
        if framework < other and not relative(results[framework], results[other]) <= tolerance
    ]
    figures = []
    for trap in section.traps:
        wrong, _ = run(section, trap.framework, trap)
        right = results[trap.framework]
        figures.append(difference(wrong, right))
        if relative(wrong, right) <= 2 * tolerance:
            problems.append(f"trap {trap.title!r} does no harm")
        if not same_figure(figures[-1], trap.figure):
            problems.append(f"trap {trap.title!r} says {trap.figure!r}, but it is {figures[-1]!r}")
    return problems, figures


def main(names: list[str]) -> int:
    """Write the measured figures into the pages; 1 if snippets disagree or a trap does no harm."""
    failed = False
    for name in names or pages():
        path = pages()[name]
        text = path.read_text(encoding="utf-8")
        figures: list[str] = []
        for section in parse(name, text):
            problems, measured = measure(section)
            figures += measured
            serious = [problem for problem in problems if " says " not in problem]
            failed |= bool(serious)
            for line in [*problems, *([] if problems else ["ok"])]:
                print(f"{name}: {section.title}: {line}", flush=True)
        values = iter(figures)
        path.write_text(MEASURED.sub(lambda _: f"Measured: `{next(values)}`", text), encoding="utf-8")  # noqa: B023
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
