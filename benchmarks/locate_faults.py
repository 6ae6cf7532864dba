"""How often `triptych locate` names the layer, and the cause, of the faults of `port_faults.py`.

python benchmarks/locate_faults.py [torch] [mxnet] [jax] [--misses]
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from port_faults import FAULTS, NAMES, SOURCES, PortFault, network
from written_faults import UNBIASED

from triptych.backend import registry
from triptych.porting.own_network import locate_port
from triptych.utils.errors import TriptychError


@dataclass(frozen=True)
class Result:
    """What was said of a planted fault: `layer` and `cause` right, and a cause said that is wrong."""

    fault: PortFault
    layer: bool
    cause: bool
    wrong: bool
    said: str


def build(framework: str, source: str) -> Any:
    """The network of a port's source."""
    registry.load(framework)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "port.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("planted_port", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.Net()


def judge(fault: PortFault) -> Result:
    """Plant it, and compare what is said."""
    source = SOURCES[fault.framework]
    if fault.old not in source:
        raise ValueError(f"{fault.old!r} is not in the port of {fault.framework}")
    try:
        net = build(fault.framework, source.replace(fault.old, fault.new, 1))
        difference = locate_port(net, network(unbiased=fault.framework in UNBIASED)).difference
    except TriptychError as error:
        return Result(fault, False, False, False, f"refused: {error}")
    if difference is None:
        return Result(fault, False, False, False, "no difference")
    said = f"{difference.layer}, {difference.level}: {difference.cause} [{difference.note}]"
    right = bool(fault.cause) and fault.cause in difference.cause
    certain = bool(difference.cause) and "no more than rounding" not in difference.cause
    return Result(fault, difference.layer == fault.layer, right, certain and not right and bool(fault.cause), said)


def summary(results: Iterable[Result]) -> str:
    """The rates, in one line."""
    judged = list(results)
    layers = sum(result.layer for result in judged)
    known = [result for result in judged if result.fault.cause]
    causes, wrong = sum(result.cause for result in known), sum(result.wrong for result in judged)
    return (
        f"{len(judged)} faults: layer named in {layers} ({layers / len(judged):.1%}), cause first in {causes} of "
        f"{len(known)} ({causes / len(known):.1%}), a wrong cause in {wrong}"
    )


def main(words: list[str]) -> None:
    """A line for each framework, and with `--misses` one for every fault that was not named."""
    results = []
    for name in [word for word in words if word in NAMES] or [name for name in NAMES if name in registry.installed()]:
        assert locate_port(build(name, SOURCES[name]), network(unbiased=name == "torch")).difference is None, name
        made = [judge(fault) for fault in FAULTS if fault.framework == name]
        results += made
        print(f"{name}: {summary(made)}")
        for each in made if "--misses" in words else ():
            if not (each.layer and (each.cause or not each.fault.cause)):
                print(f"    {each.fault.new[:90]!r}: {each.fault.layer}, {each.fault.cause!r}; said {each.said}")
    print(f"all: {summary(results)}")


if __name__ == "__main__":
    main(sys.argv[1:])
