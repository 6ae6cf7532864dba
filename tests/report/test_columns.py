"""Network and source in columns: every layer has its lines, and the lines are those that make it."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path

import pytest

import awkward_networks
from browser import VIEWS, Browser, needs_chromium
from emitting import runners
from marks import needs_backend
from triptych import zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.emitting.emit import Emitted, emit
from triptych.emitting.guide import TRAPS, traps_in
from triptych.report import columns
from triptych.spec.analysis import analyse, primitives
from triptych.spec.layers import Architecture
from triptych.spec.shapes import output_shapes

BACKENDS = registry.installed()
GUIDE = Path(__file__).parents[2] / "docs" / "porting"
NETWORKS = ["vgg16", "googlenet", "densenet121", "resnet18_v2", "inception_resnet_v1", "mobilenet_v2", "squeezenet1.0"]


def all_networks() -> list[Architecture]:
    return [*(zoo.build(name) for name in zoo.registry()), *awkward_networks.CASES.values()]


def test_the_list_has_every_layers_shape_and_parameters() -> None:
    text = columns.fragment(zoo.build("vgg16"), [], "")
    (first,) = (line for line in text.splitlines() if 'data-path="block1.conv1"' in line)
    assert '<span class="tc-count">1.79k</span><span class="tc-shape">64x224x224</span>' in first
    (relu,) = (line for line in text.splitlines() if 'data-path="block1.relu1"' in line)
    assert '<span class="tc-count"></span>' in relu
    known = {1: "1", 999: "999", 1000: "1k", 1234: "1.23k", 999_499: "999k", 999_501: "1M", 102_764_544: "103M"}
    assert {number: columns.in_three_figures(number) for number in known} == known


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_layer_has_lines_and_no_line_a_layer_that_is_not_there(backend: str) -> None:
    for architecture in all_networks():
        lines = emit(architecture, backend).lines.values()
        layers = {info.path for info in primitives(architecture)}
        assert {path for marks in lines for path in marks.made} == layers, architecture.name
        assert {path for marks in lines for path in marks.called} <= layers


@pytest.mark.skipif("torch" not in BACKENDS, reason="torch is not installed")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_lines_of_a_layer_are_those_that_run_when_it_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's layers with parameters, whose constructors look where in the file they are called from."""
    import torch

    emitted = emit(zoo.build(name, width_ratio=8), "torch")
    made: dict[int, set[int]] = {}
    plain = torch.nn.Module.__setattr__

    def keep(module: torch.nn.Module, key: str, value: object) -> None:
        if id(module) not in made:
            stack = traceback.walk_stack(sys._getframe(1))
            made[id(module)] = {line for frame, line in stack if frame.f_code.co_filename == f"{emitted.network}.py"}
        plain(module, key, value)

    monkeypatch.setattr(torch.nn.Module, "__setattr__", keep)
    network = runners.execute(emitted)[emitted.network]()
    marked = {path: lines_with(emitted, path) for path in emitted.names}
    checked = 0
    for path, own in emitted.names.items():
        module = network.get_submodule(own.rpartition(".")[0])
        if type(module).__module__.startswith("torch.nn") and type(module) is not torch.nn.Sequential:
            made_there = {line for line in made[id(module)] if emitted.lines.get(line)}
            # a statement that is broken round its middle is marked whole
            broken = {n for n in marked[path] for m in (n - 1, n + 1) if m in made_there and same(emitted, n, m)}
            assert made_there <= marked[path] <= made_there | broken, path
            checked += 1
    assert checked > 10


def same(emitted: Emitted, number: int, other: int) -> bool:
    """Whether two lines are marked alike."""
    return emitted.lines.get(number) == emitted.lines.get(other)


def lines_with(emitted: Emitted, array: str) -> set[int]:
    """The lines of constructors that are marked with the layer of an array."""
    layer, inside = array.rpartition(".")[0], False
    found = set()
    for number, line in enumerate(emitted.source.split("\n"), 1):
        inside = inside if not line.lstrip().startswith(("def ", "class ")) else "forward" not in line
        marks = emitted.lines.get(number)
        comment = line.lstrip().startswith("#")
        if marks and inside and not comment and layer in marks.made | marks.called:
            found.add(number)
    return found


def test_every_trap_is_a_section_of_the_guide_and_waits_somewhere() -> None:
    sections = {(path.stem, line[3:]) for path in GUIDE.glob("*.md") for line in path.read_text().splitlines()}
    networks = all_networks()
    for _, trap in TRAPS:
        assert (trap.page, trap.section) in sections
        assert any(trap in traps_in(architecture) for architecture in networks), trap
    assert len({trap for _, trap in TRAPS}) == len(TRAPS)


def test_a_layers_numbers_are_told() -> None:
    conv, *_ = (info for info in analyse(zoo.build("vgg16")) if info.kind == "Conv")
    assert "channels 64, kernel 3x3, stride 1x1, padding 1x1" in columns.told(conv)
    block = analyse(zoo.build("vgg16"))[0]
    assert columns.told(block) == ""


@pytest.mark.parametrize(
    "source", ["x = 1\n", 'def f(x: int) -> str:\n    """Two\n    lines."""\n    return "a"  # b\n']
)
def test_colours_change_no_letter(source: str) -> None:
    lines = columns.coloured_lines(source)
    assert "\n".join("".join(text for _, text in line) for line in lines) + "\n" == source


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in ("lenet", "resnet50_v1b"):
        main_ok("emit", name, "--side-by-side", str(folder / f"{name}.html"))
    main_ok("port", "lenet", "--to", BACKENDS[0], "--out", str(folder / "ported"))
    return [folder / "lenet.html", folder / "resnet50_v1b.html", folder / "ported" / "port.html"]


def main_ok(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 0


@needs_backend
def test_the_pages_are_small_and_fetch_nothing(pages: list[Path]) -> None:
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert len(text.encode()) < 1_000_000
        assert re.findall(r'(?:src|href)="(?!data:|file:)[^"]*"', text) == []
    for path, shape in output_shapes(zoo.build("lenet")).items():
        assert f'data-path="{path}"' in pages[0].read_text()
        assert columns.size(shape) in pages[0].read_text()


@needs_backend
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_page_of_the_zoo_is_larger_than_a_megabyte(backend: str) -> None:
    largest = max(zoo.registry(), key=lambda name: len(analyse(zoo.build(name))))
    architecture = zoo.build(largest)
    emitted = [emit(architecture, name) for name in BACKENDS]
    assert len(columns.fragment(architecture, emitted, "porting/").encode()) < 1_000_000


@needs_chromium
@needs_backend
def test_they_are_shown_without_complaint_and_a_click_lights_every_column(pages: list[Path], tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    try:
        for page in pages:
            for width, scheme in VIEWS:
                browser.open(page, width, scheme)
                assert browser.problems() == [], (page.name, width, scheme)
            lit = "[...document.querySelectorAll('.tc-column')].map(one => one.querySelectorAll('.lit').length)"
            for clicked in ((), ("mousePressed", "mouseReleased")):  # lights as long as the mouse is there, or on
                browser.mouse(".tc-layer[data-kind=Conv]", *clicked)
                assert all(browser.value(lit)), page.name
                browser.mouse("")
                assert all(browser.value(lit)) if clicked else not any(browser.value(lit)), page.name
            assert browser.problems() == []
            said = browser.value("document.querySelector('.tc-about').textContent")
            assert "Conv: channels" in said
            assert "The kernel's axes and its direction" in said
            browser.mouse(".tc-layer.lit", "mousePressed", "mouseReleased")
            browser.mouse("")
            assert browser.value("document.querySelectorAll('.lit, .near').length") == 0
    finally:
        browser.close()


@needs_chromium
def test_the_browser_sees_what_is_wrong(tmp_path: Path) -> None:
    plain = "<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><body style='background:#fff;color:#000'>"
    wrong = {
        "wide": "<div style='width:2000px'>wide</div>",
        "pale": "<p style='color:#ddd'>hardly seen</p>",
        "broken": "<script>nothing.at.all</script>",
        "fetching": "<img alt='' src='https://example.invalid/x.png'>",
    }
    browser = Browser(tmp_path)
    try:
        for name, body in ({"good": "<p>text</p>"} | wrong).items():
            (tmp_path / f"{name}.html").write_text(plain + body)
            browser.open(tmp_path / f"{name}.html")
            assert bool(browser.problems()) == (name != "good"), (name, browser.problems())
    finally:
        browser.close()
