"""docs/leaving-mxnet.md, walked as a new user would: its commands as they stand, against what is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marks import later
from mxnet_runs import MODELS
from triptych.backend import registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "leaving-mxnet.md").read_text(encoding="utf-8")
FENCED = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
STEPS = [step.split("\n", 1) for kind, block in FENCED if not kind for step in re.split(r"(?m)^\$ ", block) if step]
SCRIPTS = [block for kind, block in FENCED if kind == "python" and "import" in block]
NUMBERS = re.compile(r"\d+\.\d+(e[+-]\d+)?|\d+(?= images/s)")


def pattern(shown: str) -> str:
    """What an output has to match: any number with a point may be another, `...` stands for any lines."""
    lines = [NUMBERS.sub("#", line).rstrip() for line in shown.strip().split("\n")]
    return "".join("(.*\n)*" if line == "..." else re.escape(line) + "\n" for line in lines if line)


def told(output: str) -> str:
    """An output as a pattern takes it."""
    return "".join(NUMBERS.sub("#", line).rstrip() + "\n" for line in output.strip().split("\n") if line)


def test_what_is_shown_is_matched_and_no_other() -> None:
    assert re.fullmatch(pattern("...\nloss 0.5, ok\n..."), told("x\nloss 0.7, ok\ny\nz"))
    assert not re.fullmatch(pattern("...\nloss 0.5, ok"), told("x\nloss 0.5, DIFFERS"))
    assert not re.fullmatch(pattern("loss 0.5, ok"), told("x\nloss 0.5, ok"))
    assert all(step[0].startswith(("triptych ", "sed ", "python ")) for step in STEPS)


@later
@pytest.mark.skipif(not MODELS.is_dir(), reason="the strangers' models are not here")
@pytest.mark.skipif(not {"mxnet", "torch"} <= {*registry.installed()}, reason="MXNet or PyTorch is not installed")
def test_the_walk(tmp_path: Path) -> None:
    for file in MODELS.glob("mxnet_in_action_lenet/*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "further.py").write_text(SCRIPTS[0])
    commands = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": commands, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "HOME": str(tmp_path / "home")}
    for command, shown in STEPS:
        ended = subprocess.run(
            ["bash", "-c", f"{command} 2>&1"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert re.fullmatch(pattern(shown), told(ended.stdout)), f"{command}\n{ended.stdout}"
        assert ended.returncode == int("verify" in command), ended.stdout
