"""The examples of the page "Ten examples from Python" run, each by itself, in a folder of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from triptych.backend import registry

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"^## (\d+\. .*?)\n\n```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def needed(code: str) -> list[str]:
    """The backends whose framework an example names."""
    return [name for name in registry.BACKENDS if re.search(rf"\b{name}\b", code)]


def test_there_are_ten() -> None:
    assert len(EXAMPLES) == PAGE.read_text(encoding="utf-8").count("```python") == 10


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_runs(title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [name for name in needed(code) if name not in registry.installed()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, title, "exec"), {"__name__": "example"})
