"""Every family of the zoo, trained on `fashion-mnist-mini` on every backend, as one table in Markdown.

python benchmarks/zoo.py FOLDER > benchmarks/results/zoo-mini.md

Runs that FOLDER holds already are not made again. About an hour on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from triptych.backend.registry import installed
from triptych.training import run_folder

SHARED = "--recipe compare --momentum 0.9 --init kaiming_uniform --batch-size 32"


@dataclass(frozen=True)
class Family:
    """One network of a family, at a size that two cores train in minutes."""

    architecture: str
    width_ratio: int
    resolution: int
    epochs: int
    learning_rate: float = 0.02

    @property
    def options(self) -> str:
        """What `triptych train` is given besides `SHARED`."""
        return (
            f"--arch {self.architecture} --width-ratio {self.width_ratio} --resolution {self.resolution} "
            f"--epochs {self.epochs} --learning-rate {self.learning_rate}"
        )


FAMILIES = (
    Family("lenet", 1, 28, 8, 0.1),
    Family("alexnet", 4, 96, 4),
    Family("vgg11", 8, 32, 4),
    Family("nin", 4, 96, 3, 0.01),
    Family("googlenet_bn", 8, 64, 3),
    Family("inception_v2", 8, 64, 3),
    Family("inception_v3", 8, 75, 2),
    Family("inception_v4", 8, 75, 3),
    Family("inception_resnet_v1", 8, 75, 2),
)


def main(folder: Path) -> None:
    """Train what is missing; print the table."""
    names = installed()
    print(f"`triptych train {SHARED}` with the options of each row; test accuracy after the last epoch.\n")
    print("| options | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    versions = {}
    for family in FAMILIES:
        cells = []
        for name in names:
            run = folder / f"{family.architecture}-{name}"
            if not (run / run_folder.METRICS).exists() or len(run_folder.read_epochs(run)) < family.epochs:
                train(family, name, run)
            last = run_folder.read_epochs(run)[-1]
            cells.append(f"{last.test_accuracy:.4f}")
            versions |= json.loads((run / run_folder.CHECKPOINT / run_folder.STATE).read_text())["versions"]
        print(f"| `{family.options}` | " + " | ".join(cells) + " |", flush=True)
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions.items()))


def train(family: Family, backend: str, run: Path) -> None:
    """One run, by the command."""
    place = f"--resume {run} --epochs {family.epochs}" if run.exists() else f"{SHARED} {family.options} --out {run}"
    command = f"{sys.executable} -m triptych train --backend {backend} {place}"
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
