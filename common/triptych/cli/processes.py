"""A command as several processes: started here, or as one of those that somebody has started."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.backend.contract import Backend
    from triptych.conformance.processes import SharedRun


def to_launch(backend: Backend, processes: int) -> bool:
    """Whether this process is to start `processes` others in its place. Raises TriptychError where somebody has
    started another number."""
    place = backend.place()
    if place is not None and processes != place.size:
        raise TriptychError(f"--processes {processes}, but the environment says that this is one of {place.size}")
    return place is None and processes > 1


def launch(backend: Backend, processes: int) -> int:
    """The same command line as so many processes; the exit status. Raises TriptychError with what one of them found
    wrong."""
    from triptych.training.distributed import launch as launcher
    from triptych.training.distributed.membership import LOST

    with tempfile.TemporaryDirectory() as folder:
        try:
            launcher.launch(backend.members(processes, Path(folder)), ("-m", "triptych", *sys.argv[1:]), minor=LOST)
        except launcher.ProcessFailedError as error:
            print(f"triptych: {error}", file=sys.stderr)
            return 1
    return 0


def show_shared(name: str, shared: SharedRun) -> None:
    """A row per backend of training by several processes."""
    from triptych.conformance import processes
    from triptych.conformance.compare import worst

    rows = []
    for run in shared.runs:
        check = worst(run.checks)
        note = "" if check is None else check.problem or f"{check.tensor}: {check.difference:.1e}"
        rows.append((run.backend, run.precision, "pass" if run.passed else "FAIL", note, run.refused))
    title = f"{name}: {processes.STEPS} steps of {shared.count} processes against one"
    print_table(("backend", "precision", "result", "worst", "why not fp64"), rows, title=title)
    print()
