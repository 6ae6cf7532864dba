"""The site: `make docs` builds it into docs/_build/html. Nothing on it is fetched from the network."""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
project = "triptych"
copyright = "the triptych authors, Apache 2.0"
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["triptych.css"]
html_copy_source = False
html_show_sphinx = False

# Pages whose text stands elsewhere in the repository, where it is read without a site.
ELSEWHERE = {
    "overview": "README.md",
    "contributing": "CONTRIBUTING.md",
    "porting-table": "backends/README.md",
    "results": "benchmarks/results/fashion-mnist-vgg11.md",
    "results-zoo": "benchmarks/results/zoo-mini.md",
    "results-equivalence": "benchmarks/results/equivalence.md",
    "results-studies": "benchmarks/results/studies.md",
    "results-import": "benchmarks/results/import-mxnet.md",
    "data-licence": "common/triptych/data/LICENSE-fashion-mnist.md",
}


def fetch(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a file of the repository into its page, with its links as they are seen from here."""
    if page in ELSEWHERE:
        path = ROOT / ELSEWHERE[page]
        here = {str(ROOT / file): f"{name}.md" for name, file in ELSEWHERE.items()}

        def link(match: re.Match[str]) -> str:
            target = os.path.normpath(path.parent / match[1])
            return f"]({here.get(target, os.path.relpath(target, app.srcdir))})"

        source[0] = re.sub(r"\]\((?!\w+:|#)([^)]+)\)", link, path.read_text(encoding="utf-8"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", fetch)
    return {"parallel_read_safe": True}
