"""Ray itself: two of its workers, on this machine, make the steps that one process makes.

A program, because Ray talks to itself by the machine's own address, which the tests' isolation takes for the network.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "ray_train.py"
OPTIONS = ("--data", "fashion-mnist-mini", "--width-ratio", "16", "--resolution", "32", "--epochs", "1")
TRIPTYCH = ("-m", "triptych")
SECONDS = 900


def losses(folder: Path, *command: str) -> list[float]:
    """Those of every step of a training."""
    subprocess.run([sys.executable, *command, *OPTIONS, "--out", str(folder)], check=True, timeout=SECONDS)
    return list(json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["losses"])


def main() -> None:
    """Ends with an error where Ray's workers part from one process, or their folder is none of ours."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "workers"
        workers = losses(run, str(BENCHMARK), "--workers", "2")
        alone = losses(Path(folder) / "alone", *TRIPTYCH, "train", "--backend", "torch")
        np.testing.assert_allclose(workers[:5], alone[:5], rtol=1e-5)
        assert len(workers) == len(alone), (len(workers), len(alone))
        subprocess.run([sys.executable, *TRIPTYCH, "evaluate", str(run)], check=True, timeout=SECONDS)
    print(f"two workers of Ray's and one process: {len(alone)} steps, the first losses {workers[:2]} and {alone[:2]}")


if __name__ == "__main__":
    main()
