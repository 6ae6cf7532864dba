"""Several processes and devices that train one network: the mathematics of one, and ends that leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from marks import NO_FRAMEWORK
from triptych.backend import joining, registry
from triptych.backend.group import Group, entire
from triptych.backend.joining import Member, Place
from triptych.conformance.trajectory import BUDGET, FLOOR
from triptych.training.distributed.launch import ProcessFailedError, distinct, launch
from triptych.utils.errors import TriptychError

BACKENDS = registry.installed()
if not BACKENDS:
    pytest.skip(NO_FRAMEWORK, allow_module_level=True)
every_backend = pytest.mark.parametrize("name", BACKENDS)
MEMBER = Path(__file__).parents[1] / "group_member.py"
# of float32, after the twenty steps: what one unit in the last place at the start does to one process is as much
FLOAT32_BUDGET = 3e-4
IN_FP64 = ("whole-fp64", "accumulated-fp64", "plain-fp64", "whole-fp32")
# MXNet's server has no float64, and its batch norm knows one device of a process.
PROCESSES = {"torch": IN_FP64, "jax": IN_FP64, "mxnet": ("whole-fp32", "accumulated-fp32", "plain-fp32")}
DEVICES = {"jax": IN_FP64[:3], "mxnet": ("plain-fp64",)}


# --- shares -----------------------------------------------------------------------------------------------------------


def group_of(rank: int, size: int, devices: int = 1, even: bool = False) -> Group:
    group = Group()
    group.rank, group.size, group.devices, group.even = rank, size, devices, even
    return group


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize(("size", "devices"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (4, 3)])
def test_every_image_of_a_batch_is_given_and_counts_once(size, devices, even):
    for count, accumulate in product(range(1, 30), (1, 2, 3)):
        weights = np.zeros((size, count))
        for rank in range(size):
            group = group_of(rank, size, devices, even)
            shares = group.shares(count, accumulate)
            assert len(shares) == min(accumulate, count)
            for share in shares:
                each = np.zeros(count)
                for part in group.device_shares(share):
                    assert len(part) > 0
                    assert share.begin <= part.begin < part.end <= share.end
                    each[part.images] += part.weight / len(part)
                weights[rank] += each
                of_process = np.zeros(count)
                of_process[share.images] = share.weight / len(share)
                np.testing.assert_allclose(each, of_process, atol=1e-12)
        np.testing.assert_allclose(weights.sum(0), 1 / count)


def test_the_shares_of_all_processes_are_the_batch_in_order():
    shares = [group_of(rank, 3).shares(16) for rank in range(3)]
    assert [(share.begin, share.end) for (share,) in shares] == [(0, 5), (5, 10), (10, 16)]
    halves = [group_of(rank, 2).shares(16, 2) for rank in range(2)]
    assert [[(share.begin, share.end) for share in of] for of in halves] == [[(0, 4), (8, 12)], [(4, 8), (12, 16)]]


def test_what_cannot_be_cut_is_given_to_all_and_counts_once():
    (small,) = group_of(1, 4).shares(3)
    assert (small.images, small.weight) == (slice(0, 3), 0.25)
    (odd,) = group_of(1, 2, even=True).shares(7)
    assert (odd.images, odd.weight) == (slice(0, 7), 0.5)
    assert entire(7).entire
    assert not odd.entire


def test_evaluation_is_cut_without_rest():
    parts = [group_of(rank, 3).part_of(10) for rank in range(3)]
    assert [number for part in parts for number in range(10)[part]] == list(range(10))


# --- the same mathematics ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Per backend: the folder of its runs in one process."""
    made: dict[str, Path] = {}

    def runs(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            needed = dict.fromkeys((*PROCESSES[name], *DEVICES.get(name, ())))
            command = [sys.executable, str(MEMBER), name, "1", str(made[name]), *needed]
            subprocess.run(command, check=True, timeout=300)
        return made[name]

    return runs


def assert_same_runs(several: Path, one: Path, runs: tuple[str, ...]) -> None:
    assert {path.stem for path in several.iterdir()} == set(runs)
    for run in runs:
        left, right = np.load(several / f"{run}.npz"), np.load(one / f"{run}.npz")
        assert set(left.files) == set(right.files)
        exact = "fp64" in run
        budget = BUDGET if exact else FLOAT32_BUDGET
        largest = max(np.abs(right[name]).max() for name in right.files)
        # In float32 as the trajectory level has it: a bias before a batch norm is the rest of a cancellation.
        for name in right.files if exact else ("losses", "metrics"):
            scale = max(np.abs(right[name]).max(), FLOOR * largest)
            assert np.abs(left[name] - right[name]).max() <= budget * scale, (run, name)
        assert np.array_equal(left["metrics"][:, [1, 3]], right["metrics"][:, [1, 3]])  # right answers


@every_backend
def test_two_processes_do_what_one_does(name, alone, tmp_path):
    """With dropout, crops, flips, batch norm, a last batch of one image, accumulation, unequal parts."""
    program = [str(MEMBER), name, "1", str(tmp_path), *PROCESSES[name]]
    launch(registry.load(name).members(2, beside(tmp_path)), program)
    assert_same_runs(tmp_path, alone(name), PROCESSES[name])


@pytest.mark.parametrize("name", [name for name in BACKENDS if name in DEVICES])
def test_two_devices_of_one_process_do_what_one_does(name, alone, tmp_path):
    subprocess.run([sys.executable, str(MEMBER), name, "2", str(tmp_path), *DEVICES[name]], check=True, timeout=300)
    assert_same_runs(tmp_path, alone(name), DEVICES[name])


def beside(tmp_path: Path) -> Path:
    """An empty folder beside a test's own."""
    folder = tmp_path.with_name(f"{tmp_path.name}-launcher")
    folder.mkdir()
    return folder


# --- the launcher -----------------------------------------------------------------------------------------------------


def launch_python(*programs: str) -> None:
    """A process for each program, which finds its number in the environment."""
    code = "import os, sys, time, signal; exec(sys.argv[1 + int(os.environ['NUMBER'])])"
    members = [Member(f"process {i}", environment={"NUMBER": str(i)}) for i in range(len(programs))]
    launch(members, ["-c", code, *programs])


def test_a_launch_ends_when_all_have_ended(capfd):
    launch_python("print('one')", "print('two', file=sys.stderr)")
    out, err = capfd.readouterr()
    assert (out, err) == ("one\n", "two\n")


def test_a_killed_process_ends_the_others_and_is_named():
    began = time.monotonic()
    with pytest.raises(ProcessFailedError, match="process 1 was killed by SIGKILL; the other processes were ended"):
        launch_python("time.sleep(60)", "os.kill(os.getpid(), signal.SIGKILL)")
    assert time.monotonic() - began < 15


def test_a_process_that_ignores_its_end_is_killed(tmp_path):
    file = str(tmp_path / "pid")
    stubborn = (
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen({file!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    waits = f"while not os.path.exists({file!r}) or not open({file!r}).read(): time.sleep(0.01)\nsys.exit(3)"
    with pytest.raises(ProcessFailedError, match="process 1 ended with status 3"):
        launch_python(stubborn, waits)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_a_process_finds_wrong_is_said_once():
    said = "print('triptych: {}', file=sys.stderr); sys.exit(2)"
    with pytest.raises(TriptychError, match=r"^no such data$"):
        launch_python(said.format("no such data"), said.format("process 1: no such data") + "; time.sleep(9)")
    assert distinct(["process 1: a", "a", "process 1: b", "a"]) == ["a", "process 1: b"]


def test_a_signal_is_handed_on():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from triptych.backend.joining import Member\n"
        "from triptych.training.distributed.launch import launch\n"
        "from triptych.utils.interrupt import Interrupted\n"
        "ends = 'import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0))'\n"
        "program = ['-c', ends + '; print(1, flush=True); time.sleep(60)']\n"
        "try:\n    launch([Member('a'), Member('b')], program)\n"
        "except Interrupted as interruption: sys.exit(interruption.exit_status)\n"
    )
    paths = [path for path in sys.path if path.endswith(("common", "backends"))]
    launcher = subprocess.Popen([sys.executable, "-c", code, *paths], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    assert [launcher.stdout.readline(), launcher.stdout.readline()] == ["1\n", "1\n"]
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(15) == 143


# --- finding each other -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "host"), [("n1", "n1"), ("n1,n2", "n1"), ("gpu[07-09,12],x", "gpu07"), ("a[3]", "a3"), ("", "")]
)
def test_the_first_host_of_slurms_list(nodes, host):
    assert joining.first_host(nodes) == host


@pytest.mark.parametrize(
    "said", [("2", "2", "a:1"), ("x", "2", "a:1"), ("0", "2", "a"), ("0", "2", ":1"), ("-1", "2", "a:1")]
)
def test_a_place_that_makes_no_sense_is_refused(said):
    with pytest.raises(TriptychError, match="NAMES: "):
        joining.read_place(*said, "NAMES")


def test_an_address_is_tried_before_a_framework_is(monkeypatch):
    port = joining.free_port()
    joining.check_address(Place(0, 2, "127.0.0.1", port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(TriptychError, match=f"cannot listen to 127.0.0.1:{port}: the port is in use"):
            joining.check_address(Place(0, 2, "127.0.0.1", port))
        joining.check_address(Place(1, 2, "127.0.0.1", port))
    elsewhere = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.77", port))  # RFC 5737: nobody has it
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: [elsewhere])
    with pytest.raises(TriptychError, match="no address of this machine"):
        joining.check_address(Place(0, 2, "another", port))

    def unknown(*given, **named):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TriptychError, match="the address nobody:1 is not known here: Name or service not known"):
        joining.check_address(Place(1, 2, "nobody", 1))
