"""docs/upstream.md: printed by benchmarks/upstream.py, from reproductions that need one framework alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/upstream.md"

with pytest.MonkeyPatch.context() as scripts:
    scripts.syspath_prepend(str(ROOT / "benchmarks"))
    import upstream


@pytest.mark.parametrize("name", upstream.CASES)
def test_the_page_has_the_case_as_it_is_run(name):
    title, text, source = upstream.describe(upstream.CASES[name])
    page = PAGE.read_text()
    assert title in page
    assert text in page
    assert f"```python\n{source}\n```" in page
    assert f"$ python benchmarks/upstream.py {name}\n" in page


@pytest.mark.parametrize("name", upstream.CASES)
def test_a_case_imports_its_framework_and_nothing_of_this_project(name):
    _, _, source = upstream.describe(upstream.CASES[name])
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    framework = name.partition("_")[0]
    assert framework in imported
    assert imported <= {framework, "jax", "time"}


def test_a_case_that_ends_its_process_is_shown_with_how_it_ended(monkeypatch, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("import os\nprint('before', flush=True)\nos.abort()\n")
    monkeypatch.setattr(upstream, "__file__", str(script))
    assert upstream.run("any") == "before\n(the process ended by SIGABRT)"
