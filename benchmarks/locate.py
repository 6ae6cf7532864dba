"""How long `triptych locate` takes on VGG-16 at 64x64, full width, after the import; one process for each backend.

python benchmarks/locate.py [BACKEND ...]
"""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

from triptych import zoo
from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.conformance.case import make_case
from triptych.conformance.comparison import BATCH
from triptych.conformance.locate import locate
from triptych.conformance.reference_run import Truth
from triptych.conformance.subjects import BackendSide, ReferenceSide


def seconds(name: str) -> float:
    """From the case to the verdict, which must be that they agree."""
    framework = registry.load(name)
    start = perf_counter()
    truth = Truth(make_case(zoo.build_with("vgg16", zoo.Options(10, (3, 64, 64))), 0, BATCH))
    side = BackendSide(framework, framework.build(truth.case.architecture, execution=exact("fp64")), truth)
    result = locate(side, ReferenceSide(truth), truth, updates=("momentum",))
    if result.difference is not None:
        sys.exit(f"{name} and the reference part: {result.difference}")
    return perf_counter() - start


def main(names: list[str]) -> None:
    """One line for each backend."""
    if len(names) == 1:
        print(f"{names[0]}: {seconds(names[0]):.1f} s")
    for name in names if len(names) > 1 else ():
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(registry.installed()))
