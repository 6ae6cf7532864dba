"""Downloads that show progress, go on where they were stopped, and get their name only when they were checked."""

import http.client
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from triptych.utils import lock
from triptych.utils.errors import TriptychError
from triptych.utils.files import told
from triptych.utils.reading import read_bounded

TIMEOUT = 30  # seconds without an answer
PATIENCE = 60  # seconds in which an answer has to begin, and over which its speed is looked at
SLOWEST = 1 << 10  # bytes per second
CHUNK = 1 << 18  # bytes between two looks at the progress
NO_SUCH_RANGE = 416  # HTTP: what is here is as long as the file, or longer
PARTIAL = 206


def fetch(url: str, path: Path, check: Callable[[bytes], None], way_out: str, most: int) -> None:
    """Fetches `url`, which has no more than `most` bytes, to `path`. What an interrupted download has brought stays
    beside it; the next one goes on there. `check` raises TriptychError for wrong content, which is then thrown away.
    Raises TriptychError, which ends with the `way_out`, where the address does not answer, the answer ends too early,
    goes on beyond its size or comes more slowly than anybody would wait for, where another process fetches it, or
    nothing can be written."""
    part = path.with_name(f".{path.name}.part")
    with told(f"cannot write to {path.parent}", "choose another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock.acquire(part.with_suffix(".lock"), f"the download of {path}"):
            _receive(url, part, way_out, most)
            try:
                check(read_bounded(part, most))
            except TriptychError:
                part.unlink()
                raise
            part.replace(path)


def _receive(url: str, part: Path, way_out: str, most: int) -> None:
    """Appends to `part` what it lacks, or writes it anew if the server cannot go on in the middle."""
    response, begin = _open(url, part.stat().st_size if part.exists() else 0, way_out)
    with response:
        length = response.headers.get("Content-Length", "")
        total = begin + int(length) if re.fullmatch("[0-9]{1,15}", length) else None  # anything else tells nothing
        if total is not None and total > most:
            raise _failed(url, f"it has {total:,} bytes, expected at most {most:,}", way_out)
        with part.open("ab" if begin else "wb") as file:
            for chunk in _watched(_chunks(response, url, way_out), url, begin, total):
                file.write(chunk)
                if file.tell() > most:
                    file.truncate(0)  # it is not the file, and none to go on with
                    raise _failed(url, f"it goes on after {most:,} bytes, which is all that it may have", way_out)
    size = part.stat().st_size
    if total is not None and size < total:
        raise TriptychError(f"downloading {url} ended after {size} of {total} bytes; again goes on there; {way_out}")


def _open(url: str, begin: int, way_out: str) -> tuple[Any, int]:
    """The answer, and the position in the file at which it begins: `begin`, or 0."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    try:
        response = _within(PATIENCE, lambda: urllib.request.urlopen(request, timeout=TIMEOUT))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address to go on to that is none
        if begin and isinstance(error, urllib.error.HTTPError) and error.code == NO_SUCH_RANGE:
            return _open(url, 0, way_out)
        raise _failed(url, error, way_out) from None
    wanted = response.status == PARTIAL and response.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
    return response, begin if wanted else 0


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call returns or raises. Raises TimeoutError if that takes longer; the call is left alone then: a socket's
    timeout begins anew with every byte, so a server can answer for ever."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise TimeoutError(f"no answer in {seconds:g} seconds")
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def _chunks(response: Any, url: str, way_out: str) -> Iterator[bytes]:
    """What comes, as it comes; at no time less than `SLOWEST` over `PATIENCE`."""
    began, received = time.monotonic(), 0
    try:
        while chunk := response.read1(CHUNK):  # `read` would wait for all of it, however slowly it comes
            yield chunk
            received += len(chunk)
            if (waited := time.monotonic() - began) >= PATIENCE:
                if received < SLOWEST * waited:
                    raise _failed(url, f"only {received:,} bytes came in {waited:.0f} seconds", way_out)
                began, received = time.monotonic(), 0
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failed(url, error, way_out) from None


def _failed(url: str, error: Exception | str, way_out: str) -> TriptychError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return TriptychError(f"downloading {url} failed ({reason}); {way_out}")


def _watched(chunks: Iterator[bytes], url: str, begin: int, total: int | None) -> Iterator[bytes]:
    """The chunks, while a terminal shows a bar of them; elsewhere one line says what is fetched."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from triptych.utils.terminal import console

    if not sys.stderr.isatty():
        size = "" if total is None else f", {total:,} bytes"
        print(f"downloading {url}{size}{f', going on at {begin:,}' if begin else ''}", file=sys.stderr, flush=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task(url.rpartition("/")[2], total=total, completed=begin)
        for chunk in chunks:
            yield chunk
            bar.advance(task, len(chunk))
