"""What nobody here could run: the NPU path on a real Ascend device. Run once, then send the folder back.

python benchmarks/ascend_acceptance.py --data-dir FOLDER_WITH_CIFAR10

Each step is a command of `triptych`; a failing one does not stop the others. Exit status 1 if one failed. See
docs/porting/ascend.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shlex
import subprocess
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from triptych import zoo
from triptych.__main__ import main as triptych
from triptych_torch import npu

RECIPE = "ascend-cifar10"
THROUGHPUT = ("fp32", "bf16", "fp16")


@dataclass
class CommandResult:
    """One command and how it ended: its exit `status`, and what it wrote."""

    name: str
    command: str
    status: int
    output: str


def call(name: str, *arguments: object) -> CommandResult:
    """Run one command of triptych in this process."""
    words, text = [str(argument) for argument in arguments], io.StringIO()
    print(f"-- {name}: triptych {shlex.join(words)}", flush=True)
    status = 1
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            triptych(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        except Exception:  # torch_npu and CANN raise anything; the report is what is wanted
            traceback.print_exc(file=text)
    print(text.getvalue(), end="", flush=True)
    return CommandResult(name, f"triptych {shlex.join(words)}", status, text.getvalue())


def environment() -> dict[str, str]:
    """The machine, as far as it says."""
    try:
        listed = subprocess.run(["npu-smi", "info"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        listed = f"npu-smi info: {error}"
    named = {name: value for name, value in os.environ.items() if name.startswith(("ASCEND", "HCCL"))}
    return {"platform": platform.platform(), "python": platform.python_version(), "npu-smi info": listed, **named}


def run_steps(options: argparse.Namespace, out: Path) -> list[CommandResult]:
    """Everything, in order."""
    device, networks = options.device, ",".join(options.arch or zoo.registry())
    # Ascend has no float64 convolutions: only float32 can be judged there.
    conform = ("conform", "--backends", "torch", "--device", device, "--precision", "fp32", "--arch", networks)
    written = ("--certificate", out / "certificate.json", "--json", out / "conformance.json")
    steps = [call("environment", "doctor", "--json", out / "doctor.json"), call("conformance", *conform, *written)]
    given = {"--data": options.data, "--data-dir": options.data_dir}
    data = [word for pair in given.items() if pair[1] is not None for word in pair]
    train = ("train", "--recipe", options.recipe, "--backend", "torch", "--device", device, *data)
    three = (*train, "--epochs", 3, "--out", out / "run", "--json", out / "training.json")
    steps.append(call("three epochs", *three))
    for precision in THROUGHPUT:
        one = ("--epochs", 1, "--precision", precision, "--json", out / f"throughput-{precision}.json")
        steps.append(call(f"throughput {precision}", *train, *one, "--out", out / f"throughput-{precision}"))
    steps.append(call("bench", "bench", "--backends", "torch", "--device", device, "--json", out / "bench.json"))
    return steps


def summary(steps: list[CommandResult], fallbacks: list[str], out: Path) -> list[str]:
    """The report for a reader, in Markdown."""
    ends = {0: "passed"}
    rows = [f"| {step.name} | {ends.get(step.status, f'FAILED, status {step.status}')} |" for step in steps]
    speeds = []
    for precision in THROUGHPUT:
        file = out / f"throughput-{precision}.json"
        epochs = json.loads(file.read_text())["epochs"] if file.exists() else []
        speeds += [f"| {precision} | {epoch['images_per_second']:.0f} |" for epoch in epochs]
    left = "\n".join(f"- {name}" for name in fallbacks) or "none was reported"
    return [
        "# The NPU path on a real device",
        "\n".join(("| step | result |", "|---|---|", *rows)),
        "\n".join(("| precision | images/s, first epoch |", "|---|---|", *speeds)),
        f"Operators that ran on the CPU:\n\n{left}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run all steps and write the report; 0 if every step passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="npu")
    parser.add_argument("--out", type=Path, default=Path("ascend-acceptance"))
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--arch", nargs="*", help="for conformance; the whole zoo if left out")
    parser.add_argument("--data", help="another data set than the recipe's")
    parser.add_argument("--data-dir")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True)
    with npu.fallbacks() as fallbacks:
        steps = run_steps(options, options.out)
    found = {"environment": environment(), "steps": [asdict(step) for step in steps], "ran_on_the_cpu": fallbacks}
    (options.out / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    text = "\n\n".join(summary(steps, fallbacks, options.out)) + "\n"
    (options.out / "report.md").write_text(text)
    print(f"\n{text}\nplease send back the folder {options.out}")
    return 0 if all(step.status == 0 for step in steps) else 1


if __name__ == "__main__":
    raise SystemExit(main())
