"""How often `triptych locate --try` is right on ports written as people write them (`benchmarks/written/`): each is
judged as it is, written otherwise as right (`written_right.py`), and with every fault of a table, one at a time:
`written_faults.py`, `_second.py`, `_third.py`, `_fourth.py`, `_fifth.py`, `_sixth.py` or `_seventh.py`.

nice -n 10 python benchmarks/locate_written.py [torch] [mxnet] [jax] [first ... seventh] [--misses] [--only PORT]
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from written_faults import FAULTS, PORTS, WrittenFault, decoder_network, shuffle_network
from written_fifth import FIFTH, dense_network, mobile_network
from written_fourth import FOURTH
from written_right import RIGHT
from written_second import SECOND
from written_seventh import (
    SEVENTH,
    darknet_network,
    ghost_network,
    mixer_network,
    resnext_network,
    wide_network,
    xception_network,
)
from written_sixth import SIXTH
from written_third import THIRD

from triptych.__main__ import main as triptych
from triptych.backend import registry
from triptych.spec import records

TABLES = {
    "first": FAULTS,
    "second": SECOND,
    "third": THIRD,
    "fourth": FOURTH,
    "fifth": FIFTH,
    "sixth": SIXTH,
    "seventh": SEVENTH,
}
SMALL = {
    "shuffle.json": shuffle_network,
    "decoder.json": decoder_network,
    "mobile.json": mobile_network,
    "dense.json": dense_network,
    "wide.json": wide_network,
    "mixer.json": mixer_network,
    "darknet.json": darknet_network,
    "resnext.json": resnext_network,
    "ghost.json": ghost_network,
    "xception.json": xception_network,
}
SOURCES = Path(__file__).parent / "written"
# Causes that describe a difference, and blame nothing, or that say what they are told from.
VAGUE = re.compile(
    "no more than rounding|^constant factor [^ ]+$|the same values in another order|it is zero everywhere"
    "|as its shape has it"
)
GONE = "difference is gone"  # this one, where another one is behind it


@dataclass(frozen=True)
class Told:
    """What was said of a planted fault. `wrong`: another cause is said, alone and without a doubt; `edit`: the planted
    line is named, and the trial mends it."""

    fault: WrittenFault
    layer: bool
    cause: bool
    wrong: bool
    edit: bool
    said: str


def located(folder: Path, framework: str, port: str, source: str, name: str) -> dict[str, Any]:
    """What `locate --try` says of a port's source; `port` names the network that it should be."""
    (folder / f"{name}.py").write_text(source)
    right, *options = shlex.split(PORTS[framework, port].format(name=name))
    if right in SMALL:
        (folder / right).write_text(records.write(SMALL[right](framework)))
    answer = folder / f"{name}.json"
    words = ["locate", "--left", f"{name}:network", "--right", right, *options, "--try", "--json", str(answer)]
    noise = io.StringIO()
    sys.modules.pop(name, None)  # of an earlier table, in another folder: it would be judged in place of this one
    with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise), contextlib.suppress(SystemExit):
        triptych(words)
    if not answer.exists():
        return {"refused": noise.getvalue().strip()}
    made: dict[str, Any] = json.loads(answer.read_text())
    return made


def refused(folder: Path, framework: str, only: str = "") -> Iterator[str]:
    """What is said against the right ports of a framework, as they are and as `written_right.py` has them."""
    as_they_are = [(port, "", "") for name, port in PORTS if name == framework]
    otherwise = [(each.port, each.old, each.new) for each in RIGHT if each.framework == framework]
    for number, (port, old, new) in enumerate((*as_they_are, *otherwise)):
        if only in ("", port):
            source = (SOURCES / framework / f"{port}.py").read_text().replace(old, new, 1)
            answer = located(folder, framework, port, source, f"{framework}_{port}_right_{number}")
            if answer.get("difference", "refused") is not None:
                said = answer.get("difference") or answer
                yield f"{framework}/{port}.py, a right port, {new[:60]!r}, differs: {said}"


def judge(folder: Path, number: int, fault: WrittenFault) -> Told:
    """Plant it, and compare what is said."""
    source = (SOURCES / fault.framework / f"{fault.port}.py").read_text()
    if fault.old not in source:
        raise ValueError(f"{fault.old!r} is not in {fault.framework}/{fault.port}.py")
    wrong = source.replace(fault.old, fault.new, 1)
    name = f"{fault.framework}_{fault.port}_{number}"
    answer = located(folder, fault.framework, fault.port, wrong, name)
    difference = answer.get("difference")
    if difference is None:
        return Told(fault, False, False, False, False, answer.get("refused") or "no difference")
    cause, note = difference["cause"] or "", difference["note"] or ""
    edits = [note for note in answer["notes"] if note.startswith(("edit:", "tried"))]
    said = f"{difference['layer']}, {difference['level']}: {cause} [{note}] {edits}"
    right = bool(fault.cause) and any(words in cause for words in fault.cause.split("|"))
    doubted = not cause or VAGUE.search(cause) or "as well explained by" in note
    line = source[: source.index(fault.old)].count("\n") + 1
    lines = range(line, line + fault.old.count("\n") + 1)
    edit = any(f"{name}.py:{n}:" in text for text in edits for n in lines) and any(GONE in text for text in edits)
    return Told(fault, difference["layer"] == fault.layer, right, not (right or doubted), edit, said)


def summary(results: Iterable[Told]) -> str:
    """The counts, in one line."""
    judged = list(results)
    known = [result for result in judged if result.fault.cause]
    argued = [result for result in judged if result.fault.argument]
    return (
        f"{len(judged)} faults: layer named in {sum(r.layer for r in judged)}, cause first in "
        f"{sum(r.cause for r in known)} of {len(known)}, a wrong cause said alone in {sum(r.wrong for r in judged)}, "
        f"edit printed and tried in {sum(r.edit for r in argued)} of {len(argued)}"
    )


def misses(result: Told) -> str:
    """What was not told of a fault, or wrongly; empty where all was."""
    fault = result.fault
    wanted = {"layer": result.layer, "cause": result.cause, "edit": result.edit or not fault.argument}
    missed = [word for word, there in wanted.items() if not there] + ["WRONG"] * result.wrong
    expected = f"{', '.join(missed)}: {fault.layer}, {fault.cause!r}"
    return f"{fault.port}, {fault.new[:60]!r}: {expected}; said {result.said}" * bool(missed)


def main(words: list[str]) -> None:
    """A line for each framework, and for a right port that is said to differ; with `--misses` one for every fault of
    which something was not told."""
    only = words[words.index("--only") + 1] if "--only" in words else ""
    tables = [table for name, table in TABLES.items() if name in words] or list(TABLES.values())
    chosen = [fault for table in tables for fault in table if only in ("", fault.port)]
    everything = []
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        folder = Path(place)
        for framework in [name for name in ("torch", "mxnet", "jax") if name in words] or registry.installed():
            for text in refused(folder, framework, only):
                print(text)
            faults = [fault for fault in chosen if fault.framework == framework]
            results = [judge(folder, number, fault) for number, fault in enumerate(faults)]
            everything += results
            print(f"{framework}: {summary(results)}", flush=True)
            for text in filter(None, map(misses, results)) if "--misses" in words else ():
                print(f"    {text}")
    print(f"all: {summary(everything)}")


if __name__ == "__main__":
    main(sys.argv[1:])
