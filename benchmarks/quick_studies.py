"""What every quick study costs and whether every row learns: `triptych study NAME --quick` on each backend in turn,
each in a process of its own with nothing compiled before.

python benchmarks/quick_studies.py KEPT.jsonl BACKEND[,BACKEND] [STUDY ...] > benchmarks/results/quick-studies.md

KEPT.jsonl gets a line per run, and the table is of all its lines, the last of each study and backend. Processor seconds
are of user and system; half of them are what two idle cores need at least. OMP_NUM_THREADS is handed on.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triptych import studies
from triptych.studies.runner import Trained

ABOUT = """Made by `python benchmarks/quick_studies.py`. Processor seconds of the whole command, half of which two idle
cores need at least; the machine was loaded with other work, which makes them larger. What is not here was not run.
JAX does not follow OMP_NUM_THREADS."""


def processor_seconds() -> float:
    """Of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(name: str, backend: str) -> dict[str, Any]:
    """One study on one backend: its cost, the accuracy of every row, and the rows that have not learned."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "study"
        words = ["study", name, "--quick", "--backend", backend, "--out", str(out)]
        before = processor_seconds()
        run = subprocess.run(
            [sys.executable, "-m", "triptych", *words], env=os.environ | {"XDG_CACHE_HOME": folder}, stdout=sys.stderr
        )
        found = {"study": name, "backend": backend, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
        found |= {"rc": run.returncode, "cpu": round(processor_seconds() - before)}
        result = json.loads((out / "result.json").read_text()) if (out / "result.json").exists() else {}
    every = next((table for table in result.get("tables", ()) if table["title"] == "Every run"), None)
    place = every["columns"].index("test accuracy") if every else 0
    accuracies = [row[place] for row in every["rows"]] if every else []
    return found | {"acc": accuracies, "lost": result.get("lost", []), "unlearned": result.get("unlearned", [])}


def table(kept: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the page."""
    yield "# Quick studies: cost, and whether every row learns\n"
    yield f"{ABOUT}\n"
    yield "| study | backend | OMP_NUM_THREADS | processor s | test accuracy of every row | lost or not learned |"
    yield "|---|---|---|---|---|---|"
    order = list(studies.registry())
    last = {(order.index(each["study"]), each["backend"], each["threads"]): each for each in kept}
    for _, each in sorted(last.items()):
        reached = ", ".join(f"{value:.2f}" if isinstance(value, float) else value for value in each["acc"])
        bad = ", ".join([*each["lost"], *each["unlearned"]]) or "none"
        ended = bad if each["acc"] else f"NO RESULT (status {each['rc']})"
        yield f"| {each['study']} | {each['backend']} | {each['threads']} | {each['cpu']} | {reached} | {ended} |"


def main(path: Path, backends: str, names: list[str]) -> None:
    """Run what is named, or every study that trains, and print the page."""
    trained = [name for name, study in studies.registry().items() if isinstance(study, Trained)]
    for name in names or trained:
        for backend in filter(None, backends.split(",")):
            with path.open("a") as lines:
                lines.write(json.dumps(measure(name, backend)) + "\n")
    print("\n".join(table([json.loads(line) for line in path.read_text().splitlines()])))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]) if len(sys.argv) > 2 else sys.exit(__doc__)
