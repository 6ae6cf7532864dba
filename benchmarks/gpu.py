"""Everything that only a machine with a GPU can say, in parts, each with its limit: correctness first, then speed.

PYTHONPATH=common:backends python benchmarks/gpu.py --out gpu-results        # or: make gpu
PYTHONPATH=common:backends python benchmarks/gpu.py --tiny --out tiny-results  # the same on a CPU, as small as can be

Every part runs in a process of its own, prints each result as soon as it has it and adds it to OUT/result.json. What is
there already is not run again: a run that was cut off goes on where it ended. Packages that are missing are taken
from wheels in benchmarks/wheels (`make gpu-wheels`). Exit status 1 if a part failed or was not run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WHEELS = HERE / "wheels"
NEEDED = ("cyclopts", "rich", "safetensors", "PIL", "scipy", "optax", "jinja2")


@dataclass(frozen=True)
class Job:
    """One process of at most `seconds`: a function of `module` takes the options and yields `(name, facts)`."""

    part: int
    name: str
    seconds: int
    module: str
    arguments: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()

    @property
    def function(self) -> str:
        """The first word of the name."""
        return self.name.partition(" ")[0]


def jobs(backends: list[str]) -> list[Job]:
    """All of them, in order."""
    listed = [
        *(Job(1, f"conform {arch}", 90, "gpu_correctness", (arch,)) for arch in ("lenet", "vgg11_bn", "googlenet")),
        Job(1, "planted", 45, "gpu_correctness"),
        Job(1, "trajectory", 45, "gpu_correctness"),
        *(Job(2, f"throughput {backend}", 100, "gpu_speed", backends=(backend,)) for backend in backends),
        *(Job(3, f"textbook {backend}", 60, "gpu_training", backends=(backend,)) for backend in backends),
        *(Job(4, f"cifar {backend}", 60, "gpu_training", backends=(backend,)) for backend in backends),
        *(Job(4, f"fashion {backend}", 60, "gpu_training", backends=(backend,)) for backend in backends),
        *(Job(5, f"memory {backend}", 40, "gpu_speed", backends=(backend,)) for backend in backends),
    ]
    return listed


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--device", help="cuda; cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="as small as can be: to try the script on a CPU")
    parser.add_argument("--limit", type=float, default=480, help="seconds for everything")
    parser.add_argument("--backends", default="torch,jax")
    parser.add_argument("--only", type=int, nargs="*", help="these parts alone")
    parser.add_argument("--data-dir", help="where Fashion-MNIST and CIFAR-10 lie")
    parser.add_argument("--cifar", help="CIFAR-10 as class folders, instead of the archive in --data-dir")
    parser.add_argument("--again", action="store_true", help="run what failed before again")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.device = options.device or ("cpu" if options.tiny else "cuda")
    options.backends = options.backends.split(",")
    return options


@contextlib.contextmanager
def packages(out: Path) -> Iterator[dict[str, str]]:
    """The environment of the jobs: packages that are missing come from wheels, which are unpacked once."""
    folder = out / "packages"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing and not folder.exists():
        for wheel in sorted(WHEELS.glob("*.whl")):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(folder)
    paths = [str(HERE.parent / "common"), str(HERE.parent / "backends"), str(HERE), *sys.path[1:]]
    yield {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *([str(folder)] if missing else [])])}


def machine() -> dict[str, Any]:
    """Where this runs, as far as it says."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip() or "none"
    except (OSError, subprocess.TimeoutExpired):
        gpu = "none"
    return {"gpu": gpu, "python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}


def save(out: Path, found: dict[str, Any]) -> None:
    """`result.json`, whole at every moment."""
    draft = out / "result.json.new"
    draft.write_text(json.dumps(found, indent=1) + "\n")
    draft.replace(out / "result.json")


def run(job: Job, options: argparse.Namespace, environment: dict[str, str], found: dict[str, Any], left: float) -> None:
    """One job; its results go to stdout and into `found` line by line."""
    entry: dict[str, Any] = {"part": job.part, "status": "failed", "results": {}}
    found["jobs"][job.name] = entry
    command = [sys.executable, str(HERE / "gpu.py"), "--job", job.name, "--out", str(options.out)]
    command += ["--device", options.device, "--backends", ",".join(options.backends), *(["--tiny"] * options.tiny)]
    for name in ("data_dir", "cifar"):
        command += [f"--{name.replace('_', '-')}", getattr(options, name)] if getattr(options, name) else []
    began = time.monotonic()
    log = options.out / f"{job.name.replace(' ', '-')}.log"
    with log.open("w") as errors:
        limited = ["timeout", "-k", "5", str(int(min(left, job.seconds * (4 if options.tiny else 1)))), *command]
        process = subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                name, facts = json.loads(line)
                entry["results"][name] = facts
                print(f"  {name}: {json.dumps(facts)}", flush=True)
                save(options.out, found)
        status = process.wait()
    entry["seconds"] = round(time.monotonic() - began, 1)
    wrong = [name for name, facts in entry["results"].items() if facts.get("passed") is False]
    if status == 0:
        entry["status"] = f"failed: {', '.join(wrong)}" if wrong else "done"
    else:
        entry["status"] = "out of time" if status == 124 else f"failed, status {status}: {last_line(log)}"
    save(options.out, found)
    print(f"  -> {entry['status']}, {entry['seconds']} s", flush=True)


def last_line(log: Path) -> str:
    """What a job said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def call(name: str, options: argparse.Namespace) -> None:
    """What a job's process does."""
    job = next(job for job in jobs(options.backends) if job.name == name)
    module = importlib.import_module(job.module)
    for result in getattr(module, job.function)(options, *job.arguments, *job.backends):
        print(json.dumps(result), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run what is not there yet; 0 if every part is done."""
    options = parse(arguments)
    if options.job:
        call(options.job, options)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "result.json"
    found = json.loads(file.read_text()) if file.exists() else {"jobs": {}}
    found |= {"machine": machine(), "tiny": options.tiny, "device": options.device}
    print(json.dumps(found["machine"]), flush=True)
    ends = time.monotonic() + options.limit
    with packages(options.out) as environment:
        for job in jobs(options.backends):
            before = found["jobs"].get(job.name, {}).get("status")
            if options.only and job.part not in options.only:
                continue
            if before == "done" or (before and before != "not run: no time was left" and not options.again):
                continue
            print(f"part {job.part}: {job.name}", flush=True)
            if (left := ends - time.monotonic()) < 10:
                found["jobs"][job.name] = {"part": job.part, "status": "not run: no time was left", "results": {}}
                print("  -> not run: no time was left", flush=True)
                continue
            run(job, options, environment, found, left)
    save(options.out, found)
    return int(any(entry["status"] != "done" for entry in found["jobs"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
