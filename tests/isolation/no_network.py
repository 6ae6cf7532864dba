"""No connection leaves this machine. To import it is enough, and cannot be undone in the process.

An attempt raises, and is noted in the file that TRIPTYCH_TEST_CONNECTIONS names: the test that made it fails (see
`conftest.py`), whoever catches the exception. Loopback stays: downloads are tested with a server of the test's own.
Only what Python opens is seen. What C++ opens is not; no framework does so while it trains in one process.
"""

import os
import sys

# Python's audit events, and which of their arguments names the other end.
EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}
LOOPBACK = ("localhost", "::1", os.uname().nodename)  # torchrun asks for the address of its own machine by name
ANY = ("", "0.0.0.0", "::")  # what a server listens to


def stays_here(end: object) -> bool:
    """Whether an address (host and port, or a Unix socket's path) or a host's name means this machine."""
    if end is None or (isinstance(end, str | bytes) and os.fsdecode(end).startswith(("/", "\0"))):
        return True
    host = end[0] if isinstance(end, tuple) else end
    name = os.fsdecode(host) if isinstance(host, str | bytes) else ""
    return name in LOOPBACK or name in ANY or name.startswith("127.")


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """The audit hook. Raises RuntimeError, which no handler of failed connections catches."""
    position = EVENTS.get(event)
    if position is None or stays_here(arguments[position]):
        return
    attempt = f"{event} {arguments[position]!r}"
    if note := os.environ.get("TRIPTYCH_TEST_CONNECTIONS"):
        with open(note, "a") as file:
            file.write(f"{attempt}\n")
    raise RuntimeError(f"a test reached for the network: {attempt}")


sys.addaudithook(refuse)
