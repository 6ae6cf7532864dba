"""The site: `make docs` builds it into docs/_build/html. Nothing on it is fetched from the network."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
project = "triptych"
copyright = "the triptych authors, Apache 2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "backends"), str(ROOT / "docs")]
default_role = "code"  # what docstrings have in single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "notebooks"]
smartquotes = False  # it makes one dash of the two that an option begins with
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
    "results-import": "benchmarks/results/imports.md",
    "results-speed": "benchmarks/results/speed.md",
    "data-licence": "common/triptych/data/LICENSE-fashion-mnist.md",
}


def fetch(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a file of the repository into its page, with its links as they are seen from here."""
    if page in ELSEWHERE:
        path = ROOT / ELSEWHERE[page]
        app.env.note_dependency(path, docname=page)  # so that the page is written again when the file has changed
        here = {str(ROOT / file): f"{name}.md" for name, file in ELSEWHERE.items()}

        def link(match: re.Match[str]) -> str:
            target = os.path.normpath(path.parent / match[1])
            return f"]({here.get(target, os.path.relpath(target, app.srcdir))})"

        source[0] = re.sub(r"\]\((?!\w+:|#)([^)]+)\)", link, path.read_text(encoding="utf-8"))


def examples(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the tested examples of the page "Ten examples from Python" where a comment names their numbers."""
    path = ROOT / "docs" / "python.md"
    found = dict(re.findall(r"^## (\d+)\. .*?\n\n(```python\n.*?^```)$", path.read_text(encoding="utf-8"), re.M | re.S))
    source[0], count = re.subn(r"<!-- example (\d+) -->", lambda match: found[match[1]], source[0])
    if count:
        app.env.note_dependency(path, docname=page)


def write_networks(app: Sphinx) -> None:
    """The pages of the zoo; TRIPTYCH_DOCS_NETWORKS, names with commas, makes fewer for a look or a test."""
    import network_pages

    from triptych import zoo

    chosen = os.environ.get("TRIPTYCH_DOCS_NETWORKS")
    names = chosen.split(",") if chosen else list(zoo.registry())
    network_pages.write(Path(app.srcdir) / network_pages.FOLDER, names)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_networks)
    app.connect("source-read", fetch)
    app.connect("source-read", examples)
    return {"parallel_read_safe": True}
