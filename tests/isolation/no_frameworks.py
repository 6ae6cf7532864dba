"""Python packages that are installed and shall not be seen: TRIPTYCH_TEST_WITHOUT names them, with commas between.

`make check` hides every framework so, and what then still runs are its units. For `find_spec` and `import` a hidden
package is one that is not installed.
"""

import os
from importlib.machinery import PathFinder

HIDDEN = frozenset(filter(None, os.environ.get("TRIPTYCH_TEST_WITHOUT", "").split(",")))
_find_spec = PathFinder.find_spec


def find_spec(cls, name, path=None, target=None):
    """As Python's own, but for what is hidden."""
    return None if name.partition(".")[0] in HIDDEN else _find_spec(name, path, target)


if HIDDEN:
    PathFinder.find_spec = classmethod(find_spec)
