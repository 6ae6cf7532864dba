"""How processes find each other: what the environment says, and what is told to somebody whose processes do not."""

import errno
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from triptych.utils.errors import TriptychError

LOOPBACK = "127.0.0.1"
TIMEOUT = "TRIPTYCH_JOIN_SECONDS"  # how long processes wait for each other at the start
DEFAULT_TIMEOUT = 60.0
NAMED_IN, BETWEEN = 10.0, 0.5  # seconds in which a host gets its name, and between two questions for it


@dataclass(frozen=True)
class Member:
    """A process that a launcher starts: its name, what stands before the program's own arguments, and what is added to
    its environment. `helper`: one that serves the others and has no end of its own."""

    name: str
    command: tuple[str, ...] = (sys.executable,)
    environment: dict[str, str] = field(default_factory=dict)
    helper: bool = False


@dataclass(frozen=True)
class Membership:
    """Which process of how many this one is, and where the first one waits for the others."""

    rank: int
    size: int
    host: str
    port: int

    @property
    def local(self) -> bool:
        """Whether all of them are on this machine, as far as the address says."""
        return self.host == "localhost" or self.host.startswith("127.")


def read_place(rank: str, size: str, address: str, names: str) -> Membership:
    """A place as text says it. Raises TriptychError, with the `names` of where it stands, for what is none."""
    host, _, port = address.rpartition(":")
    try:
        place = Membership(int(rank), int(size), host, int(port))
    except ValueError:
        raise TriptychError(
            f"{names}: '{rank}' of '{size}' at '{address}' is no process, count and host:port"
        ) from None
    if not (0 <= place.rank < place.size and host and 0 < place.port < 65536):
        raise TriptychError(f"{names}: there is no process {rank} of {size} at '{address}'; the first is number 0")
    return place


def said_address(host: str, port: str) -> str:
    """`host:port`, of the environment's variables with these names."""
    return f"{os.environ.get(host, '')}:{os.environ.get(port, '')}"


def slurm_place() -> Membership | None:
    """The place in a step of SLURM (what `srun` starts) of several tasks; None outside of one. The first host of the
    list is process 0's; the port is made of the job's number, so that two jobs on one machine do not meet."""
    said = os.environ
    if "SLURM_STEP_NODELIST" not in said or said.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return None
    host = first_host(said["SLURM_STEP_NODELIST"])
    job = said.get("SLURM_JOB_ID", "0")
    port = 61440 + (int(job) if job.isdigit() else 0) % 4096
    names = "SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_STEP_NODELIST"
    return read_place(said.get("SLURM_PROCID", ""), said["SLURM_STEP_NUM_TASKS"], f"{host}:{port}", names)


def first_host(nodes: str) -> str:
    """The first of SLURM's short form of several: `node[07-09,12],other` is `node07`, and so on."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else ""


def seconds() -> float:
    """How long processes wait for each other at the start. Raises TriptychError for what is no time."""
    text = os.environ.get(TIMEOUT, str(DEFAULT_TIMEOUT))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise TriptychError(f"{TIMEOUT} '{text}' is no number of seconds above 0")
    return value


def free_port() -> int:
    """A port of loopback that nobody listens to."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


def loopback_interface() -> str:
    """Its name: `lo` on Linux, `lo0` elsewhere."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "lo")


def check_address(place: Membership, *, listens: bool | None = None) -> None:
    """Raises TriptychError where the address has no meaning here, also after `NAMED_IN` seconds, or cannot be listened
    to by the process that `listens` (None: the first does)."""
    family, kind, protocol, _, end = _meaning(place, time.monotonic() + min(NAMED_IN, seconds()))
    if not (place.rank == 0 if listens is None else listens):
        return
    try:
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(end)
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "the port is in use; choose another",
            errno.EADDRNOTAVAIL: "it is no address of this machine, where process 0 has to run",
        }.get(error.errno or 0, error.strerror)
        raise TriptychError(f"cannot listen to {place.host}:{place.port}: {reason}") from None


def _meaning(place: Membership, until: float) -> tuple[Any, ...]:
    """What the system says of the address; asked again `until` then, as a cluster's name server learns the name of a
    process's place when that has started."""
    while True:
        try:
            return socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            if time.monotonic() >= until:
                raise TriptychError(
                    f"the address {place.host}:{place.port} is not known here: {error.strerror}"
                ) from None
            time.sleep(BETWEEN)


@contextmanager
def in_time(place: Membership) -> Iterator[None]:
    """Ends this process with one line and status 2 if what is within, which no exception could interrupt, takes longer
    than processes wait for each other."""
    limit = seconds()

    def end() -> None:
        print(f"triptych: {too_late(place, limit)}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def too_late(place: Membership, limit: float) -> str:
    """What is said when not all processes came."""
    return (
        f"waited {limit:g} s at {place.host}:{place.port}, and not all of the {place.size} processes came; start the "
        f"others with this address, or wait longer by {TIMEOUT}"
    )


def ended(name: str, status: int) -> str:
    """How a process ended, by the status that `subprocess` gives it."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"{name} {how}"
