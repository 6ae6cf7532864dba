"""`triptych exercise`: every mistake is located, every mended file is equal, and nothing in a file tells."""

from __future__ import annotations

import tokenize
from io import StringIO
from pathlib import Path

import pytest

from marks import ALL, needs_backend
from triptych import exercises
from triptych.__main__ import main
from triptych.backend import registry
from triptych.exercises import EXERCISES
from triptych.spec.analysis import primitives

BACKENDS = registry.installed()
NUMBERS = range(1, len(EXERCISES) + 1)
# Where the judge may find each mistake: in the layer itself, or where its outputs are joined.
AT = {"padding": "conv2", "window": "pool", "ceil": "pool", "counted": "pool", "eps": "norm1", "alpha": "lrn"}
AT |= {
    "slope": "leaky",
    "dilation": "conv2",
    "scale": "unit",
    "order": "mixed",
    "activation": "sigmoid",
    "stride": "conv2",
}
# JAX runs operation by operation here, each compiled for seconds: a few in the quick tier.
CHECKED = [(n, name) for name in BACKENDS for n in (NUMBERS if ALL or name != "jax" else (1, 11))]


def test_there_are_twelve_of_different_kinds() -> None:
    assert len(EXERCISES) == len({one.key for one in EXERCISES}) == 12
    for backend in BACKENDS:
        assert list(exercises.plants(backend)) == [*AT]
    assert {one.key for one in EXERCISES} == set(AT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", NUMBERS)
def test_the_file_differs_in_one_place_and_does_not_tell(number: int, backend: str) -> None:
    right, wrong = exercises.right(number, backend), exercises.wrong(number, backend)
    changed = [pair for pair in zip(right.split("\n"), wrong.split("\n"), strict=True) if pair[0] != pair[1]]
    assert len(changed) == 1
    compile(wrong, "exercise", "exec")
    tokens = list(tokenize.generate_tokens(StringIO(wrong).readline))
    assert [token.string for token in tokens if token.type == tokenize.COMMENT] == []
    assert wrong.count('"""') == 2
    assert EXERCISES[number - 1].key not in wrong.partition('"""\n\n')[0]


@pytest.mark.parametrize(("number", "backend"), CHECKED)
def test_the_mistake_is_located_and_the_mended_file_is_equal(number: int, backend: str, tmp_path: Path) -> None:
    path = tmp_path / exercises.file_name(number, backend)
    path.write_text(exercises.wrong(number, backend))
    located = exercises.check(number, backend, path)
    assert located.difference is not None
    key = EXERCISES[number - 1].key
    assert AT[key] in located.difference.layer or located.difference.layer in after(number, AT[key]), located.difference
    for level in range(1, exercises.HINTS + 1):
        assert exercises.hint(number, located, level)
    path.write_text(exercises.right(number, backend))
    assert exercises.check(number, backend, path).difference is None


def after(number: int, layer: str) -> list[str]:
    """The layer that follows, which is the first to be seen where the mistaken one is no operation of its own."""
    paths = [info.path for info in primitives(EXERCISES[number - 1].architecture)]
    top = [one.name for one in EXERCISES[number - 1].architecture.layers]
    following = top[top.index(layer) + 1] if layer in top[:-1] else ""
    return [following, *(path for path in paths if path.startswith(f"{layer}."))]


def test_a_section_of_the_guide_is_named() -> None:
    guide = Path(__file__).parents[1] / "docs" / "porting"
    for one in EXERCISES:
        assert f"## {one.section}" in (guide / f"{one.page}.md").read_text(encoding="utf-8").splitlines()
        assert "Conv" in one.layers


@needs_backend
def test_a_learners_way(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    backend = BACKENDS[0]
    assert "12" in call("exercise", "list")
    assert "exercise1.json" in call("exercise", "start", "1", "--backend", backend)
    assert "parameters" in call("summary", "exercise1.json")
    path = tmp_path / f"exercise1_{backend}.py"
    assert status("exercise", "check", "1", "--backend", backend, "--hint", "3") == 1
    out = capsys.readouterr().out
    assert out.count("hint") == 3
    assert "located: layer 'conv2'" in out
    path.write_text(exercises.right(1, backend))
    assert "equal" in call("exercise", "check", "1", "--backend", backend)
    path.write_text("import nothing_of_this_name")
    assert status("exercise", "check", "1", "--backend", backend) == 2
    assert "cannot be loaded: ModuleNotFoundError" in capsys.readouterr().err


def status(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


@needs_backend
def test_a_file_that_is_there_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exercise1.json").write_text("mine")
    assert status("exercise", "start", "1") == 2
    assert "exercise1.json is there already" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("exercise1.json", "mine")]


@needs_backend
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("check 1", "there is no file exercise1_"),
        ("check 13", "numbered 1 to 12"),
        ("start 0", "numbered 1 to 12"),
        ("check 1 --hint 4", "--hint 4 must be 1 to 3"),
    ],
)
def test_bad_use_is_one_line(words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert status("exercise", *words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.count("\n") == 1
