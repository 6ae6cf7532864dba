"""A model card: what a network is, how it was trained, what it reached, and what was proved of it, from the files."""

from collections.abc import Iterator
from pathlib import Path

from triptych import __version__
from triptych.conformance import certificate as certificates
from triptych.conformance.certificate import Certificate
from triptych.spec import analysis
from triptych.spec.layers import Architecture, outputs
from triptych.spec.records import digest, encode
from triptych.spec.shapes import output_shapes
from triptych.training import run_folder
from triptych.training.recipe import Recipe, build_transform
from triptych.training.run_folder import Epoch
from triptych.utils.errors import TriptychError


def text(architecture: Architecture, run: Path | None, certificate: Path | None) -> str:
    """The card, as Markdown: of the network, and, where they are given, its run folder and its certificate. Raises
    TriptychError for a certificate of another network."""
    lines = [f"# {architecture.name}", "", *_network(architecture)]
    if run is None:
        lines += ["", "## Training", "", "Not known here."]
    else:
        lines += _training(architecture, run_folder.read_recipe(run), run_folder.read_epochs(run))
    lines += ["", "## Conformance", "", *_proof(architecture, certificate)]
    return "\n".join([*lines, "", f"Written by triptych {__version__} from these files."]) + "\n"


def _network(architecture: Architecture) -> Iterator[str]:
    totals, shapes = analysis.totals(architecture), output_shapes(architecture)
    channels, height, width = architecture.input
    yield f"- source: {architecture.source or 'not said'}"
    yield f"- images: {channels} channel{'s' * (channels > 1)}, {height} high, {width} wide"
    if architecture.classes:
        yield f"- classes: {architecture.classes}"
    else:
        yield f"- outputs: {', '.join(f'{path} {shapes[path]}' for path in outputs(architecture))}"
    yield f"- parameters: {totals.parameters:,}; multiply-accumulates for an image: {totals.macs:,}"
    yield f"- SHA-256 of the spec: {digest(architecture)}"


def _training(architecture: Architecture, recipe: Recipe, epochs: list[Epoch]) -> Iterator[str]:
    transform = build_transform(recipe, architecture)
    yield from ("", "## Training", "")
    yield f"- epochs: {len(epochs)}" + (f" of {recipe.epochs}" if len(epochs) != recipe.epochs else "")
    for name in ("data", "batch_size", "learning_rate", "seed", "precision"):
        yield f"- {name.replace('_', ' ')}: {getattr(recipe, name)}"
    for name, record in (("optimizer", recipe.optimizer), ("schedule", recipe.schedule)):
        fields = ", ".join(f"{key} {value}" for key, value in encode(record).items() if key != "record")
        yield f"- {name}: {record.name} ({fields})"
    yield f"- pixels: {transform.text}"
    if epochs:
        last = epochs[-1]
        yield from ("", "## Accuracy", "")
        when = f"after epoch {last.epoch} on {last.backend}"
        yield f"- test, {when}: {last.test_accuracy:.4f} (loss {last.test_loss:.4f})"
        yield f"- training, in that epoch: {last.train_accuracy:.4f} (loss {last.train_loss:.4f})"
        yield "- one run with one seed; `triptych compare --seeds 5` says how far it would scatter"


def _proof(architecture: Architecture, path: Path | None) -> Iterator[str]:
    """What a certificate of `conform` says; that it is true is for `verify` to tell."""
    if path is None:
        yield "No certificate was given (`triptych conform --certificate FILE`)."
        return
    certificate = certificates.read(path)
    if certificates.own_digest(certificate) != certificate.digest:
        raise TriptychError(f"certificate {path} is not as it was written: its digest does not fit its content")
    mine = [one for one in certificate.architectures if one.spec_hash == digest(architecture)]
    if not mine:
        named = ", ".join(one.name for one in certificate.architectures)
        raise TriptychError(f"certificate {path} is of another network than '{architecture.name}': {named}")
    yield from _certified(certificate, path)


def _certified(certificate: Certificate, path: Path) -> Iterator[str]:
    word = "passed" if certificate.passed else "FAILED"
    judged = ", ".join(certificate.precisions)
    yield f"- {word}: {', '.join(certificate.backends)} against the float64 reference ({judged})"
    yield from (f"- not run: {what} ({why})" for what, why in certificate.not_run.items())
    yield f"- certificate {certificate.digest}, of {certificate.created}; again: `triptych verify {path.name}`"
