"""The tests see nothing of the machine but Python and its packages: no home, no data sets, no network.

All of it is set in the environment, so that it holds in the processes that tests start, too.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

# Where a cache or data sets could be found, and ways out of the machine.
FORGOTTEN = (
    *("TRIPTYCH_DATA", "TFDS_DATA_DIR", "MXNET_HOME", "TORCH_HOME", "HF_HOME", "MPLCONFIGDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_STATE_HOME"),
    *("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
)


def begin(sources: Iterable[Path]) -> tempfile.TemporaryDirectory[str]:
    """Isolates this process and all that it starts; these find modules in `sources` first, wherever they run.

    Returns the folder with the empty home, which the caller cleans up.
    """
    folder = tempfile.TemporaryDirectory(prefix="triptych-tests-", ignore_cleanup_errors=True)
    machine, guard = Path(folder.name), str(Path(__file__).parent)
    for name in ("home", "share"):
        (machine / name).mkdir()
    for name in FORGOTTEN:
        os.environ.pop(name, None)
    outer = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ |= {
        "HOME": str(machine / "home"),
        "XDG_DATA_DIRS": str(machine / "share"),  # where a distribution puts data sets
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([guard, *map(str, sources), *outer])),
        "TRIPTYCH_TEST_CONNECTIONS": str(machine / "connections"),
    }
    sys.path.append(guard)
    for name in ("no_frameworks", "no_network"):  # as sitecustomize does in other processes
        importlib.import_module(name)
    return folder


def attempted_connections() -> list[str]:
    """What was tried since the last call, by this process or one that it started."""
    note = Path(os.environ["TRIPTYCH_TEST_CONNECTIONS"])
    if not note.exists():
        return []
    attempts = note.read_text().splitlines()
    note.unlink()
    return attempts
