"""How long `triptych locate` takes on VGG-16 at 64x64, full width, after the import; one process for each backend.

python benchmarks/locate.py [BACKEND ...]
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from time import perf_counter

from triptych import zoo
from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.conformance.case import make_case
from triptych.conformance.locate import BATCH, locate
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import BackendSubject, ReferenceSubject


def seconds(name: str) -> float:
    """From the case to the verdict, which must be that they agree."""
    framework = registry.load(name)
    start = perf_counter()
    run = ReferenceRun(make_case(zoo.build_with("vgg16", zoo.Options(10, (3, 64, 64))), 0, BATCH))
    subject = BackendSubject(framework, partial(framework.build, execution=exact("fp64")), run)
    result = locate(subject, ReferenceSubject(run), updates=("momentum",))
    if result.difference is not None:
        sys.exit(f"{name} and the reference diverge: {result.difference}")
    return perf_counter() - start


def main(names: list[str]) -> None:
    """One line for each backend."""
    if len(names) == 1:
        print(f"{names[0]}: {seconds(names[0]):.1f} s")
    for name in names if len(names) > 1 else ():
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(registry.installed()))
