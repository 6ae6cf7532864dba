"""`conform`: check backends against the reference and against each other. `verify`: run its certificate again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych import zoo
from triptych.cli import options
from triptych.cli.arch import certified_options, resolve
from triptych.cli.processes import show_shared
from triptych.report.tables import print_table
from triptych.utils import terminal
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from triptych.conformance.compare import Check
    from triptych.conformance.conform import Report
    from triptych.conformance.long_run import LongRun
    from triptych.conformance.sharpness import Sharpness
    from triptych.conformance.suite import Verdict
    from triptych.conformance.verification import Verification
    from triptych.spec.layers import Architecture


def conform(
    *,
    arch: Annotated[
        str | None, Parameter(help="Name, file or module:name, several with commas; vgg11 if left out.")
    ] = None,
    all: Annotated[options.Flag, Parameter(help="Every architecture of the zoo.")] = False,
    backends: options.Backends = None,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    precision: Annotated[
        str | None, Parameter(help="fp64 or fp32, both if left out; or bf16, fp16, tf32: one step of the trainer.")
    ] = None,
    device: options.DeviceName = "cpu",
    seed: options.Seed = 0,
    trajectory: Annotated[
        options.Whole, Parameter(help="Train so many steps too: float64 exactly, float32 bug or chaos (100, say).")
    ] = None,
    processes: Annotated[
        options.Several, Parameter(help="Hold a training by so many processes against one, too: float64 exactly.")
    ] = None,
    jobs: Annotated[
        options.Several, Parameter(help="Processes that share several architectures; one per core.")
    ] = None,
    certificate: Annotated[
        Path | None, options.written("--certificate", "Write every check with what it needs to be run again.")
    ] = None,
    sign: options.SigningKey = None,
    html: Annotated[Path | None, options.written("--html", "Write the scoreboard, one page.")] = None,
    json: options.JsonFile = None,
) -> int:
    """Check structure, forward, gradients and updates against the reference, and every pair of backends.

    Without size options the network is narrow and small but complete. Exit status 1 if a check fails.
    `verify` runs a certificate again.
    Example: triptych conform --arch vgg16 --backends torch,jax --certificate vgg16.json --html vgg16.html
    """
    from triptych.backend import registry
    from triptych.conformance import certificate as certificates
    from triptych.conformance import signature, suite
    from triptych.conformance.conform import PRECISIONS
    from triptych.conformance.identity import told_apart
    from triptych.report import scoreboard

    refuse_contradictions(arch, all, precision, trajectory, (certificate, html, json))
    refuse_low_precision(precision, device, certificate, html)
    key = signing_key(sign, certificate)
    names = list(zoo.registry()) if all else [name.strip() for name in ("vgg11" if arch is None else arch).split(",")]
    architectures = [told_apart(resolve(name, network, small=True).architecture) for name in names]
    refuse_unjudged(architectures, processes)
    loaded = [registry.load(name) for name in options.backend_names(backends)]
    precisions = PRECISIONS if precision is None else (precision,)
    verdicts = []
    same: dict[str, Any] = {"precisions": precisions, "seed": seed, "device": device}
    for verdict in suite.run_all(architectures, loaded, jobs=jobs, steps=trajectory, processes=processes, **same):
        verdicts.append(verdict)
        if json != "-":
            show(verdict)
    options.write_json(json, [suite.as_dict(verdict) for verdict in verdicts])
    if certificate is not None:
        sizes = [certified_options(name, network) for name in names]
        made = certificates.make(verdicts, sizes, loaded, **same)
        content = certificates.write(certificate, made)
        if key is not None:
            signature.sign(content, certificate, key)
    if html is not None:
        scoreboard.write(html, verdicts, {b.name: b.versions() for b in loaded}, options.command_line())
    passed = sum(verdict.passed for verdict in verdicts)
    if json != "-":
        print(f"{passed} of {len(verdicts)} architectures conform on {', '.join(b.name for b in loaded)}")
    return 0 if passed == len(verdicts) else 1


def verify(
    file: Annotated[Path, Parameter(help="What `conform --certificate`, or `port`, wrote.")],
    /,
    *,
    signed_by: Annotated[
        Path | None,
        Parameter(help="The public Ed25519 key (PEM) whose holder signed it; else nothing is run."),
    ] = None,
    json: options.JsonFile = None,
) -> int:
    """Run everything that a certificate says again, and compare: spec, weights, inputs, flags, checks and budgets.

    Of a port the files beside it are run, as they lie there: their code, too. Exit status 1, with a line for each
    reason, if anything is not as it says or cannot be run here.
    Example: triptych verify vgg11.json
    """
    from triptych.spec.records import encode

    backends, names, result = verified(file, signed_by)
    options.write_json(json, {"certificate": str(file), "backends": backends, **encode(result)})
    if json != "-":
        for name, reason in result.not_run.items():
            print(terminal.cell(f"{name}: not run: {reason}"))
        for reason in result.reasons:
            print(terminal.cell(f"refused: {reason}"))
        for note in result.notes:
            print(terminal.cell(f"note: {note}"))
        for what in result.unvouched:
            print(terminal.cell(f"not vouched for: {what}"))
        ran = ", ".join(name for name in backends if name not in result.not_run) or "no backend"
        word = "verified" if result.passed else "NOT verified"
        print(terminal.cell(f"{word}: {names} on {ran}; {result.checks:,} checks run again"))
    return 0 if result.passed else 1


def verified(file: Path, signed_by: Path | None) -> tuple[list[str], str, Verification]:
    """The backends of a certificate, what it is of, and what came of running it again; of nothing, where it has not the
    signature that it should."""
    from triptych.conformance import certificate, signature, verification
    from triptych.emitting import port_certificate

    key = None if signed_by is None else signature.public_key(signed_by)
    content = certificate.content_of(file)  # once: what is verified is what was signed
    if key is not None:
        try:
            signature.check(content, file, key)
        except signature.SignatureError as error:
            return [], str(file), verification.Verification([f"{error}; nothing was run"])
    if port_certificate.is_one(content):
        of_port, result = port_certificate.verify(content, file, as_written=key is not None)
        return [name for name in of_port.verdicts if name != port_certificate.SOURCE], of_port.ported_from, result
    recorded = certificate.parse(content, file)
    names = ", ".join(verification.title(certified) for certified in recorded.architectures)
    return list(recorded.backends), names, verification.verify(recorded)


def signing_key(sign: Path | None, certificate: Path | None) -> Ed25519PrivateKey | None:
    """The key to sign with. Raises TriptychError for none, and for one without a certificate: before hours of work."""
    if sign is None:
        return None
    if certificate is None:
        raise TriptychError(f"--sign {sign} signs a certificate; give --certificate FILE too")
    from triptych.conformance import signature

    options.writable("--sign")(None, signature.beside(certificate))
    return signature.private_key(sign)


def refuse_contradictions(
    arch: str | None, every: bool, precision: str | None, trajectory: int | None, files: Sequence[Path | str | None]
) -> None:
    """Raises TriptychError for options that cannot be, before anything is built or loaded."""
    from triptych.conformance import long_run

    if every and arch is not None:
        raise TriptychError("give --arch or --all, not both")
    options.check_precision(precision)
    if trajectory is not None:
        long_run.check_steps(trajectory)
    written = [Path(file).absolute() for file in files if file is not None]
    if len(set(written)) < len(written):
        raise TriptychError("--certificate, --html and --json must be different files")


def refuse_low_precision(precision: str | None, device: str, certificate: Path | None, html: Path | None) -> None:
    """Raises TriptychError for one that the device cannot have, and where a certificate or scoreboard of less than
    float32 is asked for: both are of all levels."""
    from triptych.conformance.levels import LOW
    from triptych.conformance.low_precision import refuse_device

    refuse_device(precision, device)

    if precision in LOW and (certificate or html):
        raise TriptychError(f"--precision {precision} judges one step; --certificate and --html are of all levels")


def refuse_unjudged(architectures: Sequence[Architecture], processes: int | None = None) -> None:
    """Raises TriptychError for networks of one name, and for one that cannot be judged in the memory that is here, or
    by several processes where that is asked for."""
    from triptych.conformance.case import BATCH
    from triptych.conformance.processes import check_shared
    from triptych.spec import footprint

    refuse_twice([architecture.name for architecture in architectures])
    for architecture in architectures:
        footprint.check_judged(architecture, BATCH)
        if processes is not None:
            check_shared(architecture)


def refuse_twice(names: Sequence[str]) -> None:
    """Raises TriptychError where two networks have one name: neither report nor certificate could tell them apart."""
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise TriptychError(f"--arch names {', '.join(twice)} more than once; name each network once")


def show(verdict: Verdict) -> None:
    """The worst check of every level as a table: difference, and its ratio to the budget."""
    shape = "x".join(map(str, verdict.architecture.input))
    columns = ("backend", "precision", "result", *verdict.levels)
    rows = []
    for report in (*verdict.reports, *verdict.pairs):
        result = "pass" if report.passed else "FAIL"
        rows.append((report.name, report.precision, result, *(cell(report, level) for level in verdict.levels)))
    rows += [("budget over scale", precision, "", *told) for precision, told in sharpness_cells(verdict).items()]
    print_table(columns, rows, title=f"{verdict.architecture.name}, {shape}: largest difference (share of its budget)")
    for report in verdict.reports:
        for check in report.failures[:5]:
            print(f"  {report.title}: {check.level}, '{check.tensor}': {check.text}")
        if len(report.failures) > 5:
            print(f"  {report.title}: {len(report.failures) - 5} more failures (see --json)")
    for name, reason in verdict.not_run.items():
        print(f"  {name}: not run ({reason})")
    print()
    if verdict.trajectory is not None:
        show_long_run(verdict.architecture.name, verdict.trajectory)
    if verdict.processes is not None:
        show_shared(verdict.architecture.name, verdict.processes)


def sharpness_cells(verdict: Verdict) -> dict[str, list[str]]:
    """By precision, the largest budget over its scale at every level, and of how many arrays it tells little: "again"
    where they are judged sharply elsewhere. Budgets are the reference's: one report of a precision says it."""
    from triptych.conformance.sharpness import sharpness

    def text(level: Sharpness | None) -> str:
        if level is None:
            return ""
        blunt = f" ({level.blunt} again)" if level.blunt else ""
        return f"{level.largest:.1e}" + (f" ({level.blunt}, {len(level.left)} untold)" if level.left else blunt)

    reports = {report.precision: sharpness(report) for report in verdict.reports}
    return {
        precision: [text(next((of for of in levels if of.level == name), None)) for name in verdict.levels]
        for precision, levels in reports.items()
    }


def show_long_run(name: str, run: LongRun) -> None:
    """A row per backend for float64, a row per pair for float32."""
    from triptych.conformance.compare import failures, worst
    from triptych.conformance.trajectory import BUDGET

    rows = []
    for backend, checks in run.checks.items():
        if (check := worst(checks)) is not None:
            note = check.problem or f"{check.tensor}: {figures(check)}"
            rows.append((backend, "fp64", "FAIL" if failures(checks) else "pass", note))
    for pair in run.pairs:
        note = f"{pair.ratio:.1f} times what one unit in the last place does to one backend"
        note += "" if pair.first_step is None else f", beyond it from step {pair.first_step}"
        note += "" if pair.saturated_at is None else f"; undecided from step {pair.saturated_at}"
        rows.append((f"{pair.left} - {pair.right}", "fp32", pair.verdict, note))
    title = f"{name}, {run.steps} training steps (float64: budget {BUDGET:g} of the scale)"
    print_table(("backend", "precision", "result", "worst"), rows, title=title)
    print()


def cell(report: Report, level: str) -> str:
    """One level of one backend or pair."""
    worst = report.worst(level)
    if worst is None:
        return "not run" if level in report.not_run else ""
    if worst.problem:
        return "FAIL"
    return f"{len(report.at(level))} equal" if level == "structure" else figures(worst)


def figures(check: Check) -> str:
    """Difference, and share of the budget."""
    return f"{check.difference:.1e} ({check.ratio:.2f})"
