"""What may happen to the process: closed streams, signals at any moment, no home, no terminal, no more disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marks import needs_backend
from triptych.backend import registry
from triptych.training import run_folder

pytestmark = pytest.mark.usefixtures("here")
TRAIN = ("train", "--recipe", "d2l-lenet", "--data", "synthetic", "--batch-size", "128", "--epochs", "1")
AT_IMPORT = """
import signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
moment = sys.argv.pop(1)
from triptych import __main__
sys.meta_path.insert(0, AtImport())
__main__.main()
"""


def run(*command: str, **changed: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)} | changed
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def shell(line: str, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """`triptych ARGUMENTS` in the place of @ in a line of bash."""
    command = " ".join([sys.executable, "-m", "triptych", *arguments])
    return run("bash", "-c", line.replace("@", command), **changed)


@needs_backend
def test_closed_standard_error_does_not_stop_a_training():
    ended = shell("@ --out run 2>&-", *TRAIN)
    assert ended.returncode == 0
    assert ended.stdout.endswith("model and metrics are in run\n")
    assert run_folder.load(Path("run")).epoch == 1


MOMENTS = ["cyclopts", "triptych.cli.options", "triptych.training.recipe", "numpy", "triptych.training.loop"]
MOMENTS += ["triptych.data.synthetic", *(f"triptych_{name}" for name in registry.installed()[:1])]


@needs_backend
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_while_something_is_imported_is_one_line(moment):
    ended = run(sys.executable, "-c", AT_IMPORT, moment, *TRAIN, "--out", "run")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "triptych: stopped by SIGINT\n")
    assert not Path("run").exists()


SWALLOWED = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    {instead}
from triptych import zoo
net = zoo.build("lenet")
"""


@pytest.mark.parametrize("instead", ["pass", "raise ImportError('no such kernel')"])
def test_an_interrupt_that_somebody_s_import_swallows_is_none_the_less_one(instead):
    Path("swallowing.py").write_text(SWALLOWED.format(instead=instead))
    ended = run(sys.executable, "-m", "triptych", "summary", "swallowing:net")
    assert (ended.returncode, ended.stderr) == (130, "triptych: stopped by SIGINT\n")


LISTINGS = ["archs", "archs --json", "data list", "study", "summary vgg11", "--help", "train --help", "--version"]


@pytest.mark.parametrize("line", LISTINGS)
def test_a_reader_that_has_gone_is_no_error_of_ours(line):
    ended = shell("@ | true; echo ${PIPESTATUS[0]}", *line.split())
    assert (ended.stdout, ended.stderr) == ("141\n", "")


@pytest.mark.parametrize(
    "line", ["@ archs >/dev/full 2>/dev/full", "@ summary nothing 2>/dev/full", "@ summary nothing 2>&1 | true"]
)
def test_an_error_that_cannot_be_told_has_its_status(line):
    assert shell(f"{line}; echo ${{PIPESTATUS[0]}}").stdout == "2\n"


@needs_backend
@pytest.mark.parametrize(("backend", "home"), [(0, {}), (-1, {"HOME": "/dev/null"})], ids=["none", "no folder"])
def test_a_bare_environment_is_enough(backend, home, tmp_path):
    """No HOME, or one that cannot be written, a user that the system does not know, the C locale, a terminal that can
    nothing."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {**kept, **home, "PYTHONPATH": ":".join(sys.path), "TERM": "dumb", "LC_ALL": "C", "LANG": "C"}
    command = [sys.executable, "-m", "triptych", *TRAIN, "--out", str(tmp_path / "run")]
    command += ["--backend", registry.installed()[backend]]
    ended = subprocess.run(command, capture_output=True, env=environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.isascii()


TMPFS = """
mount -t tmpfs -o size={size} none disk || exit 99
@ --out disk/run >out 2>err; echo $? >status
cp -r disk/run kept; umount disk
"""


@needs_backend
@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare here")
@pytest.mark.parametrize(
    ("size", "epochs", "words"),
    [("4k", 0, "recipe.json cannot be saved in disk/run: No space left on device; "), ("300k", 1, "the one before is")],
)
def test_a_disk_that_is_full_leaves_what_was_saved(size, epochs, words):
    """Each on a small file system of its own: full while the run is created, and at its second epoch."""
    Path("disk").mkdir()
    command = " ".join([sys.executable, "-m", "triptych", *TRAIN[:-1], "3"])
    script = TMPFS.format(size=size).replace("@", command)
    ended = run("unshare", "-rm", "bash", "-c", script)
    if ended.returncode in (1, 99) and not Path("status").exists():
        pytest.skip(f"no file system can be mounted here: {ended.stderr.strip()}")
    assert Path("status").read_text() == "2\n"
    (line,) = Path("err").read_text().splitlines()
    assert words in line
    assert "bytes" in line
    assert "are free" in line
    kept = run_folder.load(Path("kept"), resuming=True) if epochs else None
    assert (kept.epoch if kept else 0) == epochs
    assert len(run_folder.read_epochs(Path("kept"))) == epochs
