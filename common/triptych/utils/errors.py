"""The one exception for what a user can put right: the command line prints it as one line and exits with 2."""

import difflib
import importlib.util
from collections.abc import Iterable


class TriptychError(Exception):
    """Bad input or bad usage. The message says what was received, what was expected, and the way out."""


def unknown(kind: str, name: str, known: Iterable[str]) -> TriptychError:
    """An error for `name`, which is no `kind`: names the nearest match among `known`, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    return TriptychError(f"unknown {kind} '{name}'; {hint}")


def check_known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises the error of `unknown` for the first of `names` that is not among `known`."""
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def require_package(package: str, extra: str, what: str) -> None:
    """Raises TriptychError, which says how to install it, unless `package`, which `what` needs, can be imported."""
    if importlib.util.find_spec(package) is None:
        install = f"install it with: pip install 'triptych[{extra}]'"
        raise TriptychError(f"{what} needs the package '{package}', which is not installed; {install}")
