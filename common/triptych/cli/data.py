"""`data`: which data sets are here, and how the others come here."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from triptych.cli.options import JsonFile, Scale16Bit, SkipBadImages, check_place, write_json
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError, check_known

DataDir = Annotated[Path | None, Parameter(help="Where the data set's files lie, or are to lie.")]


def list_sets(*, data_dir: DataDir = None, json: JsonFile = None) -> None:
    """Show which data sets are here, where, their size, and how to get the others.

    Any folder of class folders of PNG or JPEG images is a data set too. Example: triptych data list
    """
    from triptych.data import describe

    rows = describe(data_dir)
    write_json(json, [{**vars(row), "where": None if row.where is None else str(row.where)} for row in rows])
    if json != "-":
        cells = [(r.name, r.size, "not here" if r.where is None else str(r.where), r.how_to_get) for r in rows]
        print_table(("data set", "training + test images", "where", "how to get it"), cells)


def download(name: str, *, data_dir: DataDir = None) -> None:
    """Fetch a data set; an interrupted download goes on where it was stopped, and its content is checked.

    Example: triptych data download cifar10
    """
    from triptych.data import download as fetch

    print(f"{name} is in {fetch(name, data_dir)}")


def prepare(
    form: Annotated[Literal["tfds"], Parameter(help="The format to write.")],
    name: Annotated[str, Parameter(help="One of our data sets, as `triptych data list` names it.")],
    *,
    data_dir: DataDir = None,
    out: Annotated[Path | None, Parameter(help="The folder of TFDS's data sets; in the cache if left out.")] = None,
) -> None:
    """Write a data set in the format of tensorflow-datasets; `--data tfds:NAME` then reads it, without TensorFlow.

    Example: triptych data prepare tfds fashion-mnist
    """
    from triptych.data import SOURCES, load, tfds

    check_known("data set", [name], SOURCES)
    tfds.check_place(name, out)
    folder = tfds.prepare(name, load(name, data_dir=data_dir), out)
    print(f"{tfds.PREFIX}{name} is in {folder}")


def pack(
    name: Annotated[str, Parameter(help="What --data takes: a data set's name, class folders, a FILE.rec.")],
    file: Annotated[Path, Parameter(help="The new file of the training images; it ends in .rec.")],
    *,
    form: Annotated[Literal["png", "jpeg"], Parameter(name="--format", help="PNG keeps every bit.")] = "png",
    data_dir: DataDir = None,
    skip_bad_images: SkipBadImages = None,
    scale_16_bit: Scale16Bit = None,
) -> None:
    """Write a data set as MXNet's RecordIO, an index beside it; `--data FILE.rec` and MXNet's own readers read it.

    The test images become NAME-test.rec. Example: triptych data pack fashion-mnist-mini mini.rec
    """
    from triptych.data import load, recordio
    from triptych.data.decoded import Reading

    if file.suffix != recordio.SUFFIX:
        raise TriptychError(f"FILE {file} must end in {recordio.SUFFIX}")
    check_place("FILE", file, file.absolute().parent)
    reading = Reading(bool(skip_bad_images), bool(scale_16_bit))
    written = recordio.pack(load(name, data_dir=data_dir, reading=reading), file, form)
    print(f"{name} is in {', '.join(map(str, written))}")


data = App(
    help="Which data sets are here; download, prepare and pack others.\n\nExample: triptych data list",
    help_format="plaintext",
)
for _name, _command in (("list", list_sets), ("download", download), ("prepare", prepare), ("pack", pack)):
    data.command(_command, name=_name)
