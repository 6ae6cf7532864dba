"""PyTorch's files that are ZIP archives, without what runs code when they are read.

`torch.export.load` unpickles without restriction and evaluates expressions; `torch.jit.load` runs what a module's
`__setstate__` says. Both get a copy of the file in memory that holds none of that."""

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from triptych.spec.records import parse
from triptych.utils.errors import TriptychError
from triptych.utils.reading import ARCHIVE_ERRORS, open_file

_MOST_TIMES = 10  # what an archive may hold, in units of its size
_LARGEST_JSON = 1 << 25
_MOST_ENTRIES = 200_000
_EXPRESSION = re.compile(r"(Symbol\('[su]\d{1,6}'(, \w{1,20}=True)*\)|[su]\d{1,6}|Mul|Add|Integer|[\d ,()+*-])+")
_TARGET = re.compile(r"torch\.ops\.(aten|higher_order)\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+")


def entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    """What is in the archive, by name without its first folder. Raises TriptychError if it is none, or holds more than
    ten times its size."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (OSError, *ARCHIVE_ERRORS) as error:
        raise TriptychError(f"{path}: no whole archive of PyTorch ({error})") from None
    if len(infos) > _MOST_ENTRIES or sum(info.file_size for info in infos) > _MOST_TIMES * path.stat().st_size:
        raise TriptychError(f"{path}: holds more than {_MOST_TIMES} times its size; refused")
    named = {info.filename.partition("/")[2] or info.filename: info for info in infos}
    if len(named) != len(infos):
        raise TriptychError(f"{path}: holds two files of one name; refused")
    return named


def exported_program(path: Path) -> io.BytesIO:
    """The archive of torch.export.save, to be read by torch.export.load."""

    def checked(name: str, content: bytes) -> bytes | None:
        if name.startswith(("models/", "data/weights/", "data/constants/")):
            if name.endswith(".json"):
                _check_json(path, name, content)
            elif name.endswith(".pt") or "custom_obj" in name:
                raise TriptychError(f"{path}: {name} is a pickle; export the program again with a newer PyTorch")
            return content
        if name.startswith("data/sample_inputs/"):
            return b""
        return content if "/" not in name or name.startswith(".data/") else None

    return _copy(path, checked)


def script(path: Path) -> io.BytesIO:
    """The archive of torch.jit.save, to be read by torch.jit.load."""

    def checked(name: str, content: bytes) -> bytes | None:
        if name.endswith(".debug_pkl"):
            return None
        if name.startswith("code/") and b"__setstate__" in content:
            raise TriptychError(
                f"{path}: {name} runs code when it is loaded (__setstate__), as quantised modules do; refused"
            )
        return content

    return _copy(path, checked)


def _copy(path: Path, checked: Callable[[str, bytes], bytes | None]) -> io.BytesIO:
    named = entries(path)
    copy = io.BytesIO()
    with open_file(path) as file, zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as target:
        for name, info in named.items():
            try:
                content = checked(name, archive.read(info))
            except (OSError, *ARCHIVE_ERRORS) as error:
                raise TriptychError(f"{path}: {name} cannot be read ({error})") from None
            if content is not None:
                target.writestr(info.filename, content)
    copy.seek(0)
    return copy


def _check_json(path: Path, name: str, content: bytes) -> None:
    if len(content) > _LARGEST_JSON:
        raise TriptychError(f"{path}: {name} has {len(content)} bytes; expected at most {_LARGEST_JSON}")
    try:
        records = list(_records(parse(content)))
    except ValueError as error:
        raise TriptychError(f"{path}: {name} is no JSON ({type(error).__name__})") from None
    for record in records:
        if record.get("use_pickle"):
            raise TriptychError(f"{path}: {name} says that a tensor is a pickle; refused")
        expression, target = record.get("expr_str", "0"), record.get("target")
        wrong = (
            not isinstance(expression, str)
            or len(expression) > 200
            or "**" in expression
            or not _EXPRESSION.fullmatch(expression)
        )
        if wrong:
            raise TriptychError(
                f"{path}: {name} has the size {str(expression)[:60]!r}; expected a fixed size, but for the batch"
            )
        if "inputs" in record and "outputs" in record and isinstance(target, str) and not _TARGET.fullmatch(target):
            raise TriptychError(
                f"{path}: {name} calls {target[:60]!r}; supported are operators of ATen (torch.ops.aten)"
            )


def _records(value: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
