"""The site's page of every network: three native sources in columns, their certificate, the traps that wait.

    python docs/network_pages.py            # checks what has no certificate yet and keeps it in network_pages.jsonl
    python docs/network_pages.py vgg16 jax  # a network, or a backend, or both

`make docs` writes the pages. A certificate is the record of the check that tests/emitting/test_emitted.py makes: the
emitted file of the network as conformance takes it, narrow and small but complete, is executed in float64 in evaluation
and in training. It holds for the very text that was executed: its SHA-256 is kept, and a page says "not run" where
the text is another by now.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from triptych import zoo
from triptych.backend import registry
from triptych.conformance.case import conformance_architecture
from triptych.emitting.emit import dialect_of, emit
from triptych.emitting.guide import traps_in
from triptych.report import columns
from triptych.spec.analysis import totals
from triptych.spec.layers import Architecture
from triptych.utils.files import write_atomically

DOCS = Path(__file__).parent
RECORD = DOCS / "network_pages.jsonl"
FOLDER = "networks"
LAYERS = 6  # of those at which a trap waits, named on a page


def sha256(source: str) -> str:
    """Of a text as a file would have it."""
    return hashlib.sha256(source.encode()).hexdigest()


@cache
def certificates() -> dict[tuple[str, str], dict[str, Any]]:
    """By network and backend, what the last check found."""
    lines = RECORD.read_text(encoding="utf-8").splitlines() if RECORD.exists() else []
    return {(found["network"], found["backend"]): found for found in map(json.loads, lines)}


def keep(found: dict[str, Any]) -> None:
    """Put a certificate into the file, which has a line for each, in the zoo's order."""
    certificates()[found["network"], found["backend"]] = found
    order = [(name, backend) for name in zoo.registry() for backend in registry.BACKENDS]
    lines = [json.dumps(certificates()[key]) for key in order if key in certificates()]
    write_atomically(RECORD, ("\n".join(lines) + "\n").encode())


def certificate(name: str, backend: str) -> dict[str, Any] | None:
    """What the check of this network's emitted file found; None if it was not run on the file as it is now."""
    found = certificates().get((name, backend))
    return found if found and found["sha256"] == sha256(emit(conformance_architecture(name), backend).source) else None


def certify(name: str, backend: str) -> dict[str, Any]:
    """Emit a network, execute the file, compare it with the reference: outputs in evaluation; outputs, gradients and
    running statistics in training. Raises AssertionError where it differs."""
    from emitting import test_emitted as tests

    architecture = conformance_architecture(name)
    trained = tests.trainable(architecture, backend)
    emitted = emit(architecture, backend)
    with tempfile.TemporaryDirectory() as folder:
        evaluation = tests.check(emitted, architecture, Path(folder), train=False)
        training = tests.check(emit(trained, backend), trained, Path(folder), train=True)
    known = {"network": name, "backend": backend, "input": list(architecture.input), "sha256": sha256(emitted.source)}
    return known | {"evaluation": evaluation, "training": training, "versions": registry.load(backend).versions()}


def page(name: str) -> str:
    """The page as Markdown."""
    architecture = zoo.build(name)
    emitted = [emit(architecture, backend) for backend in registry.installed()]
    fragment = columns.fragment(architecture, emitted, "../porting/")
    return "\n".join(
        [*_head(name, architecture), "```{raw} html", fragment, "```", "", *_proof(name), *_traps(architecture)]
    )


def _head(name: str, architecture: Architecture) -> Iterator[str]:
    sums, shape = totals(architecture), columns.size(architecture.input)
    yield f"# {name}"
    yield ""
    yield f"[triptych](../index.md), [all networks](index.md). {architecture.source}. Input {shape}, "
    yield f"{architecture.classes} classes, {sums.parameters:,} parameters, {sums.macs:,} multiply-accumulates."
    yield f"`triptych emit {name} --backend {registry.installed()[0]}` writes a column as a file."
    yield ""


def _proof(name: str) -> Iterator[str]:
    yield "## Are they equal?"
    yield ""
    yield "Each file is executed in float64 and compared with the NumPy reference, at the size that conformance takes"
    yield "(narrow and small but complete, from the same writer). Training: outputs, all gradients, running statistics;"
    yield "with a dropout rate of 0, because each framework draws its own masks, and in MXNet with the running variance"
    yield "that its operator can keep. The largest difference is relative to the array's largest value, or to 1."
    yield ""
    yield "| framework | certificate | evaluation differs by | training differs by | SHA-256 of the executed file |"
    yield "|---|---|---|---|---|"
    for backend in registry.installed():
        found = certificate(name, backend)
        if found is None:
            yield f"| {dialect_of(backend).framework} | not run | | | |"
        else:
            versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
            differences = f"{found['evaluation']:.1e} | {found['training']:.1e}"
            yield f"| {versions} | equal | {differences} | `{found['sha256'][:12]}` |"
    yield ""


def _traps(architecture: Architecture) -> Iterator[str]:
    yield "## Traps that wait here"
    yield ""
    for trap, paths in traps_in(architecture).items():
        more = f" and {len(paths) - LAYERS} more" if len(paths) > LAYERS else ""
        named = ", ".join(f"`{path}`" for path in paths[:LAYERS])
        yield f"- {trap.text} [{trap.section}](../porting/{trap.page}.md#{trap.anchor}): {named}{more}."
    yield ""


def index(names: Sequence[str]) -> str:
    """The list of the pages as Markdown."""
    lines = [
        "# Networks",
        "",
        "Every network of the zoo in PyTorch, Gluon and Flax beside each other, as `triptych emit` writes them.",
        "Point at a layer, and its lines light up in every column. Whether they are equal is computed; each page has",
        "the figures.",
        "",
        "| network | input | parameters | after |",
        "|---|---|---|---|",
    ]
    for name in names:
        architecture = zoo.build(name)
        counts = f"{columns.size(architecture.input)} | {totals(architecture).parameters:,}"
        lines.append(f"| [{name}]({name}.md) | {counts} | {architecture.source} |")
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *names, "```", ""])


def write(folder: Path, names: Sequence[str]) -> None:
    """The pages of these networks and their list, each only if it is not there as it should be."""
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.md": page(name) for name in names} | {"index.md": index(names)}
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for file, text in pages.items():
        path = folder / file
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text.encode())


def main(words: Sequence[str]) -> int:
    """Certify what has no certificate; 1 if a file differs from the spec."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    names = [word for word in words if word in zoo.registry()] or list(zoo.registry())
    backends = [word for word in words if word in registry.BACKENDS] or registry.installed()
    failed = False
    for name, backend in ((name, backend) for backend in backends for name in names):
        if certificate(name, backend) is None:
            try:
                keep(certify(name, backend))
            except AssertionError as error:
                print(f"{name} {backend} DIFFERS: {error}", flush=True)
                failed = True
            else:
                print(f"{name} {backend}: equal", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
