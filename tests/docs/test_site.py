"""The site as `make docs` builds it: no page wider than a screen, none that complains, asks the network or is too
large; a search finds the networks; what a network's page says of its certificate."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import network_pages
import pytest

from browser import VIEWS, Browser, needs_chromium
from marks import later, needs_backend
from triptych import zoo
from triptych.backend import registry

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = ["lenet", "vgg16", "inception_resnet_v2"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site with all its pages of text and some networks."""
    out = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, out / "docs", ignore=shutil.ignore_patterns("_build", "networks"))
    for beside in DOCS.parent.iterdir():  # what the pages take from elsewhere in the repository
        if beside.name != "docs":
            (out / beside.name).symlink_to(beside)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "trees")]
    names = {"TRIPTYCH_DOCS_NETWORKS": ",".join(SHOWN)}
    run = subprocess.run(
        [*command, str(out / "docs"), str(out / "html")], env=os.environ | names, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return out / "html"


@needs_backend
def test_a_page_whose_text_stands_elsewhere_is_written_again_when_that_has_changed(tmp_path: Path) -> None:
    docs, results = tmp_path / "docs", tmp_path / "benchmarks" / "results"
    for folder in (docs, docs / "_static", results):
        folder.mkdir(parents=True)
    for name in ("conf.py", "network_pages.py", "network_pages.jsonl"):
        shutil.copy(DOCS / name, docs)
    (docs / "index.md").write_text("# Index\n\n```{toctree}\nresults\nten\nnetworks/index\n```\n")
    (docs / "results.md").write_text("from elsewhere")
    (docs / "ten.md").write_text("# Ten\n\n<!-- example 1 -->\n")
    (docs / "python.md").write_text("---\norphan: true\n---\n# P\n\n## 1. One\n\n```python\nbefore = 1\n```\n")
    (results / "fashion-mnist-vgg11.md").write_text("# Results\n\n`--quick` before\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(docs), str(tmp_path / "html")]
    for _ in range(2):
        subprocess.run(command, env=os.environ | {"TRIPTYCH_DOCS_NETWORKS": "lenet"}, check=True, capture_output=True)
        shown = [(tmp_path / "html" / page).read_text(encoding="utf-8") for page in ("results.html", "ten.html")]
        for path in (results / "fashion-mnist-vgg11.md", docs / "python.md"):
            path.write_text(path.read_text().replace("before", "behind"))
    assert all("behind" in text and "before" not in text.partition("<article")[2] for text in shown)
    assert "--quick" in shown[0]


@later
@needs_chromium
@needs_backend
def test_every_page_fits_and_complains_of_nothing(site: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    wrong = {}
    try:
        for page in sorted(site.rglob("*.html")):
            for width, scheme in VIEWS:
                browser.open(page, width, scheme)
                if found := browser.problems():
                    wrong[page.name, width, scheme] = found
    finally:
        browser.close()
    assert wrong == {}


@later
@needs_backend
def test_the_search_finds_a_network_and_what_it_is_made_of(site: Path) -> None:
    index = json.loads(re.sub(r"^Search\.setIndex\((.*)\)$", r"\1", (site / "searchindex.js").read_text().strip()))
    titles = dict(zip(index["docnames"], index["titles"], strict=True))
    assert {titles[f"networks/{name}"] for name in SHOWN} == set(SHOWN)
    assert set(index["terms"]) >= {"szegedi", "simonyan"}


@later
@needs_backend
def test_the_reference_has_every_verb(site: Path) -> None:
    import triptych

    text = (site / "api.html").read_text(encoding="utf-8")
    for verb in set(triptych.__all__) - {"__version__"}:
        assert f'id="triptych.{verb}"' in text


@needs_backend
@pytest.mark.parametrize(("name", "parameters"), [("lenet", 61_706), ("densenet201", 20_013_928)])
def test_a_networks_page_is_small_and_has_the_published_count_of_parameters(name: str, parameters: int) -> None:
    text = network_pages.page(name)
    assert len(text.encode()) < 900_000  # the site's frame has 100 kB
    assert text.count('class="tc-column tc-source') == len(registry.installed())
    assert f"# {name}\n" in text
    assert f" {parameters:,} parameters, " in text
    assert f"| {parameters:,} |" in network_pages.index([name])


@needs_backend
def test_a_certificate_is_only_for_the_text_that_was_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = registry.installed()[0]
    known = {"network": "lenet", "backend": backend, "evaluation": 1e-16, "training": 2e-16}
    known |= {"versions": {backend: "1.0"}, "sha256": "of another text"}
    found = {("lenet", backend): known}
    monkeypatch.setattr(network_pages, "certificates", lambda: found)
    assert network_pages.certificate("lenet", backend) is None
    assert "| equal |" not in network_pages.page("lenet")
    architecture = network_pages.conformance_architecture("lenet")
    known["sha256"] = network_pages.sha256(network_pages.emit(architecture, backend).source)
    assert "| equal | 1.0e-16 | 2.0e-16 |" in network_pages.page("lenet")


@pytest.mark.skipif("torch" not in registry.installed(), reason="torch is not installed")
def test_a_certificate_can_be_made_and_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    found = network_pages.certify("lenet", "torch")
    assert max(found["evaluation"], found["training"]) < 1e-12
    emit = network_pages.emit

    def wrong(architecture, backend):
        emitted = emit(architecture, backend)
        return replace(emitted, source=emitted.source.replace("nn.Sigmoid()", "nn.Tanh()", 1))

    monkeypatch.setattr(network_pages, "emit", wrong)
    with pytest.raises(AssertionError):
        network_pages.certify("lenet", "torch")


def test_what_is_kept_is_of_networks_and_small() -> None:
    kept = network_pages.certificates()
    assert kept
    assert {name for name, _ in kept} <= set(zoo.registry())
    assert all(found["evaluation"] < 1e-9 and found["training"] < 1e-9 for found in kept.values())
