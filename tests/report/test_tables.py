"""Tables where the terminal is narrow."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from triptych.report import tables


def printed(monkeypatch: pytest.MonkeyPatch, width: int, words: str, **options: Any) -> list[str]:
    """The lines of a table of a name, two numbers and words."""
    out = io.StringIO()
    monkeypatch.setattr(tables, "console", lambda: Console(file=out, width=width, markup=False, highlight=False))
    rows = [("inception_resnet_v2", "55,843,464", "13,128,954,880", words), ("lenet", "61,706", "416,520", words)]
    tables.print_table(("architecture", "parameters", "MACs", "source"), rows, right=(1, 2), **options)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [160, 80, 60])
def test_numbers_and_names_are_whole_and_words_are_folded(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = printed(monkeypatch, width, "Szegedy et al. 2016, as in Keras, and more words than stand in a line")
    assert max(map(len, lines)) <= width
    (line,) = [line for line in lines if "inception" in line]
    assert all(whole in line for whole in ("inception_resnet_v2", "55,843,464", "13,128,954,880"))
    assert len(lines) > 3 or width == 160


@pytest.mark.parametrize("title", [None, "networks"])
def test_a_long_table_is_what_rich_would_print(monkeypatch: pytest.MonkeyPatch, title: str | None) -> None:
    by_rich = printed(monkeypatch, 160, "a few words", title=title)
    monkeypatch.setattr(tables, "LONG", 1)
    assert printed(monkeypatch, 160, "a few words", title=title) == by_rich
    narrow = printed(monkeypatch, 60, "words that do not stand in a line of so few columns", title=title)
    assert max(map(len, narrow)) <= 60


@pytest.mark.parametrize("width", [160, 80, 65])
def test_words_that_may_be_cut_take_a_line_and_nothing_else_is_cut(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    words = "Szegedy et al. 2016, as in Keras, and more words than stand in a line"
    lines = printed(monkeypatch, width, words, cut=(3,))
    assert max(map(len, lines)) <= width
    assert len(lines) == 3
    assert all(whole in lines[1] for whole in ("inception_resnet_v2", "55,843,464", "13,128,954,880", "Szegedy"))
    assert (words in lines[1]) == (width == 160)
    assert ("…" in lines[1]) == (width < 160)


def test_what_does_not_stand_beside_each_other_stands_in_tables_below_with_the_names(monkeypatch: Any) -> None:
    lines = printed(monkeypatch, 40, "words of ours", title="Networks")
    assert max(map(len, lines)) <= 40
    assert [line.split()[0] for line in lines if line.startswith(("arch", "Net"))] == [
        "Networks",
        *["architecture"] * 3,
    ]
    assert sum(line.startswith("lenet ") for line in lines) == 3
    for whole in ("55,843,464", "13,128,954,880", "61,706", "416,520"):
        assert any(whole in line.split() for line in lines)


def test_a_number_that_has_no_line_to_stand_in_is_folded_and_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(printed(monkeypatch, 11, "words"))
    digits = sorted(sign for sign in text if sign.isdigit())
    assert digits == sorted("222" + "55843464" + "13128954880" + "61706" + "416520")  # the name is there three times


def test_a_title_of_several_words_and_words_are_folded_between_them_and_rows_are_told_apart(monkeypatch: Any) -> None:
    out = io.StringIO()
    monkeypatch.setattr(tables, "console", lambda: Console(file=out, width=46, markup=False, highlight=False))
    columns = ("run", "backend", "published: test accuracy", "its settings", "start", "parameters")
    settings = "kaiming_uniform everywhere, dense too"
    rows = [("VGG", backend, "0.909", settings, "xavier_uniform", "123,456,789") for backend in ("torch", "jax")]
    tables.print_table(columns, rows, right=(2, 5))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 46
    assert [line.split() for line in lines if line.startswith("run")] == [
        ["run", "backend", "accuracy", "its", "settings"],
        ["run", "backend", "start", "parameters"],
    ]
    assert ["VGG", "jax", "xavier_uniform", "123,456,789"] in [line.split() for line in lines]
    assert any("kaiming_uniform" in line for line in lines)


def test_a_line_of_training_stands_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from triptych.cli.progress import Reporter
    from triptych.training.run_folder import Epoch

    Reporter(60).epoch(Epoch(10, 4690, "mxnet", 0.2345, 0.9012, 0.3, 0.8912, 123.4, 1234.5))
    line = capsys.readouterr().out.strip()
    assert len(line) <= 80
    assert line == "mxnet epoch 10/60: loss 0.2345, train 0.9012, test 0.8912, 123 s, 1234 images/s"
