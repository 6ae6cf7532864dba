"""Throughput of the backends on several architectures, as tables in Markdown, by `triptych bench`.

python benchmarks/throughput.py lenet alexnet vgg11 -- --backends torch,mxnet > benchmarks/results/throughput.md
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from typing import Any

from triptych.__main__ import main as triptych

HEAD = "| backend | versions | device | training images/s | ratio | inference images/s | ratio |"


def bench(architecture: str, options: list[str]) -> dict[str, Any]:
    """The JSON of one run; ends the program where the command fails."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        triptych(["bench", "--arch", architecture, *options, "--json"])
    if not text.getvalue():
        sys.exit(f"throughput: {architecture} could not be timed")
    found: dict[str, Any] = json.loads(text.getvalue())
    return found


def speed(facts: dict[str, Any] | None) -> str:
    """Two cells: images per second and the ratio to the first row, where there are any."""
    if facts is None:
        return " | "
    return f"{facts['images_per_second']:.0f} | " + (
        "other loss" if facts["ratio"] is None else f"{facts['ratio']:.2f}"
    )


def lines(found: dict[str, Any], options: list[str]) -> list[str]:
    """One architecture's table, under its command and its conditions."""
    shape = "x".join(map(str, found["input"]))
    table = [HEAD, "|---" * 7 + "|"]
    for row in found["rows"]:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        speeds = " | ".join(map(speed, (row.get(kind) for kind in ("training", "inference"))))
        table.append(f"| {row['subject']} | {versions} | {row['device']} | {speeds} |")
    return [
        f"## {found['arch']}",
        f"`{shlex.join(['triptych', 'bench', '--arch', found['arch'], *options])}`",
        f"Input {shape}, {found['parameters']:,} parameters, batch {found['batch_size']}, {found['precision']}; "
        f"medians of {found['rounds']} rounds of {found['steps']} steps, in turns; {found['cores']} cores, load "
        f"{found['load_before']:.1f} before.",
        "\n".join(table),
    ]


def main(arguments: list[str]) -> None:
    """Print a table for each architecture; what stands behind `--` is handed to `bench`."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = arguments[split + 1 :]
    print("# Throughput", end="\n\n")
    for architecture in arguments[:split] or ["vgg11"]:
        print("\n\n".join(lines(bench(architecture, options), options)), end="\n\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
