"""Starts the processes of one training, and ends them all as soon as one of them fails.

What they send each other is the framework's affair; here is only who is started, who has died, and what is said."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, NamedTuple, TypeAlias

from triptych.backend.joining import Member, ended
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted, interruptible
from triptych.utils.process import cores

PREFIX = "triptych: "
BAD_INPUT = 2  # the status of a process that said in a line of its own what is wrong
POLL_SECONDS = 0.1
GRACE_SECONDS = 4.0  # between SIGTERM and SIGKILL; of processes that wait for a dead one, none answers SIGTERM
HELPER_SECONDS = 10.0  # that schedulers and servers have to end after the last worker
PR_SET_PDEATHSIG = 1

Process: TypeAlias = subprocess.Popen[bytes]


class ProcessFailedError(TriptychError):
    """A process died of something else than bad input."""


class _Failed(NamedTuple):
    name: str
    status: int


def launch(members: Sequence[Member], program: Sequence[str], minor: str = "") -> None:
    """Run `program`, arguments of Python, as each of `members`, and wait for all. Lines of theirs that begin as those
    of an error do are held back until all have ended, and said once; those that contain `minor` tell of no cause.

    Raises TriptychError with the cause as soon as one fails, ProcessFailedError if it was killed, and Interrupted on
    SIGINT and SIGTERM, which are handed on; no process is left in any of these cases."""
    read, write = os.pipe()
    held: list[str] = []
    reader = threading.Thread(target=_pass_on, args=(os.fdopen(read, errors="replace"), held), daemon=True)
    reader.start()
    with interruptible() as interrupted:
        started = [_start(member, program, write, len(members)) for member in members]
        os.close(write)
        try:
            failed = _wait(members, started, interrupted)
        finally:
            _end(started, interrupted() or signal.SIGTERM)
            reader.join(GRACE_SECONDS)
        number = interrupted()
    causes = distinct(held)
    if number:
        raise Interrupted(number, causes[0].partition("; ")[2] if causes else "")
    if failed is not None:
        said = [line for line in causes if not minor or minor not in line]
        if failed.status != BAD_INPUT or not said:
            died = [] if any("was killed by" in line for line in said) else [ended(failed.name, failed.status)]
            raise ProcessFailedError("; ".join([*said, *died, "the other processes were ended"]))
        raise TriptychError("; ".join(said))


def _start(member: Member, program: Sequence[str], stderr: int, count: int) -> Process:
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // count))}  # else every one takes all cores
    environment = threads | dict(os.environ) | member.environment
    command = [*member.command, *program]
    # A session of its own: SIGINT of the terminal comes from here alone.
    return subprocess.Popen(
        command, env=environment, stderr=stderr, start_new_session=True, preexec_fn=_end_with_the_launcher
    )


def _end_with_the_launcher() -> None:
    with suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(members: Sequence[Member], started: Sequence[Process], interrupted: Callable[[], int]) -> _Failed | None:
    """Until the workers have ended, or one of all has failed: that one."""
    told = 0
    while True:
        states = [process.poll() for process in started]
        ends = [_Failed(member.name, status) for member, status in zip(members, states, strict=True) if status]
        if ends and not told:
            return min(ends, key=lambda end: end.status >= 0)  # who was killed, before who then missed it
        if all(status is not None for member, status in zip(members, states, strict=True) if not member.helper):
            break
        if interrupted() and not told:
            told = interrupted()
            # The others need their helpers to agree where they stop.
            _signal([process for member, process in zip(members, started, strict=True) if not member.helper], told)
        time.sleep(POLL_SECONDS)
    _wait_until(started, 0 if told else HELPER_SECONDS)
    return None


def _signal(started: Sequence[Process], number: int) -> None:
    for process in started:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def _end(started: Sequence[Process], number: int) -> None:
    _signal(started, number)
    _wait_until(started, GRACE_SECONDS)
    _signal(started, signal.SIGKILL)
    for process in started:
        process.wait()


def _wait_until(started: Sequence[Process], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while any(process.poll() is None for process in started) and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)


def _pass_on(lines: IO[str], held: list[str]) -> None:
    """What the processes write to standard error, at once, but for the lines that say why one ended."""
    with lines:
        for line in lines:
            if line.startswith(PREFIX):
                held.append(line.removeprefix(PREFIX).strip())
            else:
                print(line, end="", file=sys.stderr, flush=True)


def distinct(lines: Sequence[str]) -> list[str]:
    """What the processes said, without repetition: a line of the first process has no number before it, and stands for
    the others' that say the same."""
    numbered = re.compile(r"process \d+: ")
    first = [line for line in lines if not numbered.match(line)]
    return list(dict.fromkeys(first + [line for line in lines if numbered.sub("", line, count=1) not in first]))
