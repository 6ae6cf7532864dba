"""What tests of several packages share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from triptych.conformance.certificate import Certificate, own_digest
from triptych.studies import StudyResult, Table
from triptych.training.loop import Listener
from triptych.training.run_folder import Epoch


class AtOnce(ThreadPoolExecutor):
    """In place of the thread that saves: an epoch is on the disk, and told of, before the next has made two steps, so
    that a test knows what is there when a signal comes."""

    def submit(self, *work: Any, **named: Any) -> Future[Any]:
        future = super().submit(*work, **named)
        wait([future])
        return future


class Silent(Listener):
    """A listener of a training run that shows nothing, and calls `after`, if given, when an epoch is saved."""

    def __init__(self, after: Callable[[Epoch], object] | None = None) -> None:
        self.after = after

    def epoch(self, epoch: Epoch) -> None:
        if self.after is not None:
            self.after(epoch)


def table_of(result: StudyResult, title: str) -> Table:
    """The table of a study's result that has this title."""
    return next(table for table in result.tables if table.title == title)


def python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What another Python prints, with the modules that the tests see, wherever it runs. It has to end with 0."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})


def signed(certificate: Certificate) -> Certificate:
    """As one makes its digest anew who knows how."""
    return replace(certificate, digest=own_digest(certificate))
