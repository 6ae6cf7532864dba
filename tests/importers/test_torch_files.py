"""PyTorch's files: programs and scripts become networks, everything else is one line, and nothing in them runs."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.backend import registry
from triptych.importers import torch_script
from triptych.importers.steps import ImportRefusedError, Request
from triptych.importers.torch_export import load_file
from triptych.utils.errors import TriptychError

if "torch" not in registry.installed():
    pytest.skip("torch is not installed", allow_module_level=True)

import torch
from torch import nn

from torch_checks import check_same, distinct
from torch_networks import NETWORKS, Frozen, Functional, after_row

SHAPE = (3, 12, 12)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def exported(module: nn.Module, path: Path, images: int = 2, **options: Any) -> Path:
    torch.export.save(torch.export.export(module, (torch.zeros(images, *SHAPE),), **options), path)
    return path


def any_batch(module: nn.Module, path: Path) -> Path:
    return exported(module, path, 4, dynamic_shapes=({0: torch.export.Dim("batch")},))


def traced(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, *SHAPE), check_trace=False), path)
    return path


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), path)
    return path


WAYS: dict[str, tuple[str, Callable[[nn.Module, Path], Path]]] = {
    "program": ("net.pt2", exported),
    "program of one image": ("net.pt2", lambda module, path: exported(module, path, 1)),
    "program of any batch": ("net.pt2", any_batch),
    "trace": ("net.pt", traced),
    "script": ("net.pt", scripted),
}
NAMES = ("functional", "residual", "squeeze and excite", "channel shuffle", "dropout", "split", "conv_transpose")
UNSCRIPTABLE = ("squeeze and excite", "channel shuffle", "split")  # for a lambda in them


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:(Converting|Iterating)")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_becomes_the_network_that_was_saved(name: str, way: str, tmp_path: Path) -> None:
    if way == "script" and name in UNSCRIPTABLE:
        pytest.skip("TorchScript does not take a lambda")
    module = distinct(NETWORKS[name]())
    ending, save = WAYS[way]
    path = save(module.eval(), tmp_path / ending)
    imported = load_file(path, Request(input=SHAPE))
    assert imported.architecture.name == "net"
    for train in (False, True):
        check_same(module, imported, SHAPE, train=train)


@pytest.mark.parametrize("way", ["program", "trace", "script"])
def test_a_file_saved_in_training_keeps_what_is_frozen(way: str, tmp_path: Path) -> None:
    module = distinct(nn.Sequential(Frozen(), nn.Dropout(0.3))).train()  # a dropout tells a program of training
    ending, save = WAYS[way]
    imported = load_file(save(module, tmp_path / ending), Request(input=SHAPE))
    for train in (False, True):
        check_same(module, imported, SHAPE, train=train)


def test_a_script_without_weights_names_and_with_them(tmp_path: Path) -> None:
    imported = load_file(scripted(Functional().eval(), tmp_path / "a.pt"), Request(input=SHAPE, name="mine"))
    assert imported.architecture.name == "mine"
    assert {"conv1.weight", "fc2.bias"} <= set(imported.parameters or {})


class Endless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(1_000_000_000):
            x = torch.relu(x)
        return x


class OnImages(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            return torch.relu(x)
        return torch.tanh(x)


class Reading(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", size=1)


class Growing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view([1] * (x.size(0) * 1_000_000_000))


class Awkward(nn.Module):
    """Has something to do when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return (1, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


class Bomb:
    """Would make a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Endless(), "runs more than 200 operators"),
        (OnImages(), "'aten::gt': this operator is not supported"),
        (Reading(), "'aten::from_file': this operator is not supported"),
        (Growing(), "the script multiplies .*; refused"),
        (Awkward(), "runs code when it is loaded"),
        (after_row(nn.Hardshrink()), "'aten::hardshrink': this operator is not supported; supported are adaptive"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_script_runs_nothing_but_layers(
    module: nn.Module, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_script, "MOST_OPERATORS", 200)
    with pytest.raises(TriptychError, match=message) as caught:
        load_file(scripted(module, tmp_path / "a.pt"), Request(input=SHAPE))
    assert "\n" not in str(caught.value)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], more: dict[str, bytes] | None = None) -> Path:
    """The archive with each entry changed, dropped where that is None, and some more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            if (content := change(info.filename, old.read(info))) is not None:
                new.writestr(info.filename, content)
        for name, content in (more or {}).items():
            new.writestr(name, content)
    path.write_bytes(buffer.getvalue())
    return path


def unchanged(name: str, content: bytes) -> bytes:
    return content


def pickled(mark: Path) -> Callable[[str, bytes], bytes]:
    return lambda name, content: pickle.dumps(Bomb(mark)) if "sample_inputs" in name else content


def replaced(part: str, old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(old.encode(), new.encode()) if part in name else content

    return change


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return any_batch(Functional().eval(), tmp_path_factory.mktemp("program") / "net.pt2").read_bytes()


CHANGES: dict[str, tuple[Callable[[str, bytes], bytes | None], dict[str, bytes], str]] = {
    "a tensor as a pickle": (
        replaced("weights_config", '"use_pickle": false', '"use_pickle": true'),
        {},
        "is a pickle",
    ),
    "an expression": (replaced("models/", "Symbol('s", "exit('s"), {}, "expected a fixed size, but for the batch"),
    "an operator": (
        replaced("models/", "torch.ops.aten.relu.default", "os.system"),
        {},
        "calls 'os.system'; supported",
    ),
    "a reader": (replaced("models/", "aten.relu.default", "aten.from_file.default"), {}, "from_file|no whole exported"),
    "no JSON": (replaced("models/", "{", "["), {}, "is no JSON"),
    "a list for a program": (
        lambda name, content: b"[1]" if "models/" in name else content,
        {},
        "no whole exported prog",
    ),
    "deep JSON": (lambda name, content: b"[" * 5_000 if "models/" in name else content, {}, "is no JSON"),
    "no weights": (lambda name, content: None if "weight_2" in name else content, {}, "no whole exported program"),
    "weights that are short": (
        replaced("weights/weight_", "", ""),
        {"net/extra/zeros": bytes(1 << 24)},
        "ten|10 times",
    ),
    "two of a name": (unchanged, {"other/archive_format": b"pt2"}, "two files of one name"),
    "old": (unchanged, {"serialized_exported_program.json": b"{}"}, "whole|2.7 or older|hold"),
    "legacy weights": (unchanged, {"net/data/weights/model.pt": b"x"}, "is a pickle"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [name for name in CHANGES if name != "old"])
def test_an_altered_program_is_one_line(name: str, program: bytes, tmp_path: Path) -> None:
    change, more, message = CHANGES[name]
    path = tmp_path / "net.pt2"
    path.write_bytes(program)
    with pytest.raises(TriptychError, match=message) as caught:
        load_file(rewritten(path, change, more), Request())
    assert "\n" not in str(caught.value)


def test_example_inputs_are_not_unpickled(program: bytes, tmp_path: Path) -> None:
    path, mark = tmp_path / "net.pt2", tmp_path / "mark"
    path.write_bytes(program)
    load_file(rewritten(path, pickled(mark)), Request())
    assert not mark.exists()


def saved(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


HELD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "state dict": (
        saved(Functional().state_dict()),
        r"holds weights alone \(8 arrays, 831 values\); name the network as",
    ),
    "module": (saved(Functional()), "holds objects that need torch_networks.Functional, and only running it"),
    "checkpoint": (
        saved({"epoch": 1, "model": Functional().state_dict()}),
        "holds a dict with epoch, model, which is no",
    ),
    "tensor": (saved(torch.ones(2)), "holds a Tensor, which is no network"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1])), "is no file of PyTorch|holds"),
    "text": (lambda path: path.write_text("hello"), r"is no file of PyTorch \(of torch.save"),
    "begins as an archive": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(range(256))), "or is damaged"),
    "nothing": (lambda path: path.write_bytes(b""), "is no file of PyTorch"),
    "an archive": (lambda path: zipfile.ZipFile(path, "w").close(), "is no file of PyTorch"),
}


def of_several_disks() -> bytes:
    zipfile.ZipFile(whole := io.BytesIO(), "w").close()
    return b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 2) + whole.getvalue()


def with_a_name_that_is_none() -> bytes:
    with zipfile.ZipFile(whole := io.BytesIO(), "w") as archive:
        archive.writestr("net/models/\u00e4.json", "{}")
    return whole.getvalue().replace("\u00e4".encode(), b"\xff\xff", 1)  # in the member's own head


@pytest.mark.parametrize("make", [of_several_disks, with_a_name_that_is_none])
def test_archives_at_which_zipfile_stumbles(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(make())
    with pytest.raises(TriptychError, match=r"is no file of PyTorch|ä.json cannot be read"):
        load_file(tmp_path / "a.pt2", Request())


@pytest.mark.parametrize("name", HELD)
def test_a_file_without_a_network_says_what_it_holds(name: str, tmp_path: Path) -> None:
    make, message = HELD[name]
    make(tmp_path / "a.pt")
    with pytest.raises(TriptychError, match=message) as caught:
        load_file(tmp_path / "a.pt", Request())
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_run_to_say_what_it_holds(tmp_path: Path) -> None:
    path, mark = tmp_path / "a.pt", tmp_path / "mark"
    torch.save({"model": Bomb(mark)}, path)
    with pytest.raises(TriptychError, match="holds objects that need getattr, and only running it"):
        load_file(path, Request())
    assert not mark.exists()


def test_another_size_than_the_program_has_is_refused(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(program)
    with pytest.raises(
        ImportRefusedError, match=r"was exported for images \(3, 12, 12\), and \(3, 32, 32\) were asked"
    ):
        load_file(path, Request(input=(3, 32, 32)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("save", [exported, scripted])
def test_a_truncated_file_is_one_line(save: Any, tmp_path: Path) -> None:
    content = save(Functional().eval(), tmp_path / "a").read_bytes()
    for kept in (1, 100, len(content) // 2, len(content) - 10):
        (tmp_path / "a").write_bytes(content[:kept])
        with pytest.raises(TriptychError):
            load_file(tmp_path / "a", Request(input=SHAPE))


fuzzed = settings(
    max_examples=15,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzzed
@given(st.data())
def test_a_program_with_another_value_is_a_network_or_one_line(program: bytes, tmp_path: Path, data: Any) -> None:
    """Any value of its JSON, replaced by any other."""
    path = tmp_path / "net.pt2"
    path.write_bytes(program)

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("model.json"):
            return content
        tree = json.loads(content)
        places = list(_places(tree))
        owner, key = data.draw(st.sampled_from(places))
        owner[key] = data.draw(st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=5), st.just([]), st.just({})))
        return json.dumps(tree).encode()

    rewritten(path, change)
    with contextlib.suppress(TriptychError):
        load_file(path, Request())


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])
