"""Downloads from a server on this machine that breaks off, ignores ranges, or serves something else."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych import data
from triptych.__main__ import main
from triptych.data import cifar10
from triptych.data.download import fetch
from triptych.utils.errors import TriptychError
from triptych.utils.files import check_hash

CONTENT = np.random.default_rng(0).bytes(700_000)
HALF = 300_000


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
        fetch(server.url, path, check, "get it elsewhere")
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
    fetch(server.url, path, check, "")
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
        fetch(server.url, tmp_path / "sets" / "set.tar.gz", check, "")


def test_what_does_not_fit_together_is_thrown_away_and_fetched_anew(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    part = break_off(server, path)
    part.write_bytes(b"another file" + part.read_bytes()[12:])
    with pytest.raises(TriptychError, match="damaged or not the original"):
        fetch(server.url, path, check, "")
    assert list(tmp_path.iterdir()) == []
    fetch(server.url, path, check, "")
    assert path.read_bytes() == CONTENT


def test_an_answer_of_unknown_length_that_breaks_off(server, tmp_path):
    server.chunked = True
    with pytest.raises(TriptychError, match=r"downloading .* failed \(IncompleteRead.*get it elsewhere"):
        fetch(server.url, tmp_path / "set", check, "get it elsewhere")
    server.chunked = False
    fetch(server.url, tmp_path / "set", check, "")
    assert server.asked[1].startswith("bytes=")
    assert (tmp_path / "set").read_bytes() == CONTENT


def test_a_part_as_long_as_the_file_is_fetched_anew(server, tmp_path):
    (tmp_path / ".set.part").write_bytes(bytes(len(CONTENT)))
    fetch(server.url, tmp_path / "set", check, "")
    assert (tmp_path / "set").read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_a_server_that_is_not_there_and_a_folder_that_cannot_be_written(server, tmp_path):
    with pytest.raises(TriptychError, match=r"downloading http://127.0.0.1:1/x failed .*; do it yourself"):
        fetch("http://127.0.0.1:1/x", tmp_path / "x", check, "do it yourself")
    (tmp_path / "file").touch()
    with pytest.raises(TriptychError, match="cannot write to"):
        fetch(server.url, tmp_path / "file" / "x", check, "")
    server.content = b""  # it then refuses every range, also the whole
    with pytest.raises(TriptychError, match=r"downloading .* failed"):
        fetch(server.url, tmp_path / "x", check, "")


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
