"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

from cyclopts import App

from triptych import __version__

app = App(
    name="triptych",
    help="One architecture, three frameworks, proof that they agree.",
    version=__version__,
    help_format="plaintext",
)
# name, module, help line; the help stands here so that listing the commands imports none of them
COMMANDS = (
    ("compare", "compare", "Conformance on every backend, then a short training on each, as one report."),
    ("doctor", "doctor", "Show which backends and devices work here, and why the others do not."),
    ("archs", "networks", "List the architectures."),
    ("summary", "networks", "Print an architecture's layers: shapes, parameters, operations, receptive field."),
    ("train", "train", "Train a recipe on one backend."),
    ("evaluate", "evaluate", "Loss and accuracy of a trained model, on any backend."),
    ("predict", "predict", "Classify images with a trained model, on any backend."),
    ("conform", "conform", "Check backends against the reference and each other."),
    ("study", "study", "Answer one question of the networks' texts with tables and a figure."),
)
for _name, _module, _help in COMMANDS:
    app.command(f"triptych.cli.{_module}:{_name}", name=_name)


def expand_json(arguments: list[str]) -> list[str]:
    """`--json` may stand alone (print to stdout) or before a file, which ends in .json.

    Anything else after it is an argument of the command: a model or an image, not to be overwritten.
    """
    expanded: list[str] = []
    for index, argument in enumerate(arguments):
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        stands_alone = argument == "--json" and not following.endswith(".json")
        expanded.append("--json=-" if stands_alone else argument)
    return expanded
