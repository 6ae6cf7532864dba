"""Training by several processes, measured: on this machine's cores, and between hosts whose links are slow.

python benchmarks/scaling.py processes            # two processes beside one, every backend
sudo python benchmarks/scaling.py hosts jax       # a backend on 2 and 4 hosts: network namespaces with links of `RATES`

`hosts` needs Linux, root, and iproute2 (`ip`, `tc`). All processes share this machine's cores, so a step without
communication is measured with as many processes that know nothing of each other, and what a link costs is held against
`scaling_model`. Results are printed as Markdown.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from socket import gethostname
from statistics import median

import numpy as np
from scaling_model import WAYS, StepCost, gradient_bytes

from triptych.backend import registry
from triptych.backend.group import ALONE
from triptych.backend.joining import Member
from triptych.data.batches import Augmentation, feed, plan
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD
from triptych.spec.layers import Architecture
from triptych.training.distributed.launch import launch
from triptych.training.distributed.membership import one_of
from triptych.training.distributed.shares import cut
from triptych.zoo import Options, build_with

BATCH = 64  # images of a process
STEPS, ROUNDS = 6, 5  # a round's steps; the first round is not counted
SLOW = 3, 3  # the same where links are slow
DENSE = (512, 2048)  # widths of the two networks
RATES = (1000, 200, 50)  # Mbit/s
HOSTS = (2, 4)
PLACE = "TRIPTYCH_PLACE"  # of a process among strangers
SUBNET, PORT = "10.77.0", "29531"
HOP = 1e-4  # seconds between two namespaces
HELPERS = {"mxnet": ("scheduler", "server")}  # roles beside the workers
OPTIMIZER = SGD(momentum=0.9)


@dataclass(frozen=True)
class WorkerTask:
    """What a process is told: one of `count`, that train together, or each `alone`; `pinned` to a core of its own, or
    wherever the system puts it."""

    backend: str
    dense: int
    count: int
    alone: bool = False
    pinned: bool = False
    steps: int = STEPS
    rounds: int = ROUNDS


def architecture(dense: int) -> Architecture:
    """A VGG-11 of a quarter of the channels, on images of 32x32."""
    return build_with("vgg11", Options(10, (3, 32, 32), 4.0, dense_width=dense))


def work(file: Path) -> None:
    """One of the processes: the seconds of its median step; the first one's, or one alone's, count."""
    task = WorkerTask(**json.loads(file.read_text()))
    backend = registry.load(task.backend)
    group = ALONE if task.alone else backend.join("cpu", 1)
    with one_of(group):
        if task.pinned:
            pin(int(os.environ.get(PLACE, group.rank)))
        network = backend.build(architecture(task.dense))
        backend.initialize(network, 0)
        trainer = backend.Trainer(network, OPTIMIZER, InputTransform(3, 32, 32), 0, group=group)
        size = BATCH if task.alone else BATCH * task.count
        images = np.random.default_rng(0).integers(0, 256, (size, 3, 32, 32), np.uint8)
        labels = np.arange(size) % 10
        times = []
        for epoch in range(1 + task.rounds):
            parts = cut(plan(0, epoch, size, size, Augmentation()) * task.steps, group, 1)
            fed = feed(images, labels, [batch for batch, _ in parts], Augmentation())
            start = time.perf_counter()
            handles = [
                trainer.step(given, right, OPTIMIZER.rates(0.01, 0.9), number, gather=gather, shares=shares)
                for number, ((given, right, gather), (_, shares)) in enumerate(zip(fed, parts, strict=True))
            ]
            trainer.read(handles)
            times.append((time.perf_counter() - start) / task.steps)
        trainer.settle()
        if group.rank == 0:
            Path(f"{file}.{os.getpid()}.seconds").write_text(str(median(times[1:])))


def pin(place: int) -> None:
    """All threads of this process to one core."""
    cores = sorted(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), {cores[place % len(cores)]})


def run(task: WorkerTask, members: Callable[[int, Path], list[Member]]) -> float:
    """Seconds of a step of the task's processes; of those alone, of the slowest."""
    with tempfile.TemporaryDirectory() as folder:
        file, meeting = Path(folder) / "task.json", Path(folder) / "meeting"
        file.write_text(json.dumps(asdict(task)))
        meeting.mkdir()
        launch(members(task.count, meeting), (str(Path(__file__).resolve()), "work", str(file)))
        return max(float(made.read_text()) for made in Path(folder).glob("*.seconds"))


def strangers(count: int, folder: Path) -> list[Member]:
    """Processes that know nothing of each other."""
    return [Member(f"process {rank}", environment={PLACE: str(rank)}) for rank in range(count)]


def processes() -> None:
    """Two processes of a core each beside one of a core, on every backend."""
    print("| backend, network | gradients | one process | two | speed-up | share of communication |")
    print("|---|---|---|---|---|---|")
    for name in registry.installed():
        backend = registry.load(name)
        for dense in DENSE:
            one = run(WorkerTask(name, dense, 1, alone=True, pinned=True), strangers)
            apart = run(WorkerTask(name, dense, 2, alone=True, pinned=True), strangers)
            two = run(WorkerTask(name, dense, 2, pinned=True), backend.members)
            print(
                f"| {name}, dense {dense} | {gradient_bytes(architecture(dense)) / 1e6:.1f} MB | "
                f"{BATCH / one:.0f} images/s | {2 * BATCH / two:.0f} images/s | {one * 2 / two:.2f} | "
                f"{max(0, 1 - apart / two):.0%} |",
                flush=True,
            )


def command(*words: str) -> None:
    """Run a program. Raises CalledProcessError with what it said."""
    subprocess.run(words, check=True)


@contextmanager
def network(count: int, rate: int) -> Iterator[None]:
    """So many namespaces `triptych0` ..., on one bridge; each sends `rate` Mbit/s at most."""
    with ExitStack() as undo:
        command("ip", "netns", "add", "triptych-switch")
        undo.callback(command, "ip", "netns", "del", "triptych-switch")
        command("ip", "-n", "triptych-switch", "link", "add", "bridge", "type", "bridge")
        command("ip", "-n", "triptych-switch", "link", "set", "bridge", "up")
        for host in range(count):
            name, plug = f"triptych{host}", f"port{host}"
            command("ip", "netns", "add", name)
            undo.callback(command, "ip", "netns", "del", name)
            # `ip netns exec` lays it over /etc/hosts: JAX's collectives listen at the address of the machine's name.
            names = Path("/etc/netns") / name / "hosts"
            names.parent.mkdir(parents=True)
            undo.callback(rmtree, names.parent)
            names.write_text(f"127.0.0.1 localhost\n{address(host)} {gethostname()}\n")
            ends = ("ip", "link", "add", "wire", "netns", name, "type", "veth")
            command(*ends, "peer", "name", plug, "netns", "triptych-switch")
            command("ip", "-n", "triptych-switch", "link", "set", plug, "master", "bridge", "up")
            command("ip", "-n", name, "addr", "add", f"{SUBNET}.{host + 1}/24", "dev", "wire")
            for device in ("lo", "wire"):
                command("ip", "-n", name, "link", "set", device, "up")
            shaped = ("tbf", "rate", f"{rate}mbit", "burst", "256kb", "latency", "100ms")
            command("tc", "-n", name, "qdisc", "add", "dev", "wire", "root", *shaped)
        yield


def address(host: int) -> str:
    """A host's own."""
    return f"{SUBNET}.{host + 1}"


def torch_hosts(count: int) -> list[dict[str, str]]:
    """What every process is told by its environment, by number; PyTorch's."""
    said = {"WORLD_SIZE": str(count), "MASTER_ADDR": address(0), "MASTER_PORT": PORT, "GLOO_SOCKET_IFNAME": "wire"}
    return [said | {"RANK": str(rank)} for rank in range(count)]


def jax_hosts(count: int) -> list[dict[str, str]]:
    """The same for JAX."""
    said = {"JAX_COORDINATOR_ADDRESS": f"{address(0)}:{PORT}", "JAX_NUM_PROCESSES": str(count)}
    return [said | {"JAX_PROCESS_ID": str(rank)} for rank in range(count)]


def mxnet_hosts(count: int) -> list[dict[str, str]]:
    """The same for MXNet's workers; the helpers stand beside the first."""
    said = {"DMLC_NUM_SERVER": "1", "DMLC_NUM_WORKER": str(count), "DMLC_INTERFACE": "wire", "DMLC_ROLE": "worker"}
    root = {"DMLC_PS_ROOT_URI": address(0), "DMLC_PS_ROOT_PORT": PORT}
    return [said | root | {"DMLC_NODE_HOST": address(rank)} for rank in range(count)]


def on_hosts(backend: str, count: int) -> list[Member]:
    """A process of the backend on every host."""
    told = {"torch": torch_hosts, "jax": jax_hosts, "mxnet": mxnet_hosts}[backend](count)
    within = [("ip", "netns", "exec", f"triptych{rank}", sys.executable) for rank in range(count)]
    helpers = [Member(role, within[0], told[0] | {"DMLC_ROLE": role}, helper=True) for role in HELPERS.get(backend, ())]
    return helpers + [Member(f"host {rank}", within[rank], told[rank]) for rank in range(count)]


def hosts(backend: str) -> None:
    """A backend on hosts whose links have a rate, beside what the model says."""
    print("| network | hosts | link | step | images/s | model | model's error |")
    print("|---|---|---|---|---|---|---|")
    errors = []
    for dense in DENSE:
        for count in HOSTS:
            apart = run(WorkerTask(backend, dense, count, True, False, *SLOW), strangers)
            step = StepCost(apart, gradient_bytes(architecture(dense)))
            for rate in RATES:
                with network(count, rate):
                    task = WorkerTask(backend, dense, count, False, False, *SLOW)
                    seconds = run(task, lambda count, folder: on_hosts(backend, count))
                expected = step.seconds(count, rate * 1e6 / 8, HOP, WAYS[backend])
                errors.append(abs(expected / seconds - 1))
                measured = f"{1e3 * seconds:.0f} ms | {count * BATCH / seconds:.0f} | {1e3 * expected:.0f} ms"
                told = f"dense {dense}, {step.gradients / 1e6:.1f} MB | {count} | {rate} Mbit/s"
                print(
                    f"| {told} | {measured} | {expected / seconds - 1:+.0%} |",
                    f"({1e3 * apart:.0f} ms apart)",
                    flush=True,
                )
    print(f"\nThe model's error: {median(errors):.0%} in the median, {max(errors):.0%} at most.")


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word == "work":
        work(Path(sys.argv[2]))
    elif word in ("processes", "hosts"):
        {"processes": processes, "hosts": hosts}[word](*sys.argv[2:])
    else:
        sys.exit(__doc__)
