"""Files of torch.save: a small one that would become a large thing in memory is refused, and the form of before PyTorch
1.6 is read."""

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


@pytest.mark.parametrize("key", ["net", "generator", "state_dict"])
def test_a_state_dict_is_found_in_a_checkpoint_whatever_it_is_called(key: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(3, 2)
    saved = {key: net.state_dict(), "acc": 93.0, "optimizer": torch.optim.Adam(net.parameters()).state_dict()}
    torch.save(saved, tmp_path / "ckpt.pth")
    assert torch_file.read(tmp_path / "ckpt.pth").keys() == net.state_dict().keys()
    torch.save({**saved, "other": {"weight": torch.ones(2)}}, tmp_path / "two.pth")
    if key == "state_dict":
        assert torch_file.read(tmp_path / "two.pth").keys() == net.state_dict().keys()
    else:
        with pytest.raises(TriptychError, match="is no plain tensor"):
            torch_file.read(tmp_path / "two.pth")


def test_the_form_of_before_pytorch_1_6(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    square, path = torch.arange(40, dtype=torch.float64).reshape(5, 8), tmp_path / "old.pt"
    saved = {
        "state_dict": {"turned": square.t(), "rows": square[1:3], "half": square.half(), "count": torch.tensor(3)},
        "bfloat16": square.bfloat16(),
        "epoch": 7,
    }
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    found, tree = torch_file.read(path), torch_file.read_tree(path)
    assert found.keys() == saved["state_dict"].keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, saved["state_dict"][name].numpy(), strict=True)
    np.testing.assert_array_equal(tree["bfloat16"], saved["bfloat16"].float().numpy(), strict=True)
    assert tree["epoch"] == 7

    content = path.read_bytes()
    for end in range(0, len(content), 5):
        path.write_bytes(content[:end])
        with pytest.raises(TriptychError):
            torch_file.read(path)
    torch.save(torch.nn.Linear(2, 3), path, _use_new_zipfile_serialization=False)
    with pytest.raises(TriptychError, match=r"save net.state_dict\(\)"):
        torch_file.read(path)
    torch.save({"a": torch.zeros(3, dtype=torch.complex64)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(TriptychError, match="holds a ComplexFloatStorage"):
        torch_file.read(path)


MODELS = Path(__file__).parents[2] / "../shared/data/models"


@pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of strangers' models is not there")
def test_strangers_files_are_what_pytorch_reads() -> None:
    torch = pytest.importorskip("torch")
    files = sorted(MODELS.glob("*/*.pt"))
    assert files
    for path in files:
        found, expected = torch_file.read(path), torch.load(path, weights_only=True)
        assert list(found) == list(expected)
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name].numpy(), strict=True)
