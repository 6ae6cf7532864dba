"""`exercise`: ports with a planted mistake, for a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from triptych.cli.options import BackendName, JsonFile, backend_name, write_json
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError
from triptych.utils.reading import holds

Number = Annotated[int, Parameter(help="The exercise, from 1.")]


def list_exercises(*, json: JsonFile = None) -> None:
    """Show the exercises: small ports, each with one mistake, the same ones in every framework.

    Example: triptych exercise list
    """
    from triptych.exercises import EXERCISES

    write_json(json, [{"number": n, "layers": one.layers.split(", ")} for n, one in enumerate(EXERCISES, 1)])
    if json != "-":
        print_table(("exercise", "its network"), [(str(n), one.layers) for n, one in enumerate(EXERCISES, 1)])
        print("triptych exercise start N --backend B writes a file; mend it; triptych exercise check N --backend B")


def start(number: Number, *, backend: BackendName = None) -> None:
    """Write an exercise's port with its mistake, and the spec that it should follow, into this folder.

    Example: triptych exercise start 1 --backend torch
    """
    from triptych import exercises
    from triptych.spec import records

    name, chosen = backend_name(backend), exercises.exercise(number)
    path, spec = Path(exercises.file_name(number, name)), Path(f"exercise{number}.json")
    if path.exists():
        raise TriptychError(f"{path} is there already; check it, or move it away to start again")
    text = records.write(chosen.architecture)
    if spec.exists() and not holds(spec, text.encode()):  # the other backends' is the same
        raise TriptychError(f"{spec} is there already, and is another file; move it away to start")
    path.write_text(exercises.wrong(number, name), encoding="utf-8")
    spec.write_text(text, encoding="utf-8")
    print(f"{path}: one line is wrong. What it should be: triptych summary {spec}")
    print(f"when you have mended it: triptych exercise check {number} --backend {name}")


def check(
    number: Number,
    file: Annotated[Path | None, Parameter(help="The file, if it has another name.")] = None,
    *,
    backend: BackendName = None,
    hint: Annotated[int, Parameter(help="1: where to read, 2: how far off it is, 3: the judge's guess.")] = 0,
    json: JsonFile = None,
) -> int:
    """Say whether a port is mended, or where it still departs. Exit status 1 while it does.

    Example: triptych exercise check 1 --backend torch --hint 1
    """
    from triptych import exercises
    from triptych.cli.locate import as_dict

    name = backend_name(backend)
    exercises.exercise(number)
    path = Path(exercises.file_name(number, name)) if file is None else file
    if not 0 <= hint <= exercises.HINTS:
        raise TriptychError(f"--hint {hint} must be 1 to {exercises.HINTS}")
    if not path.is_file():
        raise TriptychError(f"there is no file {path}; triptych exercise start {number} --backend {name} writes it")
    located = exercises.check(number, name, path)
    difference = located.difference
    write_json(json, as_dict(located))
    if json != "-" and difference is None:
        print(f"exercise {number}: equal: {', '.join(located.levels)}")
    elif json != "-" and difference is not None:
        print(f"exercise {number}: located: layer '{difference.layer}', level {difference.level}")
        told = [exercises.hint(number, located, level) for level in range(1, hint + 1)]
        print("\n".join(f"hint {level}: {text}" for level, text in enumerate(told, 1)) or "stuck? --hint 1, 2, 3")
    return 0 if difference is None else 1


exercise = App(
    help="Ports with a planted mistake, for a class.\n\nExample: triptych exercise list", help_format="plaintext"
)
for _name, _command in (("list", list_exercises), ("start", start), ("check", check)):
    exercise.command(_command, name=_name)
