"""The porting guide: every snippet runs, the three agree, every printed figure is measured; and the site builds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import porting_guide
import pytest
from porting_guide import FRAMEWORKS, Section, difference, measure, parse

from triptych.backend import registry

ROOT = Path(__file__).parents[2]
MISSING = sorted(set(FRAMEWORKS.values()) - set(registry.installed()))
needs_all_three = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
needs_sphinx = pytest.mark.skipif(
    not all(map(find_spec, ("sphinx", "myst_parser", "furo"))), reason="the extra `docs` is not installed"
)

SUBJECTS = ["convolution", "pooling", "normalisation", "dropout", "layouts", "initializers"]
SUBJECTS += ["losses", "optimisers", "schedules", "data", "randomness"]

# The faults that ports have, by the names of their mutants.
MUTANTS = """same padding at stride 2, padding off by one, flatten order, kernel flipped, square weight transposed,
bias missing, floor for ceil, padding counted, lrn alpha, lrn k, lrn window, batch norm eps, batch norm momentum,
biased variance, train for eval, gamma fixed, sigmoid for relu, dropout scale, dropout in eval, softmax twice,
loss summed, rate in the velocity, decoupled decay, decay of biases, nesterov form, adam epsilon,
schedule off by one, momentum cycle ignored, branch order, residual scale, auxiliary weight, bgr for rgb,
normalisation swapped, aligned corners, batch order, initializer fan, shared weights, kernel rows and columns,
constants for bytes, default decay, no antialias, own masks, other axis, labels from one, loss is NaN, statistics kept,
empty window, ties split, own start, warm-up for constant"""


@cache
def sections() -> list[Section]:
    """All sections of all pages."""
    return [section for page, path in porting_guide.pages().items() for section in parse(page, path.read_text("utf-8"))]


def section(page: str, title: str) -> Section:
    """One section by its page and title."""
    (found,) = [section for section in sections() if (section.page, section.title) == (page, title)]
    return found


@pytest.fixture(autouse=True)
def _in_float32() -> Iterator[None]:
    """A float64 test before this one switches JAX for the whole process; other types draw other numbers."""
    if MISSING:
        yield
        return
    import jax

    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


@needs_all_three
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning")  # one of the traps
@pytest.mark.parametrize("section", sections(), ids=lambda section: f"{section.page}: {section.title}")
def test_the_snippets_agree_and_the_figures_are_measured(section: Section) -> None:
    """`python docs/porting_guide.py` writes the figures anew."""
    problems, figures = measure(section)
    assert problems == []
    assert len(figures) == len(section.traps)


def test_every_subject_has_a_page_and_every_section_three_frameworks_and_a_trap() -> None:
    assert sorted(porting_guide.pages()) == sorted(SUBJECTS)
    assert {section.page for section in sections()} == set(SUBJECTS)
    for section in sections():
        assert set(section.code) - {"Input"} == set(FRAMEWORKS), section.title
        assert section.traps, section.title
        assert all(trap.framework in FRAMEWORKS for trap in section.traps), section.title


def test_no_block_escapes_the_runner() -> None:
    """As many code blocks and admonitions on the pages as the parser finds."""
    for page, path in porting_guide.pages().items():
        text = path.read_text("utf-8")
        found = parse(page, text)
        assert text.count("```{") == sum(len(section.code) + len(section.traps) for section in found)
        assert text.count(":::{admonition}") == text.count("Measured:") == sum(len(s.traps) for s in found)
        assert text.count("{container} side-by-side") == len(found) == len(re.findall("^## ", text, re.M))
        assert not re.search(r"^```(?!\{code-block\} python$|$)", text, re.M)


def test_every_planted_bug_has_its_trap() -> None:
    known = {" ".join(name.split()) for name in MUTANTS.split(",")}
    named = {trap.mutant for section in sections() for trap in section.traps} - {None}
    assert named == known


def test_every_planted_bug_is_in_the_catalogue() -> None:
    """The names that the pages give are those of `tests/mutants`, where each is put into the backends."""
    catalogue = pytest.importorskip("mutants", reason="the catalogue of planted bugs is not here").CATALOGUE
    assert {trap.mutant for section in sections() for trap in section.traps} - {None} <= set(catalogue)


def test_only_random_starts_may_agree_loosely() -> None:
    given = {(s.page, float(value)) for s in sections() for value in re.findall(r"tolerance = (\S+)", s.code["Input"])}
    assert given == {("initializers", 0.02), ("optimisers", 1e-4)}
    assert not [s for s in sections() for framework in FRAMEWORKS if "tolerance" in s.code[framework]]


def test_snippets_are_short_enough_to_stand_side_by_side() -> None:
    for section in sections():
        for framework in FRAMEWORKS:
            lines = section.code[framework].splitlines()
            assert len(lines) <= 15, (section.title, framework)
            assert max(map(len, lines)) <= 60, (section.title, framework)


@needs_all_three
def test_a_wrong_figure_and_a_wrong_snippet_are_found() -> None:
    right = section("losses", "Squared error")
    (trap,) = right.traps
    (problem,), _ = measure(replace(right, traps=(replace(trap, figure="0.865 instead of 1.73"),)))
    assert problem.endswith("says '0.865 instead of 1.73', but it is '0.864 instead of 1.73'")
    (problem,), _ = measure(replace(right, traps=(replace(trap, code="pass", figure="1.73 instead of 1.73"),)))
    assert problem.endswith("does no harm")
    for framework in FRAMEWORKS:
        code = right.code[framework] + "result = result * 1.001\n"
        problems, _ = measure(replace(right, code={**right.code, framework: code}))
        assert len([problem for problem in problems if framework in problem and "differs from" in problem]) == 2


@pytest.mark.parametrize(
    "missing", ["Measured: `1`", "Planted bug: none: why.", "```{code-block} python\n:caption: PyTorch\n"]
)
def test_a_trap_with_a_part_missing_is_refused(missing: str) -> None:
    trap = (
        ":::{admonition} Trap: one\n:class: warning\n\n```{code-block} python\n:caption: PyTorch\n\nresult = 1\n```\n\n"
        "Measured: `1`\n\nPlanted bug: none: why.\n:::\n"
    )
    block = "```{code-block} python\n:caption: Input\n\nx = 1\n```\n"
    ((parsed,),) = [section.traps for section in parse("page", f"## Title\n\n{block}{trap}")]
    assert (parsed.framework, parsed.code, parsed.figure, parsed.mutant) == ("PyTorch", "result = 1\n", "1", None)
    with pytest.raises(ValueError, match="trap 'one' needs one block"):
        parse("page", f"## Title\n\n{block}{trap.replace(missing, '')}")


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ([1.0, 2.0], [1.0, 4.0], "0.5 of the largest value"),
        ([1.0, -8.0], [1.0, 4.0], "3 of the largest value"),
        ([1.0, 2002.0], [1.0, 2.0], "1000 of the largest value"),
        ([1.0, np.nan], [1.0, 4.0], "1 of 2 values are not finite"),
        ([1.0], [1.0, 4.0], "shape (1,) instead of (2,)"),
        (20, 40, "20 instead of 40"),
    ],
)
def test_differences_in_words(wrong: object, right: object, words: str) -> None:
    assert difference(np.array(wrong, float), np.array(right, float)) == words


@pytest.mark.parametrize(
    ("measured", "printed", "same"),
    [
        ("1.6 of the largest value", "1.7 of the largest value", True),
        ("1.6 of the largest value", "1.8 of the largest value", False),
        ("0.1 of the largest value", "0.099 of the largest value", True),
        ("440 of the largest value", "460 of the largest value", False),
        ("89 of 90 values are not finite", "90 of 90 values are not finite", False),
        ("0.86 instead of 1.73", "0.87 instead of 1.73", False),
    ],
)
def test_a_figure_may_be_rounded_to_the_other_side(measured: str, printed: str, same: bool) -> None:
    assert porting_guide.same_figure(measured, printed) is same


@needs_sphinx
def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", f"{tmp_path}/doctrees"]
    done = subprocess.run([*command, str(ROOT / "docs"), str(tmp_path / "html")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    built = {
        path.relative_to(tmp_path / "html").as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")
    }
    for page in ["overview", "porting-table", "conformance", *(f"porting/{subject}" for subject in SUBJECTS)]:
        assert f'href="{page}.html' in built["index.html"] or page.startswith("porting/"), page
        assert f"{page}.html" in built
    styles = [path.read_text("utf-8") for path in (tmp_path / "html" / "_static").rglob("*.css")]
    fetched = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?(?:https?:)?//|<link[^>]+href=["']?(?:https?:)?//""")
    assert not [page for page, text in built.items() if fetched.search(text)]
    assert not [style for style in styles if re.search(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", style)]
