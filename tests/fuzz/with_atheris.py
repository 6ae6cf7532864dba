"""Fuzzing led by the branches that the code takes: `python tests/fuzz/with_atheris.py RUNS READER...` (all by default).
With MOST_SECONDS=60 in the environment no reader takes longer; the runs that each got are said.

Each reader runs in a process of its own, from its seeds; what atheris finds new it keeps beside them for that process.
Ends with 1 if a reader raised anything but a TriptychError, with the input in hexadecimal. atheris (of Google) is
installed by the job `fuzz` of tests/environments/run."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
from pathlib import Path

import atheris

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "common"), str(TESTS.parent / "backends")]
LARGEST = 1 << 14  # bytes of an input
DIGITS = 4000  # of an input that is shown
SHOWN = 6000  # bytes of what a failed reader printed

with atheris.instrument_imports(include=["triptych"]):  # once for all readers: it takes longer than 1,000 runs
    from fuzz.limits import survive
    from fuzz.readers import READERS


def main(runs: str, *names: str) -> None:
    """Every reader in turn; a line each."""
    failed = [name for name in names or READERS if not passed(runs, name)]
    sys.exit(f"FAILED: {', '.join(failed)}" if failed else 0)


def passed(runs: str, name: str) -> bool:
    """One reader until its runs are done, in a child that shares the count of them."""
    count, said = mmap.mmap(-1, 8), os.memfd_create("said")
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(said, stream)
        one(runs, name, count)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = struct.unpack("Q", count)[0]
    print(f"{name}: {done:,} runs, {'nothing found' if status == 0 else 'FAILED'}", flush=True)
    if status:
        size = os.fstat(said).st_size
        print(os.pread(said, size, max(0, size - SHOWN)).decode(errors="replace"), flush=True)
    return status == 0


def one(runs: str, name: str, count: mmap.mmap) -> None:
    """Does not return."""
    reader, done = READERS[name], 0
    folder, corpus = (Path(tempfile.mkdtemp()) for _ in range(2))
    for number, seed in enumerate(reader.seeds()):
        (corpus / str(number)).write_bytes(seed)

    def attempt(content: bytes) -> None:
        nonlocal done
        done += 1
        struct.pack_into("Q", count, 0, done)
        try:
            survive(lambda: reader.read(content, folder))
        except BaseException:
            print(f"the input: {content[:DIGITS].hex()}", flush=True)
            raise

    options = [f"-atheris_runs={runs}", f"-max_len={LARGEST}", "-verbosity=0"]
    options.append(f"-max_total_time={os.environ.get('MOST_SECONDS', 0)}")
    atheris.Setup([sys.argv[0], *options, str(corpus)], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
