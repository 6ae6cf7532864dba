"""Renames the device before any test: final for the process, so that these tests have one of their own."""

import sys
from pathlib import Path

from triptych.utils.process import prepare_process

prepare_process()
sys.path.insert(0, str(Path(__file__).parent))
import npu  # noqa: E402, F401
