"""Makes the four pictures of the front page from runs: `python docs/front_page.py` (needs all frameworks and Chromium).

What each shows is what its command gives: a ported network's page, the answer of `locate`, loss curves of one recipe on
every backend, a network's columns with one layer chosen.
"""

from __future__ import annotations

import contextlib
import html
import io
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent / "tests"), str(DOCS)]

import triptych  # noqa: E402
from browser import Browser  # noqa: E402
from triptych.__main__ import main as command  # noqa: E402
from triptych.backend import registry  # noqa: E402
from triptych.report import figures  # noqa: E402

SIZE = {"width": 1120, "height": 630}
MINI = {"data": "fashion-mnist-mini"}
PAGE = """<!doctype html><meta charset="utf-8"><style>body {{ margin: 0; background: #fff; }}
svg {{ width: 1100px; height: 610px; }}
pre {{ font: 22px/1.5 "DejaVu Sans Mono", monospace; padding: 24px; white-space: pre-wrap; background: #16181c;
color: #e4e4e4; height: 582px; margin: 0; }} </style><body>{}"""
LIT = """(() => {{ const row = document.querySelector('.tc-layer[data-path="{}"]');
for (const name of ['h1', 'body > p']) for (const one of document.querySelectorAll(name)) one.remove();
row.click(); row.scrollIntoView({{ block: 'nearest' }}); document.body.style.margin = '4px auto'; }})()"""


def told(*words: str) -> str:
    """A command's line and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        command(list(words))
    return f"$ triptych {' '.join(words)}\n{out.getvalue()}"


def symbol(folder: Path) -> Path:
    """A network that somebody has in MXNet: a symbol file and its parameters."""
    registry.load("mxnet")
    import mxnet as mx
    from mxnet.gluon import nn

    network = nn.HybridSequential()
    network.add(nn.Conv2D(32, 3, padding=1, activation="relu"), nn.BatchNorm(), nn.MaxPool2D(2))
    network.add(nn.Conv2D(64, 3, padding=1, activation="relu"), nn.BatchNorm(), nn.MaxPool2D(2))
    network.add(nn.Dense(128, activation="relu"), nn.Dropout(0.5), nn.Dense(10))
    network.initialize(mx.init.Xavier())
    network.hybridize()
    network(mx.nd.zeros((1, 3, 32, 32)))
    network.export(str(folder / "model"))
    return folder / "model-symbol.json"


def curves() -> str:
    """The losses of a LeNet with ReLU on every backend, from one start over the same batches."""
    sessions = {
        name: triptych.train("d2l-lenet", backend=name, architecture="lenet_max", epochs=8, learning_rate=0.1, **MINI)
        for name in registry.installed()
    }
    return figures.loss_curves({name: session.epochs for name, session in sessions.items()})


def main() -> None:
    """Write the pictures into `_static`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told("port", str(symbol(folder)), "--input", "3x32x32", "--out", str(folder / "ported"))
        told("emit", "vgg16", "--side-by-side", str(folder / "vgg16.html"))
        (folder / "check.html").write_text(
            PAGE.format(f"<pre>{html.escape(told('locate', '--left', 'example_port:alexnet', '--right', 'alexnet'))}")
        )
        (folder / "train.html").write_text(PAGE.format(curves()))
        browser = Browser(folder)
        browser.ask("Emulation.setScrollbarsHidden", hidden=True)
        pages = {"leave": "ported/port.html", "check": "check.html", "train": "train.html", "learn": "vgg16.html"}
        for door, page in pages.items():
            browser.open(folder / page, **SIZE)
            if door in ("leave", "learn"):
                layers = "[...document.querySelectorAll('.tc-layer[data-kind=Conv]')]"
                browser.value(LIT.format(browser.value(f"{layers}.at(-1).dataset.path")))
                browser.value("new Promise(done => setTimeout(done, 1500))")  # the columns scroll
            browser.picture(DOCS / "_static" / f"door-{door}.png")
        browser.close()


if __name__ == "__main__":
    main()
