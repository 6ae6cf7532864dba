"""Downloads from a server on this machine that breaks off, ignores ranges, or serves something else."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych import data
from triptych.__main__ import main
from triptych.data import cifar10, fashion_mnist
from triptych.data.download import fetch
from triptych.utils.errors import TriptychError
from triptych.utils.files import check_hash

CONTENT = np.random.default_rng(0).bytes(700_000)
HALF = 300_000
MOST = 800_000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        partial = asked is not None and server.ranges is not False
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if server.ranges is True and partial else 0
        if begin >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"fffff\r\n")  # the chunk's length: more than comes
        else:
            self.send_header("Content-Length", str(len(server.content) - begin))
            self.end_headers()
        self.wfile.write(server.content[begin:][: server.until])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.content, running.until, running.ranges, running.asked, running.chunked = CONTENT, None, True, [], False
    running.url = f"http://127.0.0.1:{running.server_port}/set.tar.gz"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def check(content: bytes) -> None:
    check_hash(content, hashlib.sha256(CONTENT).hexdigest(), "the download", "get it elsewhere")


def break_off(server: Any, path: Path) -> Path:
    """A download that ends after `HALF` bytes; what it leaves."""
    server.until = HALF
    with pytest.raises(TriptychError, match=f"ended after {HALF} of {len(CONTENT)} bytes.*get it elsewhere"):
        fetch(server.url, path, check, "get it elsewhere", MOST)
    server.until = None
    assert not path.exists()
    (part,) = path.parent.iterdir()
    assert part.read_bytes() == CONTENT[:HALF]
    return part


@pytest.mark.parametrize("ranges", [True, False, "another one"])
def test_a_broken_download_goes_on_or_begins_again(server, tmp_path, ranges, capsys):
    path = tmp_path / "sets" / "set.tar.gz"
    break_off(server, path)
    server.ranges = ranges
    fetch(server.url, path, check, "", MOST)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.asked == [None, f"bytes={HALF}-"]
    told = capsys.readouterr().err
    assert f"{len(CONTENT):,} bytes" in told
    assert (f"going on at {HALF:,}" in told) == (ranges is True)


def test_a_download_that_breaks_twice_counts_from_the_beginning(server, tmp_path):
    break_off(server, tmp_path / "sets" / "set.tar.gz")
    server.until = 1000
    with pytest.raises(TriptychError, match=f"ended after {HALF + 1000} of {len(CONTENT)} bytes"):
        fetch(server.url, tmp_path / "sets" / "set.tar.gz", check, "", MOST)


def test_what_does_not_fit_together_is_thrown_away_and_fetched_anew(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    part = break_off(server, path)
    part.write_bytes(b"another file" + part.read_bytes()[12:])
    with pytest.raises(TriptychError, match="damaged or not the original"):
        fetch(server.url, path, check, "", MOST)
    assert list(tmp_path.iterdir()) == []
    fetch(server.url, path, check, "", MOST)
    assert path.read_bytes() == CONTENT


def test_an_answer_of_unknown_length_that_breaks_off(server, tmp_path):
    server.chunked = True
    with pytest.raises(TriptychError, match=r"downloading .* failed \(IncompleteRead.*get it elsewhere"):
        fetch(server.url, tmp_path / "set", check, "get it elsewhere", MOST)
    server.chunked = False
    fetch(server.url, tmp_path / "set", check, "", MOST)
    assert server.asked[1].startswith("bytes=")
    assert (tmp_path / "set").read_bytes() == CONTENT


def test_a_part_as_long_as_the_file_is_fetched_anew(server, tmp_path):
    (tmp_path / ".set.part").write_bytes(bytes(len(CONTENT)))
    fetch(server.url, tmp_path / "set", check, "", MOST)
    assert (tmp_path / "set").read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_a_server_that_is_not_there_and_a_folder_that_cannot_be_written(server, tmp_path):
    with pytest.raises(TriptychError, match=r"downloading http://127.0.0.1:1/x failed .*; do it yourself"):
        fetch("http://127.0.0.1:1/x", tmp_path / "x", check, "do it yourself", MOST)
    (tmp_path / "file").touch()
    with pytest.raises(TriptychError, match="cannot write to"):
        fetch(server.url, tmp_path / "file" / "x", check, "", MOST)
    server.content = b""  # it then refuses every range, also the whole
    with pytest.raises(TriptychError, match=r"downloading .* failed"):
        fetch(server.url, tmp_path / "x", check, "", MOST)


def test_cifar10_is_fetched_and_a_damaged_one_replaced(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cifar10, "URL", server.url)
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(CONTENT).hexdigest())
    archive = tmp_path / cifar10.ARCHIVE
    for _ in range(2):
        with pytest.raises(SystemExit, match="0"):
            main(["data", "download", "cifar10", "--data-dir", str(tmp_path)])
        assert str(archive) in capsys.readouterr().out
    assert len(server.asked) == 1  # the second found it
    archive.write_bytes(CONTENT[:-1])
    assert data.download("cifar10", tmp_path) == archive
    assert archive.read_bytes() == CONTENT
    with pytest.raises(TriptychError, match="part of the package"):
        data.download("fashion-mnist-mini")
    with pytest.raises(TriptychError, match="unknown data set"):
        data.download("cifar11")


# --- servers that mean no good ---------------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[Any]:
    """`answering(head, body)`: the address of a server that sends these bytes; the body may be a function,
    whose pieces come one after the other."""
    listening: list[socket.socket] = []
    stopped = threading.Event()

    def answer(head: bytes, body: Any = b"") -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(head)
                for piece in body() if callable(body) else [body]:
                    if stopped.is_set():
                        return
                    connection.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/set"

    yield answer
    stopped.set()
    for server in listening:
        server.close()


OK = b"HTTP/1.1 200 OK\r\n"


def longer() -> Iterator[bytes]:
    """Eight times what there may be: who would take an endless one takes all of this."""
    yield from [bytes(1 << 16)] * 100


def slowly() -> Iterator[bytes]:
    """Four times as long as anybody waits."""
    for _ in range(200):
        time.sleep(0.02)
        yield b"x"


@pytest.mark.parametrize(
    ("head", "body", "message"),
    [
        (OK + b"\r\n", longer, "goes on after 800,000 bytes"),
        (OK + b"Content-Length: abc\r\n\r\n", longer, "goes on after 800,000 bytes"),
        (OK + b"Content-Length: -5\r\n\r\n", b"", "damaged or not the original"),
        (OK + b"Content-Length: 800001\r\n\r\n", b"", "it has 800,001 bytes, expected at most 800,000"),
        (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"", "failed|damaged"),
        (OK + b"Content-Length: 90\r\n\r\n", slowly, "only [0-9]+ bytes came in 1 seconds"),
        (OK + b"X: ", slowly, "no answer in 1 seconds"),
        (OK + b"X: y\r\n" * 200 + b"\r\n", b"", "100 headers"),
        (OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n", b"", "more than 65536 bytes"),
        (b"nonsense\r\n\r\n", b"", "nonsense"),
        (b"HTTP/1.1 302 F\r\nLocation: http://[::1\r\n\r\n", b"", "Invalid IPv6 URL"),
        (b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n", b"", "not allowed"),
        (b"HTTP/1.1 302 F\r\nLocation: http://a..b/\r\n\r\n", b"", "failed"),
        (b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:99999/\r\n\r\n", b"", "failed"),
        (
            b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-\r\nContent-Length: 1\r\n\r\n",
            b"x",
            "damaged or not the original",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else repr(value)[:50],
)
def test_an_answer_that_means_no_good_is_one_error(answering, head, body, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[fetch.__module__], "PATIENCE", 1)
    with pytest.raises(TriptychError, match=message):
        fetch(answering(head, body), tmp_path / "set", check, "", MOST)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= MOST


def test_the_sizes_that_are_asked_for_are_those_of_the_sets():
    assert cifar10.MOST_ARCHIVE == 170_498_071
    assert fashion_mnist.MOST_BYTES == 60_000 * 28 * 28 + 16
