"""A small file of torch.save that would become a large thing in memory is refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from triptych.utils.errors import TriptychError
from triptych.weights.formats import torch_file


def test_lists_that_are_in_each_other_many_times(tmp_path: Path) -> None:
    value: list[object] = [1]
    for _ in range(7):
        value = [value] * 10  # 10 million parts by 10 kB
    with zipfile.ZipFile(tmp_path / "states.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state": value}, 2))
    with pytest.raises(TriptychError, match="its parts are too many"):
        torch_file.read_tree(tmp_path / "states.pt")


@pytest.mark.parametrize("read", [torch_file.read, torch_file.read_tree])
def test_copies_of_one_storage(tmp_path: Path, read) -> None:
    torch = pytest.importorskip("torch")
    square = torch.arange(40_000, dtype=torch.float32).reshape(200, 200)
    torch.save({"a": square, "b": square.t(), **{f"{n}": square for n in range(30)}}, tmp_path / "tied.pt")
    found = read(tmp_path / "tied.pt")
    np.testing.assert_array_equal(found["b"], found["a"].T)
    torch.save({f"{number}": square.t() for number in range(30)}, tmp_path / "copies.pt")
    with pytest.raises(TriptychError, match="more than 10 times its size"):
        read(tmp_path / "copies.pt")
