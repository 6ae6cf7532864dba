"""What a library says about a command is heard at its end, once, and by nobody where there is no command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from triptych.utils import remarks


def listener(log: list[str]) -> Callable[[remarks.Remarks], AbstractContextManager[None]]:
    @contextmanager
    def make(said: remarks.Remarks) -> Iterator[None]:
        log.append("begun")
        yield
        log.append("ended")
        said["lines"] = len(log)

    return make


def test_it_is_begun_once_and_ends_with_the_command() -> None:
    log: list[str] = []
    with remarks.collected():
        remarks.watch("library", listener(log))
        remarks.watch("library", listener(log))
        assert log == ["begun"]
    assert log == ["begun", "ended"]


def test_a_report_hears_it_before_the_end_and_the_next_command_does_not() -> None:
    log: list[str] = []
    with remarks.collected():
        remarks.watch("library", listener(log))
        assert remarks.finish() == remarks.finish() == {"lines": 2}
    with remarks.collected():
        assert remarks.finish() == {}
    assert log == ["begun", "ended"]


def test_without_a_command_nothing_is_begun() -> None:
    log: list[str] = []
    remarks.watch("library", listener(log))
    assert log == []
