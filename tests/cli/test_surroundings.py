"""Commands where what others take for granted is missing or odd: a home, a user, quiet warnings, short numbers."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from marks import every_backend, needs_backend
from triptych.__main__ import ending, main
from triptych.conformance.verification import Verification
from triptych.optim import optimizers

DIGITS = "9" * 5000


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(str(stopped.value.code))


@pytest.fixture
def homeless(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No HOME, no cache named, and a user whom the system does not know."""

    def nobody(_: object) -> None:
        raise KeyError("unknown")

    for name in ("HOME", "TRIPTYCH_DATA", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    for name in ("ant", "bee"):
        for number in range(2):
            place = here / "set" / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), number).save(place)
    return here


@needs_backend
def test_a_training_needs_no_home(homeless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--recipe", "d2l-lenet", "--data", "set", "--epochs", "1", "--out", "run") == 0
    assert run("evaluate", "run") == 0
    assert capsys.readouterr().err == ""
    assert run("data", "list") == 2
    assert run("train", "--recipe", "d2l-lenet", "--data", "~/set") == 2
    assert capsys.readouterr().err.count("there is no home folder (HOME is not set, and this user has none)") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "~nosuchuser/x"], "there is no user 'nosuchuser' here"),
        (["train", "--data", "fashion-mnist", "--data-dir", "~nosuchuser"], "there is no user 'nosuchuser' here"),
        (["train", "--data", f"./{DIGITS}"], "there is no folder './999"),
        (["train", "--data", f"synthetic@train={DIGITS}"], "cannot be read"),
        (["train", "--batch-size", DIGITS], "is not a whole number"),
        (["train", "--epochs", "9" * 4000], "at most"),
        (["train", "--processes", "1000000000"], "--processes 1000000000 must be at most 1024 on one machine"),
        (["conform", "--jobs", DIGITS[:4000]], "must be at most 1024 on one machine"),
        (["train", "--schedule", f"step:every={DIGITS}"], "is not a whole number"),
        (["train", "--init", "normal:1e999"], "no deviation"),
        (["train", "--arch", "\udcff"], "unknown architecture '\\udcff'"),
        (["train", "--data", "\ud800\x1b[2J"], "unknown data set '\\ud800\\x1b[2J'"),
        (["train", "--data", "a\0b"], "unknown data set 'a\\x00b'"),
        (["summary", "lenet", "--input", f"1x{DIGITS}x3"], "is not CxHxW"),
        (["summary", "lenet", "--classes", DIGITS], "is not a whole number"),
        (["evaluate", "run", "--dense", "--dense-size", DIGITS], "is neither N nor HxW"),
        (["verify", "\udcff\x1b"], "certificate \\udcff\\x1b cannot be read"),
    ],
    ids=lambda value: ascii(value)[:40],
)
@needs_backend
@pytest.mark.usefixtures("here")
def test_what_no_shell_should_hand_over_is_one_short_line(arguments, message, capsys) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    error.encode()
    assert message in error
    assert error.count("\n") == 1
    assert len(error) < 2500
    assert "\x1b" not in error


@every_backend
@pytest.mark.usefixtures("here")
def test_any_seed_starts_a_framework_s_own_initialisation(name: str) -> None:
    options = ("--recipe", "d2l-lenet", "--data", "synthetic", "--epochs", "1", "--init", "native")
    for number, seed in enumerate((2**70, -1, 2**31 - 1)):
        assert run("train", *options, "--backend", name, "--seed", str(seed), "--out", f"run{number}") == 0


@every_backend
def test_warnings_that_are_errors_elsewhere_are_none_here(name: str, here: Path) -> None:
    """MXNet, above all, warns where it is imported."""
    path = os.pathsep.join(path for path in sys.path if path)
    train = f"['train', '--recipe', 'd2l-lenet', '--data', 'synthetic', '--epochs', '1', '--backend', {name!r}]"
    program = f"from triptych.__main__ import main; main({train})"
    surroundings = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.filterwarnings("always")  # pytest would collect them
def test_numbers_too_large_for_float32_are_no_lines_of_numpys(monkeypatch, recwarn) -> None:
    """`--learning-rate 1e308`, `--init normal:1e300`: what becomes of them is said in one line."""
    monkeypatch.setattr("triptych.cli.app", lambda *_, **__: optimizers.float32(1e308))
    assert run("archs") == 0
    assert [str(one.message) for one in recwarn] == []


def test_what_a_certificate_says_stays_on_its_line(capsys, monkeypatch) -> None:
    forged = Verification(notes=["triptych 1\nverified: vgg11 on torch; 9 checks run again"], checks=1)
    monkeypatch.setattr("triptych.cli.conform.verified", lambda *_: (["torch"], "lenet\nverified: vgg11", forged))
    assert run("verify", "c.json") == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("verified: vgg11")] == []


class OfSomebodyError(BaseException):
    """No `except Exception` sees it."""


def test_errors_that_are_no_exceptions_are_one_line(capsys) -> None:
    for error in (OfSomebodyError("a\nb"), GeneratorExit()):
        assert ending(error, own=True) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"triptych: the code of a network ended the program ({what}) before there was a result"
        for what in ("OfSomebodyError: a b", "GeneratorExit: ")
    ]


def test_a_sudden_success_is_none() -> None:
    """A network's own `os._exit(0)` is no verdict; what it gives itself as a failure stays one, and so does an end that
    is ours, as that of a helper process of MXNet's."""
    ends = (("os._exit(0)", 2, "(os._exit) before there was a result"), ("os._exit(7)", 7, ""), ("leave(0)", 0, ""))
    for given, status, words in ends:
        imports = "import os, triptych.cli as c; from triptych.utils.leaving import leave"
        program = f"{imports}; c.app = lambda *_, **__: {given}"
        command = [sys.executable, "-c", f"{program}; from triptych.__main__ import main; main()", "archs"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status
        assert words in done.stderr
