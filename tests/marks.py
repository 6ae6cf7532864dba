"""Which tests run when."""

from __future__ import annotations

import os

import pytest

from triptych.backend import registry

ALL = bool(os.environ.get("TRIPTYCH_TEST_ALL"))
later = pytest.mark.skipif(not ALL, reason="takes minutes: set TRIPTYCH_TEST_ALL=1, as `make test-all` does")
needs_backend = pytest.mark.skipif(not registry.installed(), reason="no framework is installed")
every_backend = pytest.mark.parametrize("name", registry.installed())
