"""What other ways to save notice of damage that ours is tried with: `python tests/environments/other_checkpoints.py`.

Each saves the same arrays of 1 MB, the largest of its files is damaged, and they are loaded again: an error is
"noticed", other values than were saved are "silent", the same values "no harm". Printed as a table; ends with 1 if ours
lets anything pass."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "backends")]
TRIES = 20
Arrays = dict[str, np.ndarray]
ARRAYS: Arrays = {
    f"layer{n}.weight": np.random.default_rng(n).standard_normal((256, 256)).astype("f4") for n in range(4)
}


def triptych_save(folder: Path) -> None:
    from triptych.training import checkpoint

    state = checkpoint.State(epoch=1, step=4, input=(1, 28, 28), class_names=("a", "b"))
    for name, content in checkpoint.encode(checkpoint.Checkpoint(state, ARRAYS, {}), b"").items():
        (folder / name).write_bytes(content)


def triptych_load(folder: Path) -> Arrays:
    from triptych.training import checkpoint

    return checkpoint.read(folder).model


def safetensors_save(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file(ARRAYS, folder / "model.safetensors")


def safetensors_load(folder: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def torch_save(folder: Path) -> None:
    import torch

    torch.save({name: torch.from_numpy(value) for name, value in ARRAYS.items()}, folder / "model.pt")


def torch_load(folder: Path) -> Arrays:
    import torch

    return {name: value.numpy() for name, value in torch.load(folder / "model.pt", weights_only=True).items()}


def dcp_save(folder: Path) -> None:
    import torch
    import torch.distributed.checkpoint as dcp

    dcp.save({name: torch.from_numpy(value) for name, value in ARRAYS.items()}, checkpoint_id=folder)


def dcp_load(folder: Path) -> Arrays:
    import torch
    import torch.distributed.checkpoint as dcp

    state = {name: torch.zeros(value.shape) for name, value in ARRAYS.items()}
    dcp.load(state, checkpoint_id=folder)
    return {name: value.numpy() for name, value in state.items()}


def orbax_save(folder: Path) -> None:
    import orbax.checkpoint as orbax

    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", ARRAYS)


def orbax_load(folder: Path) -> Arrays:
    import orbax.checkpoint as orbax

    with orbax.StandardCheckpointer() as checkpointer:
        return {name: np.asarray(value) for name, value in checkpointer.restore(folder / "state", ARRAYS).items()}


def lightning_save(folder: Path) -> None:
    import torch
    from lightning.fabric import Fabric

    state = {name: torch.from_numpy(value) for name, value in ARRAYS.items()}
    Fabric(accelerator="cpu", devices=1).save(folder / "state.ckpt", state)


def lightning_load(folder: Path) -> Arrays:
    from lightning.fabric import Fabric

    return {
        name: value.numpy() for name, value in Fabric(accelerator="cpu", devices=1).load(folder / "state.ckpt").items()
    }


WAYS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Arrays], str]] = {
    "triptych": (triptych_save, triptych_load, "numpy"),
    "safetensors": (safetensors_save, safetensors_load, "safetensors"),
    "torch.save": (torch_save, torch_load, "torch"),
    "torch DCP": (dcp_save, dcp_load, "torch"),
    "Orbax": (orbax_save, orbax_load, "orbax"),
    "Lightning": (lightning_save, lightning_load, "lightning"),
}


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(folder: Path, draws: random.Random) -> None:
    """One bit anywhere in the file that holds the arrays."""
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    path.write_bytes(content)


def cut(folder: Path, draws: random.Random) -> None:
    """The end is missing, as after a disk that was full."""
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: draws.randrange(path.stat().st_size)])


def mix(folder: Path, draws: random.Random) -> None:
    """Some bytes of zeros in the middle, as after a write that never reached the disk."""
    path = largest(folder)
    content = bytearray(path.read_bytes())
    at = draws.randrange(len(content) - 4096)
    content[at : at + 4096] = bytes(4096)
    path.write_bytes(content)


FAULTS = {"a flipped bit": flip, "cut short": cut, "4 kB of zeros": mix}


def outcome(load: Callable[[Path], Arrays], folder: Path) -> str:
    try:
        loaded = load(folder)
        same = loaded.keys() == ARRAYS.keys() and all((loaded[name] == value).all() for name, value in ARRAYS.items())
    except BaseException as error:  # DCP's own error is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return "noticed"
    return "no harm" if same else "silent"


def tried(way: str, fault: str) -> Counter[str]:
    """How often each outcome came of `TRIES` tries, the same places for every way."""
    save, load, _ = WAYS[way]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        save(whole)
        assert outcome(load, whole) == "no harm", f"{way} does not load what it saved"
        for number in range(TRIES):
            folder = Path(name) / str(number)
            shutil.copytree(whole, folder)
            FAULTS[fault](folder, random.Random(number))
            counts[outcome(load, folder)] += 1
            shutil.rmtree(folder)
    return counts


def main() -> None:
    from importlib.util import find_spec

    print(f"| of {TRIES} | " + " | ".join(FAULTS) + " |")
    print("|---|" + "---|" * len(FAULTS))
    ours: Any = None
    for way, (_, _, package) in WAYS.items():
        if find_spec(package) is None:
            print(f"{way}: not run: {package} is not installed", file=sys.stderr)
            continue
        counts = [tried(way, fault) for fault in FAULTS]
        ours = counts if way == "triptych" else ours
        cells = (", ".join(f"{count} {what}" for what, count in sorted(count.items())) for count in counts)
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(any(count["silent"] for count in ours))


if __name__ == "__main__":
    main()
