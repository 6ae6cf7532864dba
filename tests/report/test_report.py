"""The pages of `compare` and `conform`: self-contained, drawn, and the same figures as in the JSON."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from marks import NO_FRAMEWORK, needs_backend
from triptych.__main__ import main
from triptych.backend import registry
from triptych.conformance import suite
from triptych.conformance.case import conformance_architecture
from triptych.conformance.compare import Check, problem
from triptych.conformance.conform import FLAGS, Report
from triptych.conformance.levels import ALL_LEVELS
from triptych.report import scoreboard
from triptych.studies import compare_backends
from triptych.training import recipes

BACKENDS = registry.installed()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}


class Page(HTMLParser):
    """Every tag with its attributes, and the tables as lists of rows of text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.in_cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison of all backends, and its JSON."""
    if not BACKENDS:
        pytest.skip(NO_FRAMEWORK)
    folder = tmp_path_factory.mktemp("compare")
    options = ["--arch", "lenet", "--resolution", "28", "--data", "synthetic", "--epochs", "1", "--seed", "1"]
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *options, "--out", str(folder / "out"), "--json", str(folder / "compare.json")])
    assert stopped.value.code == 0
    return folder / "out", json.loads((folder / "compare.json").read_text())


@pytest.fixture(scope="module")
def text(compared):
    return (compared[0] / "report.html").read_text()


def test_several_seeds_test_the_accuracies(compared, tmp_path):
    """Networks that have not learned prove nothing, however equal they are; learned ones are judged by TOST."""
    options = [
        "--arch",
        "lenet",
        "--resolution",
        "28",
        "--data",
        "synthetic",
        "--epochs",
        "1",
        "--backends",
        BACKENDS[0],
    ]
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *options, "--seeds", "5", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "c.json")])
    assert stopped.value.code == 0  # one backend: no pair to judge
    found = json.loads((tmp_path / "c.json").read_text())
    assert [len(values) for values in found["accuracies"].values()] == [5]
    assert (tmp_path / "out" / "seed-4" / BACKENDS[0] / "metrics.jsonl").is_file()
    verdict = suite.Verdict(conformance_architecture("lenet"), (), (), {})
    good = {"a": [0.8, 0.81, 0.79, 0.8, 0.8], "b": [0.801, 0.809, 0.79, 0.8, 0.8]}
    for accuracies, results in (
        (good, ["equivalent"]),
        (good | {"b": [0.78, 0.79, 0.77, 0.78, 0.78]}, ["NOT SHOWN"]),
        ({"a": [0.1] * 5, "b": [0.1] * 5}, ["NOT LEARNED"]),
        ({"a": [0.8] * 4, "b": [0.8] * 4}, []),
    ):
        made = compare_backends.TrainedComparison(
            recipes.RECIPES["compare"], verdict.architecture, verdict, {}, {}, accuracies
        )
        assert [row[-1] for row in compare_backends.accuracy_table(made)[1]] == results
    assert "Equivalence of the accuracies: not run" in (compared[0] / "report.html").read_text()


@pytest.mark.skipif("torch" not in BACKENDS, reason="torch is not installed")
def test_what_trains_in_bfloat16_is_judged_in_it(tmp_path):
    options = "compare --arch lenet --resolution 28 --data synthetic --epochs 1 --backends torch --precision bf16"
    with pytest.raises(SystemExit) as stopped:
        main([*options.split(), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "compare.json")])
    assert stopped.value.code == 0
    reports = json.loads((tmp_path / "compare.json").read_text())["conformance"]["backends"]
    assert [report["precision"] for report in reports] == ["fp64", "fp32", "bf16"]
    assert [report["levels"].get("low precision") is None for report in reports] == [True, True, False]
    assert "<th>low precision</th>" in (tmp_path / "out/report.html").read_text()


def test_every_backend_has_its_run_folder(compared):
    folder, found = compared
    assert {path.name for path in folder.iterdir()} == {"report.html", *BACKENDS}
    assert list(found["trained"]) == BACKENDS
    for name in BACKENDS:
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == found["trained"][name]
        assert found["versions"][name] == registry.load(name).versions()
    first_losses = [found["trained"][name][0]["losses"][0] for name in BACKENDS]
    assert max(first_losses) - min(first_losses) < 1e-5  # the same start, the same images


def check_nothing_is_fetched(text):
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "embed") or attributes.get("href") == "data:,"
        for name in FETCHING & attributes.keys():
            assert attributes[name].startswith(("#", "data:")), f"<{tag} {name}={attributes[name]!r}>"
        assert "url(http" not in (attributes.get("style") or "")
    assert "@import" not in text
    assert not re.search(r"url\(\s*[\"']?(?!#|data:)", text)


def test_nothing_is_fetched(text, board):
    check_nothing_is_fetched(text)
    check_nothing_is_fetched(board.read_text())


def test_one_figure_per_caption(text):
    figures = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)
    assert len(figures) == (3 if len(BACKENDS) > 1 else 2)
    for figure in figures:
        assert figure.count("<svg") == figure.count("</svg>") == 1
        assert "<?xml" not in figure
        assert re.search(r"<figcaption>[A-Z][\w ]+</figcaption>", figure)
    tags = [tag for tag, _ in Page(text).tags]
    assert tags.count("svg") == len(figures)
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    references = re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text)
    assert references
    assert set(references) <= set(identifiers)


def test_the_table_holds_the_figures_of_the_json(compared, text):
    _, found = compared
    head, *rows = Page(text).tables[0]
    assert head[:3] == ["backend", "parameters", "conformance"]
    assert [row[0] for row in rows] == BACKENDS
    names, first = Page(text).tables[1]
    by_epoch = dict(zip(names, first, strict=True))
    assert by_epoch["epoch"] == "1"
    for name, row in zip(BACKENDS, (dict(zip(head, row, strict=True)) for row in rows), strict=True):
        (epoch,) = found["trained"][name]
        assert row["parameters"] == f"{found['parameters']:,}" == "61,706"
        assert row["conformance"] == "pass"
        assert by_epoch[f"{name}: loss / test"] == f"{epoch['train_loss']:.4f} / {epoch['test_accuracy']:.4f}"
        assert row["images/s"] == f"{epoch['images_per_second']:.0f}"
        (single,) = (
            report
            for report in found["conformance"]["backends"]
            if (report["backend"], report["precision"]) == (name, "fp32")
        )
        gradient = single["levels"]["gradient"]
        assert row["gradient (budget)"] == f"{gradient['difference']:.1e} ({gradient['budget']:.1e})"


def test_the_tables_fit_100_columns_of_a_terminal(text):
    """With 60 epochs too: they go below each other."""
    for table in Page(text).tables[:2]:
        widest = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        assert sum(widest) + 2 * (len(widest) - 1) <= 100
    assert len(Page(text).tables[0][0]) == 6


def test_every_level_is_shown_for_every_backend(compared, text):
    _, found = compared
    head, *rows = Page(text).tables[2]
    reports, pairs = found["conformance"]["backends"], found["conformance"]["pairs"]
    assert len(rows) == len(reports) + len(pairs) == 2 * len(BACKENDS) + len(BACKENDS) * (len(BACKENDS) - 1)
    for report, row in zip(reports, rows, strict=False):
        assert [cell.strip() for cell in row[:3]] == [report["backend"], report["precision"], "pass"]
        for level, cell in zip(head[3:], row[3:], strict=True):
            assert report["levels"][level] is not None, f"{level} was not run"
            assert cell == "equal" or cell.startswith(f"{report['levels'][level]['difference']:.1e} of ")


@pytest.fixture(scope="module")
def verdicts():
    """LeNet as it is on the first backend, and twice with what could go wrong."""
    if not BACKENDS:
        pytest.skip(NO_FRAMEWORK)
    right = suite.run(conformance_architecture("lenet"), [registry.load(BACKENDS[0])])
    double, single = right.reports
    off = [
        replace(c, difference=7 * c.budget) if (c.level, c.tensor) == ("gradient", "conv2.bias") else c
        for c in single.checks
    ]
    off = [replace(c, problem="is <missing>") if c.tensor == "dense1" else c for c in off if c.level != "update"]
    flag = problem(FLAGS, "A_FLAG", "is on; unset it")
    stopped = replace(double, checks=(flag,), precision_flags={"A_FLAG": "on"}, switched_off={})
    wrong = replace(right, reports=(double, replace(single, checks=tuple(off))))
    return [right, wrong, replace(right, reports=(stopped,))]


@pytest.fixture(scope="module")
def board(verdicts, tmp_path_factory):
    """The scoreboard's file."""
    path = tmp_path_factory.mktemp("board") / "board.html"
    scoreboard.write(path, verdicts, {BACKENDS[0]: {"package": "1.2"}}, "triptych conform")
    return path


def cells(text):
    """By row: the class, text and title of every number."""
    board = text.partition("What the budgets tell")[0]
    rows = [row for row in re.findall(r"<tr>(.*?)</tr>", board, re.DOTALL) if 'class="cell"' in row]
    pattern = r'<span class="(\w+)" title="([^"]*)">([^<]*)</span>'
    return [[(kind, shown, title) for kind, title, shown in re.findall(pattern, row)] for row in rows]


def test_the_scoreboard_shows_the_worst_ratio_of_every_level(verdicts, board):
    head, levels, *rows = Page(board.read_text()).tables[0]
    groups = [*registry.BACKENDS, "pairs"]
    assert head == ["", "", *groups]
    assert levels == ["architecture", "result", *ALL_LEVELS * len(registry.BACKENDS), *ALL_LEVELS[1:]]
    assert [row[:2] for row in rows] == [["lenet 1x28x60", result] for result in ("pass", "FAIL", "FAIL")]
    numbers = cells(board.read_text())
    assert [len(row) for row in numbers] == [2 * (len(levels) - 2)] * 3
    first = 2 * len(ALL_LEVELS) * list(registry.BACKENDS).index(BACKENDS[0])
    mine = [row[first : first + 2 * len(ALL_LEVELS)] for row in numbers]
    for report, offset in zip(verdicts[0].reports, (0, 1), strict=True):
        for level, (kind, shown, title) in zip(ALL_LEVELS, mine[0][offset::2], strict=True):
            worst = report.worst(level)
            assert kind == "pass"
            if level == "structure":
                assert shown == "equal"
            else:
                assert title.startswith(
                    f"{worst.tensor}: differs by {worst.difference:.3e}, allowed {worst.budget:.3e}"
                )
                assert float(shown.removeprefix("&lt;")) == pytest.approx(worst.ratio, abs=0.01, rel=0.05)


def test_the_scoreboard_shows_failures_red_and_what_was_not_run_grey(verdicts, board):
    text = board.read_text()
    numbers = cells(text)
    first = 2 * len(ALL_LEVELS) * list(registry.BACKENDS).index(BACKENDS[0])
    wrong = dict(zip(ALL_LEVELS, numbers[1][first + 1 : first + 2 * len(ALL_LEVELS) : 2], strict=True))
    assert wrong["gradient"][:2] == ("fail", "7")
    assert wrong["forward eval"] == ("fail", "FAIL", "dense1: is &lt;missing&gt;")
    assert wrong["update"] == ("absent", "not run", "")
    assert {cell[0] for cell in numbers[1][first : first + 2 * len(ALL_LEVELS) : 2]} == {"pass"}  # float64
    assert {cell[:2] for cell in numbers[2]} == {("absent", "not run")}
    others = numbers[0][:first] + numbers[0][first + 2 * len(ALL_LEVELS) :]
    assert set(others) == {("absent", "not run", "")}
    assert "lenet, " + BACKENDS[0] + " fp64: precision flags, 'A_FLAG' is on; unset it" in text
    flags = Page(text).tables[2]
    assert [BACKENDS[0], "A_FLAG", "on", "on"] in flags
    for report in verdicts[0].reports:
        for name, old in report.switched_off.items():
            assert [BACKENDS[0], name, str(old), str(report.precision_flags[name])] in flags
    for name in set(registry.BACKENDS) - {BACKENDS[0]}:
        assert re.search(rf'<p class="absent">{name}: not run \(not (asked for|installed)\)</p>', text)
    style = re.sub(r"\s+", " ", text)
    assert ".cell .absent { background: #e6e6e6;" in style
    assert ".cell .fail { background: #b30000;" in style


def test_the_scoreboard_counts_what_passed_and_says_of_all_what_was_not_run(verdicts, board, tmp_path):
    assert "1 of 3 architectures conform." in board.read_text()
    two = [replace(verdicts[0], not_run={name: f"no {name}"}) for name in ("first", "second")]
    scoreboard.write(tmp_path / "board.html", two, {}, "triptych conform")
    for words in ("first: not run (no first)", "second: not run (no second)"):
        assert words in (tmp_path / "board.html").read_text()


def test_pairs_are_shown_by_precision_the_worst_of_them(verdicts):
    checks = {share: (Check("update", str(share), share, 1.0, 1.0),) for share in (0.2, 0.5, 0.7)}
    pairs = (Report(("a", "b"), "fp64", checks[0.2]), Report(("a", "c"), "fp64", checks[0.5]))
    verdict = replace(verdicts[0], pairs=(*pairs, Report(("a", "b"), "fp32", checks[0.7])))
    found = {of: scoreboard.worst(verdict, scoreboard.PAIRS, of, "update") for of in suite.PRECISIONS}
    assert {of: check.ratio for of, check in found.items()} == {"fp64": 0.5, "fp32": 0.7}
    assert scoreboard.worst(verdict, scoreboard.PAIRS, "fp64", "gradient") is None


@pytest.mark.parametrize(
    ("difference", "budget", "shown"),
    [(1e-3, 0.0, "FAIL"), (0.0, 0.0, "0"), (0.0, 1.0, "0"), (0.001, 1.0, "<.01"), (0.5, 1.0, "0.5"), (30, 1.0, "30")],
)
def test_a_ratio_in_two_digits(difference, budget, shown):
    assert scoreboard.share(Check("update", "conv", difference, budget, 1.0)) == shown


@needs_backend
def test_the_command_writes_the_scoreboard(tmp_path):
    page = tmp_path / "new" / "board.html"
    with pytest.raises(SystemExit) as stopped:
        main(["conform", "--arch", "lenet", "--backends", BACKENDS[0], "--precision", "fp32", "--html", str(page)])
    assert stopped.value.code == 0
    kinds = [kind for row in cells(page.read_text()) for kind, *_ in row]
    assert kinds.count("pass") == len(ALL_LEVELS)  # float64 was not asked for
    assert kinds.count("absent") == len(kinds) - len(ALL_LEVELS)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("which", ["compare", "conform"])
def test_a_browser_shows_it_without_complaint(which, compared, board, tmp_path):
    picture = tmp_path / "page.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", "--window-size=1200,2400"]
    page = board if which == "conform" else compared[0] / "report.html"
    run = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
