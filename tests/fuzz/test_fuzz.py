"""Whatever a file holds, and whatever an option says: a result, or the one error."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.changes import changed, changed_json, edits, json_edits
from fuzz.limits import TooLongError, survive
from fuzz.readers import READERS
from marks import ALL
from triptych.utils.errors import TriptychError

MANY = 3000 if ALL else 60
JSON = ["symbol.json", "spec", "recipe", "metrics", "state.json", "certificate", "mapping", "cache note"]
JSON += ["exported program's JSON", "TFDS description"]
drawn = settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))


def usable(name: str) -> str:
    if importlib.util.find_spec(READERS[name].needs) is None:
        pytest.skip(f"{READERS[name].needs} is not installed")
    return name


@pytest.mark.parametrize("name", READERS)
def test_the_seeds_are_whole(name: str, tmp_path: Path) -> None:
    """Else all would be refused at the first byte, and nothing behind it were tried."""
    reader = READERS[usable(name)]
    for seed in reader.seeds():
        reader.read(seed, tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_damaged_bytes_give_a_result_or_the_one_error(name: str, tmp_path: Path) -> None:
    reader = READERS[usable(name)]
    seeds = reader.seeds()

    @drawn
    @given(st.sampled_from(seeds), edits)
    def run(seed: bytes, chosen: list[tuple[str, float, bytes]]) -> None:
        survive(lambda: reader.read(changed(seed, chosen), tmp_path))

    run()


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_give_a_result_or_the_one_error(name: str, tmp_path: Path) -> None:
    reader = READERS[usable(name)]

    @drawn
    @given(st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b"{" * 10_000, b'{"a":' * 10_000, b"9" * 5000]))
    def run(content: bytes) -> None:
        survive(lambda: reader.read(content, tmp_path))

    run()


@pytest.mark.parametrize("name", JSON)
def test_odd_values_in_json_give_a_result_or_the_one_error(name: str, tmp_path: Path) -> None:
    reader = READERS[usable(name)]
    seeds = [seed for seed in reader.seeds() if json.loads(seed)]

    @drawn
    @given(st.sampled_from(seeds), json_edits)
    def run(seed: bytes, chosen: list[tuple[float, object]]) -> None:
        survive(lambda: reader.read(changed_json(seed, chosen), tmp_path))

    run()


def refuse() -> None:
    raise TriptychError("no")


def grow() -> None:
    bytearray(1 << 32)


def go_on() -> None:
    while True:
        pass


def test_the_limits_are_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A harness that could not fail would find nothing."""
    monkeypatch.setattr("fuzz.limits.SECONDS", 0.1)
    assert survive(refuse) == "no"
    assert survive(int) is None
    with pytest.raises(MemoryError):
        survive(grow)
    with pytest.raises(TooLongError):
        survive(go_on)
    with pytest.raises(ZeroDivisionError):
        survive(lambda: 1 // 0)
