"""Studies that were run, as one page in Markdown beside their figures.

python benchmarks/studies.py FOLDER [FOLDER ...] > benchmarks/results/studies.md

FOLDER is what `triptych study NAME --out FOLDER` left. The figures are copied to benchmarks/results.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from triptych import studies

RESULTS = Path(__file__).parent / "results"
ABOUT = """Two cores of an Intel Xeon (AVX-512), loaded with other work: seconds are good for ratios at most, and those
of shallow, depth, dense, feature-maps and inception, which ran at low priority, for nothing. Made by `python
benchmarks/studies.py`. What is not here was not run on full data."""

DETAILS = ("Every epoch", "Settings")  # tables that stand behind a click
SHOWN, FOLDED = ("{}:\n", ""), ("<details><summary>{}</summary>\n", "\n</details>\n")


def lines(folder: Path) -> Iterator[str]:
    """One study: its question, command, findings, tables and first figure."""
    found = json.loads((folder / "result.json").read_text())
    study = studies.get_study(found["study"])
    yield f"## {folder.name}\n"
    yield f"{study.question}\n"
    yield f"`{without_places(found['command'])}`\n"
    yield from (f"- {finding}" for finding in found["findings"])
    shutil.copyfile(folder / "figure1.svg", RESULTS / f"{folder.name}.svg")
    yield f"\n![{folder.name}]({folder.name}.svg)\n"
    for table in found["tables"]:
        rows = tuple(tuple(row) for row in table["rows"])
        before, after = FOLDED if table["title"] in DETAILS else SHOWN
        yield before.format(table["title"])
        yield "| " + " | ".join(table["columns"]) + " |"
        yield "|---" * len(table["columns"]) + "|"
        yield from ("| " + " | ".join(row) + " |" for row in studies.Table("", tuple(table["columns"]), rows).text())
        yield after
    yield from (f"Note: {note}\n" for note in study.notes)
    yield from (f"Error of the source: {trap}\n" for trap in study.traps)


def without_places(command: str) -> str:
    """The command without the folders of the machine it ran on."""
    return re.sub(r"/\S+", "DIR", command.partition(" --out ")[0])


def main(folders: list[Path]) -> None:
    """Print every study's part."""
    print(f"# Studies, as run\n\n{ABOUT}\n")
    for folder in folders:
        print("\n".join(lines(folder)))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or sys.exit(__doc__))
