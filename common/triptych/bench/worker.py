"""One subject in a process of its own: `python -m triptych.bench.worker` reads a task and then commands, a line of JSON
each, from stdin, and answers each with a line. So every subject has its own memory, threads and allocator."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any, TextIO

from triptych import data
from triptych.bench import accuracy
from triptych.bench.tasks import Ours, Peer, Task, make
from triptych.data import Dataset
from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.utils.process import prepare_process


class Worker:
    """The other end: starts such a process and asks it. Raises TriptychError for what it answers with an error."""

    def __init__(self, task: Task) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-m", "triptych.bench.worker"]
        environment = {**os.environ, "PYTHONPATH": paths}
        if task.peer and not task.tuned:  # as somebody's script would run
            environment = {name: value for name, value in environment.items() if name not in prepare_process()}
        self.task = task
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._send(records.encode(task))

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to `first`, `facts`, `product`, `accuracy`, or a kind of `triptych.bench.tasks`."""
        if command != "first":
            self._send(command)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise TriptychError(f"the process of '{self.task.name}' ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise TriptychError(f"{self.task.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _send(self, value: object) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(value) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise TriptychError(f"the process of '{self.task.name}' ended") from None


def used() -> tuple[float, float]:
    """Seconds that have passed, and seconds of the processor, those of ended child processes included."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime


def memory() -> dict[str, int]:
    """The most bytes that this process has held, and the largest of its child processes; what it holds of its own,
    without the pages of files."""
    peak, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own = peak
    with contextlib.suppress(OSError), open("/proc/self/status") as file:  # ru_maxrss begins with the parent's
        known = {name: value.split()[0] for name, _, value in (line.partition(":") for line in file) if value.strip()}
        peak, own = int(known.get("VmHWM", peak)), int(known.get("RssAnon", own))
    return {"peak_memory": 1024 * peak, "own_memory": 1024 * own, "peak_memory_of_a_child": 1024 * child}


def answer(subject: Ours | Peer, command: str, dataset: Dataset) -> dict[str, Any]:
    """What a command gives."""
    if command == "accuracy":
        return {"accuracy": accuracy.trained(subject.task, dataset)}
    if command == "facts":
        return subject.facts() | memory()
    if command == "product":
        return {"flops": subject.product() if isinstance(subject, Ours) else 0.0}
    if command not in subject.kinds:
        return {"images": 0}
    wall, cpu = used()
    images = getattr(subject, command)()
    after = used()
    return {"images": images, "seconds": after[0] - wall, "cpu_seconds": after[1] - cpu}


def serve(commands: TextIO, answers: TextIO) -> None:
    """Make the subject that the first line says, then do what the others say."""
    began, cpu = used()
    try:
        task = records.decode(json.loads(commands.readline()), Task)
        dataset = data.load(task.recipe.data, reading=task.recipe.reading)
        subject = make(task, dataset)
        passed = used()
        first: dict[str, Any] = {"loss": subject.first, "seconds": passed[0] - began, "cpu_seconds": passed[1] - cpu}
        print(json.dumps(first), file=answers, flush=True)
        for line in commands:
            print(json.dumps(answer(subject, json.loads(line), dataset)), file=answers, flush=True)
    except Exception as error:  # whatever a framework raises: the asking process tells it
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print goes to stderr
    serve(sys.stdin, out)
