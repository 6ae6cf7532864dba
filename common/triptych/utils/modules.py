"""Python files as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from triptych.utils.reading import read_bounded


def run_file(path: Path, name: str) -> ModuleType:
    """The file as the module `name`, compiled as it lies there. Python's own loader would take the compiled form that
    it kept of a file of the same size and second: an edit of one letter would not be seen. Raises what the file
    raises."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a module looks for its own annotations
    exec(compile(read_bounded(path), str(path), "exec"), module.__dict__)
    return module
