"""Fuzzing led by the branches that the code takes: `python tests/fuzz/with_atheris.py RUNS READER...` (all by default).

Each reader runs in a process of its own, from its seeds; what atheris finds new it keeps beside them for that process.
Ends with 1 if a reader raised anything but a TriptychError, with the input in hexadecimal. atheris (of Google) is
installed by the job `fuzz` of tests/environments/run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "common"), str(TESTS.parent / "backends")]
LARGEST = 1 << 14  # bytes of an input
DIGITS = 4000  # of an input that is shown


def main(runs: str, *names: str) -> None:
    """Every reader in turn; a line each."""
    from fuzz.readers import READERS

    failed = []
    for name in names or READERS:
        command = [sys.executable, __file__, "--one", runs, name]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        print(f"{name}: {runs} runs, {'nothing found' if done.returncode == 0 else 'FAILED'}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout[-6000:], done.stderr[-6000:], flush=True)
    sys.exit(1 if failed else 0)


def one(runs: str, name: str) -> None:
    """One reader until its runs are done; does not return."""
    import atheris

    with atheris.instrument_imports(include=["triptych"]):
        from fuzz.limits import survive
        from fuzz.readers import READERS

    reader = READERS[name]
    folder, corpus = (Path(tempfile.mkdtemp()) for _ in range(2))
    for number, seed in enumerate(reader.seeds()):
        (corpus / str(number)).write_bytes(seed)

    def attempt(content: bytes) -> None:
        try:
            survive(lambda: reader.read(content, folder))
        except BaseException:
            print(f"the input: {content[:DIGITS].hex()}", flush=True)
            raise

    atheris.Setup([sys.argv[0], f"-atheris_runs={runs}", f"-max_len={LARGEST}", "-verbosity=0", str(corpus)], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(*sys.argv[2:])
    main(*sys.argv[1:])
