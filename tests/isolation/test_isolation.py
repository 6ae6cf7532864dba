"""That the tests see nothing of the machine, and that a connection is an error whoever makes it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

import isolation
import triptych
from helpers import python
from triptych.data import fashion_mnist
from triptych.utils.files import cache_dir

ELSEWHERE = ("192.0.2.1", 9)  # RFC 5737: an address for documentation
HIDDEN = f"""
import contextlib, socket
with contextlib.suppress(Exception):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect({ELSEWHERE})
"""


def test_a_connection_from_this_process_is_refused_and_noted() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        pytest.raises(RuntimeError, match="a test reached for the network"),
    ):
        sender.sendto(b"", ELSEWHERE)
    with pytest.raises(RuntimeError, match="a test reached for the network"):
        socket.getaddrinfo("host.invalid", 80)
    assert isolation.attempted_connections() == [f"socket.sendto {ELSEWHERE}", "socket.getaddrinfo 'host.invalid'"]


def test_a_connection_from_another_process_is_noted_though_nobody_says_so() -> None:
    python(HIDDEN)
    assert isolation.attempted_connections() == [f"socket.connect {ELSEWHERE}"]


def test_this_machine_can_be_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
    assert isolation.attempted_connections() == []


def test_home_caches_and_data_sets_of_the_user_are_out_of_sight() -> None:
    assert "triptych-tests-" in os.environ["HOME"]
    assert Path.home() in cache_dir().parents
    assert not any(folder.exists() for folder in fashion_mnist.system_folders())
    assert not set(isolation.FORGOTTEN) & set(os.environ)


def test_other_processes_find_the_code_that_is_tested_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert python("import triptych; print(triptych.__file__)").stdout.strip() == triptych.__file__
