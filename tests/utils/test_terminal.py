"""Names of strangers are shown on a terminal, never obeyed; a report on standard output is alone there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.utils import terminal

HOSTILE = "a\x1b]0;title\x07\x9b2J\u202eb\udcff\r"


@given(st.text() | st.lists(st.characters(codec=None)).map("".join))
def test_what_is_shown_can_be_written_and_is_not_obeyed(text):
    shown = terminal.harmless(text)
    shown.encode()  # whatever bytes a file's name had
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in shown)
    assert not set(shown) & {"\x7f", "\x9b", "\u202e", "\u2028"}
    assert terminal.harmless(shown) == shown
    assert "\n" not in terminal.cell(text)


def test_ordinary_names_are_shown_as_they_are():
    for text in ("block1.conv1", "Äpfel & Birnen", "猫", "two words\tand\nlines", "👩‍🔬"):
        assert terminal.harmless(text) == text


def test_an_error_is_one_line_of_bounded_length():
    assert terminal.one_line("a\nb \x1b[2J") == "a b \\x1b[2J"
    assert len(terminal.one_line("9" * 5000)) < 2100


def test_rich_writes_its_colours_behind_the_guard(monkeypatch):
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    with terminal.guarded():
        print(HOSTILE)
        terminal.console().file.write("\x1b[1m")
    assert out.getvalue() == "a\\x1b]0;title\\x07\\x9b2J\\u202eb\\udcff\\r\n\x1b[1m"
    assert sys.stdout is out


NOISY = """
import os, sys
print("printed by a module", HOSTILE)
os.system("echo printed by a child")
os.write(1, b"written by C\\n")
from triptych import zoo
net = zoo.build("lenet")
"""


def test_a_report_is_alone_on_standard_output(here):
    (here / "noisy.py").write_text(f"HOSTILE = {HOSTILE!a}\n{NOISY}")
    command = [sys.executable, "-m", "triptych", "summary", "noisy:net", "--json"]
    path = os.pathsep.join(path for path in sys.path if path)
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    assert json.loads(run.stdout)["arch"] == "lenet"
    for said in ("printed by a module a\\x1b]0;", "printed by a child", "written by C"):
        assert said in run.stderr


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_report_has_no_number_that_json_has_not(value, capsys):
    from triptych.cli.options import write_json

    write_json("-", {"a": [value, (value, 1.5)], "b": {"c": value}})
    read = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert read == {"a": [None, [None, 1.5]], "b": {"c": None}}
