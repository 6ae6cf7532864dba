"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from importlib import import_module

from cyclopts import App

from triptych import __version__

app = App(
    name="triptych",
    help="One architecture, three frameworks, proof that they agree.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says what stopped it
)
# name, module: a function of that name there, whose docstring is the command's help, or commands below that name
COMMANDS = (
    ("compare", "compare"),
    ("doctor", "doctor"),
    ("archs", "networks"),
    ("summary", "networks"),
    ("port", "port"),
    ("emit", "emit"),
    ("train", "train"),
    ("evaluate", "evaluate"),
    ("predict", "evaluate"),
    ("feature-maps", "feature_maps"),
    ("conform", "conform"),
    ("verify", "conform"),
    ("locate", "locate"),
    ("convert", "convert"),
    ("export", "export"),
    ("study", "study"),
    ("exercise", "exercise"),
    ("data", "data"),
    ("bench", "bench"),
)
for _name, _module in COMMANDS:
    app.command(getattr(import_module(f"triptych.cli.{_module}"), _name.replace("-", "_")), name=_name)


def expand_json(arguments: list[str]) -> list[str]:
    """`--json` may stand alone (print to stdout) or before a file, which ends in .json. Anything else after it is an
    argument of the command: a model or an image, not to be overwritten. `--tensorboard` may stand alone (in the run's
    folder) or before a folder."""
    expanded: list[str] = []
    for index, argument in enumerate(arguments):
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        stands_alone = (argument == "--json" and not following.endswith(".json")) or (
            argument == "--tensorboard" and (not following or following.startswith("-"))
        )
        expanded.append(f"{argument}=-" if stands_alone else argument)
    return expanded
