"""Which tests run when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from triptych.backend import registry

ALL = bool(os.environ.get("TRIPTYCH_TEST_ALL"))
later = pytest.mark.skipif(not ALL, reason="takes minutes: set TRIPTYCH_TEST_ALL=1, as `make test-all` does")
NO_FRAMEWORK = "no framework is installed"
needs_backend = pytest.mark.skipif(not registry.installed(), reason=NO_FRAMEWORK)
every_backend = pytest.mark.parametrize("name", registry.installed())

REAL_SETS = Path(os.environ.get("TRIPTYCH_TEST_DATA", "no real data sets"))


def needs_set(name: str) -> pytest.MarkDecorator:
    """For tests of a real data set: they run where they are told of it, not where it happens to lie."""
    reason = f"set TRIPTYCH_TEST_DATA to the folder that holds {name} (Debian's package: /usr/share/datasets)"
    return pytest.mark.skipif(not (REAL_SETS / name).exists(), reason=reason)
