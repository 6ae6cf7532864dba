"""Certificates: what is in one, that it verifies, and that whatever is changed in it or here is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from triptych import zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.conformance import certificate as certificates
from triptych.conformance import suite, verification
from triptych.conformance.case import conformance_architecture, make_case
from triptych.conformance.certificate import ELSEWHERE, Certificate
from triptych.conformance.compare import Check
from triptych.conformance.conform import Report
from triptych.conformance.inputs import everything
from triptych.conformance.levels import ALL_LEVELS
from triptych.spec import records
from triptych.spec.layers import Architecture

FIRST = registry.installed()[:1]
needs_backend = pytest.mark.skipif(not FIRST, reason="no framework is installed")


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(str(stopped.value.code))


# --- a certificate ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of LeNet on the first backend in float64."""
    path = tmp_path_factory.mktemp("certificate") / "lenet.json"
    options = ["--arch", "lenet", "--backends", FIRST[0], "--precision", "fp64"]
    assert (
        call("conform", *options, "--seed", "2", "--certificate", path, "--json", path.with_name("conform.json")) == 0
    )
    return path


@needs_backend
def test_what_a_certificate_holds(made: Path) -> None:
    value, framework = json.loads(made.read_text()), registry.load(FIRST[0])
    assert (value["format"], value["version"], value["passed"]) == ("triptych certificate", 4, True)
    assert (value["seed"], value["device"], value["precisions"]) == (2, "cpu", ["fp64"])
    assert value["backends"][framework.name]["versions"] == framework.versions()
    assert value["backends"][framework.name]["device"].startswith("cpu: ")
    others = {
        name: "not asked for" if name in registry.installed() else "not installed"
        for name in registry.BACKENDS
        if name != framework.name
    }
    assert value["not_run"] == others | {"fp32": "not asked for"} | ELSEWHERE
    (certified,) = value["architectures"]
    verdict = certified["verdict"]
    case = make_case(conformance_architecture("lenet"), 2)
    assert records.decode(verdict["architecture"], Architecture) == case.architecture
    assert certified["spec_hash"] == records.digest(case.architecture)
    assert verdict["weights_hash"] == records.arrays_digest(case.parameters)
    assert verdict["inputs_hash"] == records.arrays_digest(everything(case))
    again = suite.run(case.architecture, [framework], precisions=["fp64"], seed=2)
    assert verdict == json.loads(json.dumps(records.encode(again)))
    (report,) = verdict["reports"]
    assert list(dict.fromkeys(check["level"] for check in report["checks"])) == list(ALL_LEVELS)
    (shown,) = json.loads(made.with_name("conform.json").read_text())
    assert shown["backends"][0]["precision_flags"] == report["precision_flags"]
    assert str(made.parent) not in made.read_text()


@needs_backend
def test_a_certificate_verifies(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", made) == 0
    assert f"\nverified: lenet on {FIRST[0]}; " in capsys.readouterr().out
    assert call("verify", made, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["passed"], shown["reasons"], shown["not_run"], shown["notes"]) == (True, [], {}, [])
    assert shown["checks"] == len(report_of(json.loads(made.read_text()))["checks"]) > 50


@needs_backend
def test_a_certificate_of_another_size_and_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name in registry.installed() if name != "jax"]  # compiles for seconds
    path = tmp_path / "c.json"
    options = ["--arch", "lenet", "--input", "2x28x30", "--classes", "7"]
    assert call("conform", *options, "--backends", ",".join(names or FIRST), "--certificate", path) == 0
    verdict = certificates.read(path).architectures[0].verdict
    assert verdict.architecture.input == (2, 28, 30)
    assert len(verdict.pairs) == 2 * (len(names) > 1)
    capsys.readouterr()
    assert call("verify", path) == 0, capsys.readouterr().out


Change = Callable[[dict[str, Any]], object]
TITLE = f"{FIRST[0]} fp64" if FIRST else ""


def certified_of(value: dict[str, Any]) -> dict[str, Any]:
    return value["architectures"][0]


def verdict_of(value: dict[str, Any]) -> dict[str, Any]:
    return certified_of(value)["verdict"]


def report_of(value: dict[str, Any]) -> dict[str, Any]:
    return verdict_of(value)["reports"][0]


def loss_of(value: dict[str, Any]) -> dict[str, Any]:
    checks = report_of(value)["checks"]
    return next(check for check in checks if (check["level"], check["tensor"]) == ("gradient", "loss"))


def flag_of(value: dict[str, Any]) -> str:
    return next(name for name in report_of(value)["precision_flags"] if "TF32" in name)


def forged(value: Any) -> Any:
    """The file with everything that follows from the rest made anew, as one would who knows how it is written."""
    if isinstance(value, list):
        return [forged(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {name: forged(item) for name, item in value.items()}
    for kind in (Check, Report, suite.Verdict, Certificate):
        if value.keys() == {field.name for field in fields(kind)} | set(kind.DERIVED):
            known = {name: item for name, item in value.items() if name not in kind.DERIVED}
            parts = get_type_hints(kind)
            record = kind(**{name: records.decode(item, parts[name]) for name, item in known.items()})
            return records.encode(record)
    return value


# what is changed in the file, and the one reason against it (its digest is made anew)
TAMPERED: dict[str, tuple[Change, list[str]]] = {
    "spec": (
        lambda value: verdict_of(value)["architecture"]["layers"][0].update(padding=[1, 2]),
        [
            "lenet: the spec in the file is not the one that was judged",
            "lenet: the spec changed: layer 'conv1': padding is (1, 2) in the certificate, (2, 2) in the zoo",
            "lenet: the weights changed: SHA-256",
        ],
    ),
    "spec hash": (
        lambda value: certified_of(value).update(spec_hash="0" * 64),
        ["lenet: the spec in the file is not the"],
    ),
    "weights hash": (
        lambda value: verdict_of(value).update(weights_hash="0" * 64),
        ["lenet: the weights changed: SHA-256 000000000000... in the certificate, "],
    ),
    "inputs hash": (
        lambda value: verdict_of(value).update(inputs_hash="0" * 64),
        ["lenet: the inputs changed: SHA-256"],
    ),
    "seed": (lambda value: value.update(seed=3), ["lenet: the weights changed", "lenet: the inputs changed"]),
    "flag": (
        lambda value: report_of(value)["precision_flags"].update({flag_of(value): "1"}),
        [f"{TITLE[:-5]}: the precision flag NVIDIA_TF32_OVERRIDE was 1, here it is None"],
    ),
    "flag left out": (
        lambda value: report_of(value)["precision_flags"].pop(flag_of(value)),
        [f"{TITLE[:-5]}: the precision flag NVIDIA_TF32_OVERRIDE was not there, here it is None"],
    ),
    "larger budget": (
        lambda value: loss_of(value).update(budget=loss_of(value)["budget"] * (1 + 1e-8)),
        [f"lenet: {TITLE}: another budget: gradient, 'loss': "],
    ),
    "beyond the budget": (
        lambda value: loss_of(value).update(difference=loss_of(value)["budget"] * 1.01),
        [f"lenet: {TITLE}: the certificate records a failure: gradient, 'loss': differs by"],
    ),
    "no difference": (
        lambda value: loss_of(value).update(difference=None),
        [f"lenet: {TITLE}: the certificate records a failure: gradient, 'loss': states no difference"],
    ),
    "check left out": (
        lambda value: report_of(value)["checks"].remove(loss_of(value)),
        [f"lenet: {TITLE}: not in the certificate: gradient, 'loss'"],
    ),
    "check invented": (
        lambda value: report_of(value)["checks"].append(loss_of(value) | {"tensor": "more"}),
        [f"lenet: {TITLE}: in the certificate only: gradient, 'more'"],
    ),
    "level left out": (
        lambda value: report_of(value).update(
            checks=[check for check in report_of(value)["checks"] if check["level"] != "update"]
        ),
        [
            f"lenet: {TITLE}: update was not run: an earlier level stopped the run",
            *[f"lenet: {TITLE}: not in the certificate: "] * 4,
        ],
    ),
    "results left out": (
        lambda value: verdict_of(value).update(reports=[]),
        ["lenet: no backend was run", f"lenet: {TITLE}: was run, but is not in the"],
    ),
    "precision": (
        lambda value: value.update(precisions=["fp32"]),
        [
            *("'fp64' was left out, and not_run does not", "'fp32' is said to be left out, and was not"),
            *(f"lenet: {TITLE}: is in the certificate, but", "lenet"),
        ],
    ),
    "nothing": (lambda value: value.update(architectures=[]), ["it certifies no architecture"]),
    "other name": (
        lambda value: certified_of(value).update(name="vgg11"),
        [
            "vgg11: the spec in the file is that of 'lenet'",
            "vgg11: the zoo does not build it: layer 'block5.pool': its 2x2 window",
        ],
    ),
    "other option": (
        lambda value: certified_of(value)["options"].update(classes=11),
        ["lenet: the spec changed: classes is 10 in the certificate, 11 in the zoo"],
    ),
}


@needs_backend
@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_changed_in_the_file_is_the_reason(what: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, expected = TAMPERED[what]
    value = json.loads(made.read_text())
    change(value)
    tampered = records.decode(forged(value), Certificate)
    found = verification.verify(replace(tampered, digest=certificates.own_digest(tampered)))
    assert not found.passed
    assert found.notes == []
    assert len(found.reasons) == len(expected), found.reasons
    for reason, line in zip(found.reasons, expected, strict=True):
        assert reason.startswith(line)


@needs_backend
def test_any_change_of_the_file_breaks_its_digest(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that no run can contradict: when it was made."""
    value = json.loads(made.read_text())
    value["created"] = "2020-02-02T02:02:02Z"
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(forged(value)))
    assert call("verify", changed) == 1
    first, *unvouched, last = capsys.readouterr().out.splitlines()
    assert all(line.startswith("not vouched for: ") for line in unvouched)
    assert first == "refused: the file is not as it was written: its digest does not fit its content; nothing was run"
    assert last == f"NOT verified: lenet on {FIRST[0]}; 0 checks run again"


@needs_backend
@pytest.mark.parametrize("digest", [True, False], ids=["a right digest", "a wrong digest"])
def test_sizes_that_no_memory_holds_are_refused_and_not_run(digest: bool, made: Path) -> None:
    value = json.loads(made.read_text())
    verdict_of(value)["architecture"]["layers"][0]["channels"] = 10**9
    changed = records.decode(forged(value), Certificate)
    found = verification.verify(replace(changed, digest=certificates.own_digest(changed)) if digest else changed)
    assert not found.passed
    assert found.checks == 0
    expected = "needs at least" if digest else "its digest does not fit its content; nothing was run"
    assert any(expected in reason for reason in found.reasons), found.reasons


@needs_backend
def test_other_versions_are_noted_and_no_reason(made: Path) -> None:
    value = json.loads(made.read_text())
    value["backends"][FIRST[0]]["versions"][FIRST[0]] = "0.1"
    report_of(value)["precision_flags"]["a flag of that version"] = True
    older = records.decode(value, Certificate)
    found = verification.verify(replace(older, digest=certificates.own_digest(older)))
    assert found.passed
    assert found.notes == [f"{FIRST[0]} 0.1 in the certificate, {registry.load(FIRST[0]).versions()[FIRST[0]]} here"]


# --- what is not the same here ----------------------------------------------------------------------------------------


def refused(made: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The reasons that the command prints, after an end with status 1."""
    capsys.readouterr()
    assert call("verify", made) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.startswith("NOT verified: lenet on ")
    return [line for line in lines if not line.startswith("not vouched for: ")]


@needs_backend
def test_a_weight_that_is_drawn_otherwise_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other_case(*arguments: Any) -> Any:
        case = make_case(*arguments)
        weight = case.parameters["conv1.weight"].copy()
        weight.flat[0] = np.nextafter(weight.flat[0], np.float32(1))
        return replace(case, parameters=case.parameters | {"conv1.weight": weight})

    monkeypatch.setattr(suite, "make_case", other_case)
    (reason,) = refused(made, capsys)
    assert reason.startswith("refused: lenet: the weights changed: SHA-256 ")


@needs_backend
def test_a_zoo_that_changed_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = zoo.get_entry("lenet")

    def build(options: zoo.Options) -> tuple[Any, ...]:
        first, *others = entry.build(options)
        return (replace(first, padding=(1, 1)), *others)

    monkeypatch.setitem(zoo.registry(), "lenet", replace(entry, build=build))
    assert refused(made, capsys) == [
        "refused: lenet: the spec changed: layer 'conv1': padding is (2, 2) in the certificate, (1, 1) in the zoo"
    ]


@needs_backend
def test_a_backend_that_computes_otherwise_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    framework = registry.load(FIRST[0])
    right = framework.forward

    def wrong(*arguments: Any, **options: Any) -> Any:
        outputs = right(*arguments, **options)
        return outputs | {"dense3": outputs["dense3"] * (1 + 1e-9)}

    monkeypatch.setattr(framework, "forward", wrong)
    reasons = refused(made, capsys)
    places = [
        f"refused: lenet: {TITLE}: fails here: forward {mode}, 'dense3': differs by " for mode in ("eval", "train")
    ]
    assert [reason.startswith(place) for reason, place in zip(reasons, places, strict=True)] == [True, True]


@needs_backend
def test_a_precision_flag_that_is_on_here_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert refused(made, capsys) == [
        f"refused: {FIRST[0]}: the precision flag NVIDIA_TF32_OVERRIDE is 1, which a running process cannot change; "
        "unset it and start again",
        f"refused: lenet: {TITLE}: not run here: {', '.join(ALL_LEVELS)}: a precision flag is on",
    ]


@needs_backend
def test_a_backend_or_device_that_is_not_here_is_not_run_and_no_pass(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value = json.loads(made.read_text())
    value["device"] = "cuda:99"
    other = tmp_path / "cuda.json"
    changed = records.decode(value, Certificate)
    certificates.write(other, replace(changed, digest=certificates.own_digest(changed)))
    assert f"{FIRST[0]}: not run: backend '{FIRST[0]}' has no device 'cuda:99' here" in refused(other, capsys)

    missing = replace(registry.BACKENDS[FIRST[0]], requires="no_such_package")
    monkeypatch.setitem(registry.BACKENDS, FIRST[0], missing)
    (line,) = refused(made, capsys)
    assert line.startswith(f"{FIRST[0]}: not run: backend '{FIRST[0]}' needs the package 'no_such_package'")
    assert call("verify", made, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["reasons"], list(found["not_run"]), found["checks"]) == (False, [], FIRST, 0)


# --- files that are no certificates -----------------------------------------------------------------------------------


def without(*names: Any) -> Change:
    def remove(value: dict[str, Any]) -> None:
        place: Any = value
        for name in names[:-1]:
            place = place[name]
        del place[names[-1]]

    return remove


DAMAGED: dict[str, tuple[Change, str]] = {
    "no format": (without("format"), "is no certificate; make one with: triptych conform --certificate FILE"),
    "other format": (lambda value: value.update(format="other"), "is no certificate; make one with"),
    "older version": (
        lambda value: value.update(version=2),
        "has version 2, not 4; make it anew with: triptych conform --certificate FILE",
    ),
    "later version": (lambda value: value.update(version=5), "has version 5, not 4; make it anew"),
    "version of another type": (lambda value: value.update(version=4.0), "version: 4.0 is not 4"),
    "a pass that its checks contradict": (
        lambda value: loss_of(value).update(difference=1.0),
        "passed: true is not what follows from the rest: false",
    ),
    "a failure that its checks contradict": (
        lambda value: verdict_of(value).update(passed=False),
        "architectures[0].verdict.passed: false is not what follows from the rest: true",
    ),
    "no seed": (without("seed"), "Certificate: missing or unknown in Certificate: 'seed'"),
    "unknown field": (lambda value: value.update(more=1), "missing or unknown in Certificate: 'more'"),
    "a seed of text": (lambda value: value.update(seed="2"), 'seed: "2" is not int'),
    "a seed that is true": (lambda value: value.update(seed=True), "seed: true is not int"),
    "precision": (lambda value: value.update(precisions=["fp8"]), "precisions[0]: \"fp8\" is not 'fp64' or 'fp32'"),
    "unknown layer": (
        lambda value: verdict_of(value)["architecture"]["layers"][0].update(record="Cnv"),
        "architectures[0].verdict.architecture.layers[0]: ",
    ),
    "no kernel": (
        without("architectures", 0, "verdict", "architecture", "layers", 0, "kernel"),
        "unknown in Conv: 'kernel'",
    ),
    "three paddings": (
        lambda value: verdict_of(value)["architecture"]["layers"][0].update(padding=[1, 2, 3]),
        "architectures[0].verdict.architecture.layers[0].padding: [1, 2, 3] is not 2 values",
    ),
    "checks": (lambda value: report_of(value).update(checks={}), "reports[0].checks: {} is not a list"),
    "infinite": (
        lambda value: loss_of(value).update(budget=float("inf")),
        "it is not JSON (Infinity is no number)",
    ),
}


def refuse(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert call("verify", path) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@needs_backend
@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_certificate_is_refused(
    what: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, fragment = DAMAGED[what]
    value = json.loads(made.read_text())
    change(value)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(value))
    err = refuse(path, capsys)
    assert str(path) in err
    assert fragment in err


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"null", b'"triptych certificate"', b"\xff\xfe\x00", b"[" * 100_000, b"\x89PNG\r\n"],
    ids=["empty", "cut off", "list", "null", "text", "bytes", "deep", "picture"],
)
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    assert "is no certificate" in refuse(path, capsys)
    assert "cannot be read: No such file" in refuse(tmp_path / "missing", capsys)
    assert "cannot be read: Is a directory" in refuse(tmp_path, capsys)


@needs_backend
def test_a_certificate_cut_anywhere_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, path = made.read_bytes().rstrip(), tmp_path / "cut.json"
    for end in range(0, len(content), len(content) // 7):
        path.write_bytes(content[:end])
        assert "is no certificate, or damaged" in refuse(path, capsys)
