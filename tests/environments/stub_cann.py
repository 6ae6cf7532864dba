"""Stub CANN libraries, with which the real torch_npu can be imported on a machine without an Ascend device.

Every function returns an error of ACL's, so that `torch.npu.is_available()` is False. Needs gcc and binutils.
    python tests/environments/stub_cann.py FOLDER      then LD_LIBRARY_PATH=FOLDER
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

ERROR = 507008  # ACL: a runtime call failed on a device that is not there
TEXTS = {"aclrtGetSocName": "Ascend910B1"}
TEXT_FUNCTIONS = ("aclGetRecentErrMsg", "HcclGetErrorString", *TEXTS)
SYSTEM = ("libc.so.6", "libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6")


def libraries() -> tuple[list[Path], list[Path]]:
    """torch_npu's own shared objects, and those that they may find symbols in without CANN."""
    package = Path(str(distribution("torch_npu").locate_file("torch_npu")))
    own = [*package.glob("_C*.so"), *package.glob("lib/*.so")]
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    others = [*package.with_name("torch_npu.libs").glob("*.so*"), *(Path(spec.origin).parent / "lib").glob("*.so*")]
    system = [Path("/lib/x86_64-linux-gnu") / name for name in (*SYSTEM, "ld-linux-x86-64.so.2")]
    return own, [*own, *others, *(path for path in system if path.exists())]


def lines(*command: str | Path) -> list[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout.splitlines()


def symbols(path: Path, kind: str) -> set[str]:
    """The names that a shared object defines ("--defined-only") or misses ("--undefined-only"; not the weak ones)."""
    rows = [line.split() for line in lines("nm", "-D", kind, path)]
    return {row[-1].partition("@")[0] for row in rows if kind == "--defined-only" or row[-2] == "U"}


def missing_symbols() -> list[str]:
    own, known = libraries()
    defined = set().union(*(symbols(path, "--defined-only") for path in known))
    missing = set().union(*(symbols(path, "--undefined-only") for path in own)) - defined
    return sorted(name for name in missing if not name.startswith(("Py", "_Py")))


def missing_libraries() -> list[str]:
    own, known = libraries()
    needed = {name for path in own for name in re.findall(r"NEEDED.*\[(.*)\]", "\n".join(lines("readelf", "-d", path)))}
    return sorted(needed - {path.name for path in known})


def definition(number: int, name: str) -> str:
    """One symbol in C, under a name of ours: `name` may be C++'s."""
    if re.match(r"_ZT[VIS]", name):
        return f'long stub{number}[64] __asm__("{name}");'
    if name in TEXT_FUNCTIONS:
        kind, value = "const char* ", f'"{TEXTS.get(name, "stub of CANN: no device")}"'
    else:
        kind, value = "long ", str(ERROR)
    return f'{kind}stub{number}(void) __asm__("{name}"); {kind}stub{number}(void) {{ return {value}; }}'


def make(folder: Path) -> None:
    """All symbols into one library, the other libraries empty."""
    folder.mkdir(parents=True, exist_ok=True)
    source, empty = folder / "stub.c", folder / "empty.c"
    source.write_text("\n".join(definition(number, name) for number, name in enumerate(missing_symbols())))
    empty.write_text("")
    for name in missing_libraries():
        content = source if name == "libascendcl.so" else empty
        lines("gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", folder / name, content)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
