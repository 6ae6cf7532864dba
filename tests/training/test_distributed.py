"""Several processes and devices that train one network: the mathematics of one, and ends that leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from group_member import PLAIN
from marks import ALL, NO_FRAMEWORK, later
from triptych.backend import joining, registry
from triptych.backend.group import Group, entire
from triptych.backend.joining import Member, Membership
from triptych.conformance.trajectory import BUDGET, FLOOR, Arrays
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD, Rates
from triptych.training import run_folder
from triptych.training.distributed import launch as launching
from triptych.training.distributed.launch import ProcessFailedError, distinct, launch
from triptych.utils.errors import TriptychError

BACKENDS = registry.installed()
if not BACKENDS:
    pytest.skip(NO_FRAMEWORK, allow_module_level=True)
every_backend = pytest.mark.parametrize("name", BACKENDS)
MEMBER = Path(__file__).parents[1] / "group_member.py"
# of float32, after the twenty steps: what one unit in the last place at the start does to one process is as much
FLOAT32_BUDGET = 3e-4
IN_FP64 = ("whole-fp64", "accumulated-fp64", "plain-fp64", "whole-fp32", "local-fp64")
# MXNet's server has no float64, and its batch norm knows one device of a process.
# JAX compiles each of its own for half a minute: in the quick tier the one with everything, and local batch norm.
PROCESSES = {
    "torch": IN_FP64,
    "jax": IN_FP64 if ALL else ("accumulated-fp64", "local-fp64"),
    "mxnet": ("whole-fp32", "accumulated-fp32", "plain-fp32", "local-fp32"),
}
DEVICES = {"jax": IN_FP64[:3] if ALL else ("accumulated-fp64",), "mxnet": ("plain-fp64",)}


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

    @cache
    def runs(name):
        folder = tmp_path_factory.mktemp(name)
        needed = dict.fromkeys((*PROCESSES[name], *DEVICES.get(name, ())))
        subprocess.run([sys.executable, str(MEMBER), name, "1", str(folder), *needed], check=True, timeout=300)
        return folder

    return runs


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Per backend: the folder of its runs in two processes."""

    @cache
    def runs(name):
        folder, meeting = (tmp_path_factory.mktemp(f"{name}-{part}") for part in ("runs", "launcher"))
        launch(registry.load(name).members(2, meeting), [str(MEMBER), name, "1", str(folder), *PROCESSES[name]])
        return folder

    return runs


def assert_same_arrays(run: str, left: Arrays, right: Arrays) -> None:
    assert set(left) == set(right)
    exact = "fp64" in run
    budget = BUDGET if exact else FLOAT32_BUDGET
    largest = max(np.abs(value).max() for value in right.values())
    # In float32 as the trajectory level has it: a bias before a batch norm is the rest of a cancellation.
    for name in right if exact else {"losses", "metrics"} & set(right):
        scale = max(np.abs(right[name]).max(), FLOOR * largest)
        assert np.abs(left[name] - right[name]).max() <= budget * scale, (run, name)


def assert_same_runs(several: Path, one: Path, runs: tuple[str, ...]) -> None:
    assert runs
    for run in runs:
        left, right = (dict(np.load(folder / f"{run}.npz")) for folder in (several, one))
        assert_same_arrays(run, left, right)
        assert np.array_equal(left["metrics"][:, [1, 3]], right["metrics"][:, [1, 3]])  # right answers


@every_backend
def test_two_processes_do_what_one_does(name, alone, several):
    """With dropout, crops, flips, batch norm, a last batch of one image, accumulation, unequal parts."""
    assert_same_runs(several(name), alone(name), PROCESSES[name][:-1])


@every_backend
def test_local_batch_norm_takes_each_halfs_own_statistics(name, alone, several):
    """As one process does that takes a batch in two halves; but that moves running statistics twice in a step."""
    run = PROCESSES[name][-1]
    two, one = (
        {key: value for key, value in np.load(folder / f"{run}.npz").items() if "running" not in key}
        for folder in (several(name), alone(name))
    )
    assert two.pop("metrics").shape == one.pop("metrics").shape  # a test is made with running statistics
    assert_same_arrays(run, two, one)


@pytest.mark.skipif(not {"torch", "jax"} <= set(BACKENDS), reason="PyTorch and JAX are not both installed")
def test_local_statistics_that_are_kept_are_the_mean_of_all_devices(several):
    """On each framework by a way of its own."""
    left, right = (dict(np.load(several(name) / "local-fp64.npz")) for name in ("torch", "jax"))
    assert any("running" in key for key in left)
    assert_same_arrays("local-fp64", left, right)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name in DEVICES])
def test_two_devices_of_one_process_do_what_one_does(name, alone, tmp_path):
    subprocess.run([sys.executable, str(MEMBER), name, "2", str(tmp_path), *DEVICES[name]], check=True, timeout=300)
    assert_same_runs(tmp_path, alone(name), DEVICES[name])


@pytest.mark.skipif("jax" not in BACKENDS, reason="JAX is not installed")
def test_the_gradients_of_all_arrays_are_one_message():
    """On CPUs, where every message takes longer than what is in it; batch norm, synchronised, needs its own."""
    from triptych_jax.distributed import Group

    backend = registry.load("jax")
    network = backend.build(PLAIN)
    trainer = backend.Trainer(network, SGD(), InputTransform(1, 12, 12), 0, group=Group("cpu", 1, None))
    step, texts = trainer.spread_step, []

    def noting(*given):
        texts.append(step.lower(*given).as_text())
        return step(*given)

    with patch.object(trainer, "spread_step", noting):
        trainer.step(np.zeros((4, 1, 12, 12), np.uint8), np.arange(4), Rates(0.1), 0)
    assert [text.count("stablehlo.all_reduce") for text in texts] == [1]


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


def test_the_killed_one_is_the_cause_though_another_has_ended_by_then(tmp_path):
    """Both have ended when the launcher looks: a process that misses another ends at once, too."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    misses = f"open({pipe!r}).read(); sys.exit(1)"  # its end comes with the other's
    killed = f"pipe = open({pipe!r}, 'w'); os.kill(os.getpid(), signal.SIGKILL)"
    with (
        patch.object(launching, "POLL_SECONDS", 1.0),
        pytest.raises(ProcessFailedError, match="process 1 was killed by SIGKILL"),
    ):
        launch_python(misses, killed)


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


HALF_TOLD = {
    "torch": ({"RANK": "0"}, "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT: '0' of ''"),
    "jax": ({"JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID, JAX_NUM_PROCESSES and JAX_COORDINATOR_ADDRESS: '0' of ''"),
}


@pytest.mark.parametrize("name", [name for name in BACKENDS if name in HALF_TOLD])
def test_a_number_without_a_count_is_no_process_alone(name, monkeypatch):
    """Several of them would train each for itself, and nobody would see it."""
    place, (said, told) = registry.load(name).place, HALF_TOLD[name]
    assert place() is None
    for variable, value in said.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(TriptychError, match=told):
        place()


@pytest.mark.skipif("mxnet" not in BACKENDS, reason="MXNet is not installed")
def test_a_role_that_mxnet_would_wait_or_abort_with_is_refused(monkeypatch):
    registry.load("mxnet")
    from triptych_mxnet.device import _as_number, _check_role

    assert [_as_number(host) for host in ("localhost", "127.0.0.1")] == ["127.0.0.1"] * 2  # of a name it aborts
    monkeypatch.setenv("DMLC_ROLE", "worker")
    monkeypatch.setenv("DMLC_NUM_WORKER", "2")
    with pytest.raises(TriptychError, match="DMLC_ROLE is worker, and DMLC_NUM_SERVER '' is no number above 0"):
        _check_role()
    monkeypatch.setenv("DMLC_NUM_SERVER", "1")
    _check_role()
    monkeypatch.setenv("DMLC_ROLE", "boss")
    with pytest.raises(TriptychError, match="DMLC_ROLE 'boss' is none of scheduler, server, worker"):
        _check_role()


def test_an_address_is_tried_before_a_framework_is(monkeypatch):
    port = joining.free_port()
    joining.check_address(Membership(0, 2, "127.0.0.1", port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(TriptychError, match=f"cannot listen to 127.0.0.1:{port}: the port is in use"):
            joining.check_address(Membership(0, 2, "127.0.0.1", port))
        joining.check_address(Membership(1, 2, "127.0.0.1", port))
    elsewhere = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.77", port))  # RFC 5737: nobody has it
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: [elsewhere])
    with pytest.raises(TriptychError, match="no address of this machine"):
        joining.check_address(Membership(0, 2, "another", port))

    asked = []

    def unknown(*given, **named):
        asked.append(given)
        if len(asked) == 2:
            return [elsewhere]
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(joining, "BETWEEN", 0.01)
    joining.check_address(Membership(1, 2, "named-later", 1))
    assert len(asked) == 2
    monkeypatch.setattr(joining, "NAMED_IN", 0.1)
    with pytest.raises(TriptychError, match="the address nobody:1 is not known here: Name or service not known"):
        joining.check_address(Membership(1, 2, "nobody", 1))


# --- the command ------------------------------------------------------------------------------------------------------

SMALL = ("--recipe", "d2l-lenet", "--data", "synthetic@train=96,test=40", "--batch-size", "24", "--momentum", "0.9")


def triptych(*arguments: object, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triptych", *map(str, arguments)]
    joined = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=joined)


def begin(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "triptych", *map(str, arguments)]
    joined = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=joined)


def losses_of(folder: Path) -> list[float]:
    return [loss for epoch in run_folder.read_epochs(folder) for loss in epoch.losses]


def children_of(pid: int) -> list[int]:
    """All processes below this one, of Linux's table."""
    below = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            below += [child, *children_of(child)]
    return below


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def is_worker(pid: int) -> bool:
    """One that trains and does not write, if that is known from outside."""
    said = environment_of(pid)
    return said.get("RANK") == "1" or said.get("JAX_PROCESS_ID") == "1" or said.get("DMLC_ROLE") == "worker"


@pytest.mark.parametrize("name", [pytest.param(n, marks=later if n == "jax" else ()) for n in BACKENDS])
def test_a_run_is_killed_in_mid_epoch_and_goes_on_as_one_process(name, here):
    """Within 15 s nothing is left of it but a run, which one process, then two, take up as if nothing had been."""
    train = ("train", "--backend", name, *SMALL)
    assert triptych(*train, "--epochs", 3, "--out", "whole").returncode == 0
    running = begin(*train, "--processes", 2, "--epochs", 4000, "--out", "run")
    assert running.stdout is not None
    assert running.stderr is not None
    while "epoch 1/" not in (line := running.stdout.readline()):
        assert line, running.stderr.read()
    members = children_of(running.pid)
    os.kill(next(pid for pid in members if is_worker(pid)), signal.SIGKILL)
    began = time.monotonic()
    _, err = running.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert running.returncode == 1
    (line,) = (line for line in err.splitlines() if line.startswith("triptych: "))
    assert "was killed by SIGKILL; the other processes were ended" in line
    assert [pid for pid in members if Path(f"/proc/{pid}").exists()] == []
    done = len(run_folder.read_epochs(Path("run")))
    whole = triptych(*train, "--epochs", done + 2, "--out", "longer")
    assert whole.returncode == 0, whole.stderr
    for more, processes in ((1, 1), (2, 2)):
        again = triptych(
            "train", "--backend", name, "--resume", "run", "--epochs", done + more, "--processes", processes
        )
        assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(losses_of(Path("run")), losses_of(Path("longer")), rtol=FLOAT32_BUDGET)
    assert losses_of(Path("longer"))[: 3 * 4] == losses_of(Path("whole"))[: 3 * 4]


def addresses_listened_to(pid: int) -> set[str]:
    """Local addresses, in Linux's hexadecimal, of the process's listening sockets."""
    own = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists() or link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(fields[1].partition(":")[0])
    return found


LOOPBACKS = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


@every_backend
def test_a_signal_ends_all_and_nothing_listens_beyond_loopback(name, here):
    running = begin("train", "--backend", name, *SMALL, "--processes", 2, "--epochs", 4000, "--out", "run")
    assert running.stdout is not None
    assert running.stderr is not None
    while "epoch 1/" not in (line := running.stdout.readline()):
        assert line, running.stderr.read()
    listened = set().union(*map(addresses_listened_to, children_of(running.pid)))
    assert listened
    assert listened <= LOOPBACKS
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 143, err
    assert "stopped by SIGTERM; " in err
    assert "are kept in run" in err
    assert run_folder.read_epochs(Path("run"))


JOINED = {
    "torch": lambda rank, port: {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
    "jax": lambda rank, port: {
        "JAX_PROCESS_ID": rank,
        "JAX_NUM_PROCESSES": "2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
    },
    "mxnet": lambda rank, port: {
        "DMLC_ROLE": "worker",
        "DMLC_NUM_WORKER": "2",
        "DMLC_NUM_SERVER": "1",
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": port,
    },
}


@every_backend
def test_a_process_whose_others_do_not_come_says_so(name, here):
    port = str(joining.free_port())
    ended = triptych(
        "train", "--backend", name, *SMALL, "--out", "run", TRIPTYCH_JOIN_SECONDS="2", **JOINED[name]("0", port)
    )
    assert ended.returncode == 2
    assert f"triptych: waited 2 s at 127.0.0.1:{port}, and not all of the 2 processes came" in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert not Path("run").exists()


@every_backend
def test_processes_with_other_recipes_are_told(name, here):
    """Each by hand, with a learning rate of its own."""
    port, helpers = str(joining.free_port()), []
    if name == "mxnet":
        for role in ("scheduler", "server"):
            said = {**JOINED[name]("", port), "DMLC_ROLE": role}
            helpers.append(begin("train", "--backend", name, *SMALL, "--out", role, **said))
    started = [
        begin("train", "--backend", name, *SMALL, "--learning-rate", rate, "--out", "run", **JOINED[name](rank, port))
        for rank, rate in (("0", "0.1"), ("1", "0.2"))
    ]
    try:
        for process in started:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 2
            assert "process 1 has other recipe than process 0; all must train the same" in err
    finally:
        for process in (*started, *helpers):
            process.kill()
            process.communicate()
    assert not Path("run").exists()


def test_what_a_backend_cannot_do_in_several_is_refused(here):
    for name, options, told in (
        ("torch", ("--devices", 2), "give --processes N, not --devices N"),
        ("mxnet", ("--processes", 2, "--precision", "fp64"), "cannot train in fp64"),
        (
            "mxnet",
            ("--devices", 2, "--arch", "vgg11_bn", "--resolution", 32, "--width-ratio", 16),
            "give --batch-norm local",
        ),
    ):
        if name in BACKENDS:
            ended = triptych("train", "--backend", name, *SMALL, *options, "--out", "run")
            assert ended.returncode == 2, ended.stderr
            (line,) = ended.stderr.splitlines()
            assert told in line
    wrong = triptych("train", "--backend", BACKENDS[0], *SMALL, "--processes", 3, **JOINED[BACKENDS[0]]("0", "1"))
    assert "--processes 3, but the environment says that this is one of 2" in wrong.stderr


@pytest.mark.skipif("torch" not in registry.installed(), reason="PyTorch's engine")
def test_what_is_gathered_belongs_to_nobody_else(monkeypatch):
    """An engine's thread that lets go of a tensor while Python ends aborts its process."""
    registry.load("torch")
    import torch

    from triptych_torch import distributed

    held: list[object] = []

    def all_gather(found: list[torch.Tensor], mine: torch.Tensor) -> None:
        held.append(torch.ones(2, requires_grad=True) * mine)  # the graph keeps the tensor, as a thread of gloo's does
        threading.Timer(0.05, held.clear).start()

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    distributed.Group().gather(np.zeros(2))
    assert held == []
    monkeypatch.setattr(distributed, "TRIES", 3)
    kept = torch.ones(2)
    graph = torch.ones(2, requires_grad=True) * kept
    distributed._wait_until_let_go((kept,))  # nobody waits for ever
    del graph


@pytest.mark.skipif("torch" not in registry.installed(), reason="PyTorch's engine")
def test_processes_that_somebody_else_has_joined_are_a_group(monkeypatch):
    """As Ray's workers are: joined again, they would find the address in use."""
    framework = registry.load("torch")
    import torch

    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 3)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    group = framework.join("cpu", 1)
    assert (group.rank, group.size) == (1, 3)
