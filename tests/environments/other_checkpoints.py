"""What other ways to save lose, and what they notice, beside ours: `python tests/environments/other_checkpoints.py`.

Each saves the same arrays, in the way that its documentation gives, over those that it saved before.

- Damage: the largest of its files is damaged, and they are loaded again.
- A kill: a process that saves again and again is killed at a random moment.
- A full disk: the second save is of twice the size, and there is room for half a one more.
- Two writers: two processes save each its own arrays five times at once.
- A resume within an epoch, where there is a training that can be resumed: are weights and images those of a run that
  was not stopped?

An error on loading is "nothing left" (of damage: "noticed"), arrays that were never saved together are "silent", those
of one save are "whole". Printed as tables; ends with 1 if ours loses anything or lets anything pass. What it is called
with is a way, for a process of its own: every try is a child of that, which has imported and done nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "backends"), str(ROOT / "tests")]
TRIES = 20
SAVES = 5
PATIENCE = 120  # seconds that a try may take
Arrays = dict[str, np.ndarray]


def arrays(version: int) -> Arrays:
    """A megabyte, another for each version."""
    draws = (np.random.default_rng((version, n)) for n in range(4))
    return {f"layer{n}.weight": draw.standard_normal((256, 256)).astype("f4") for n, draw in enumerate(draws)}


ARRAYS = arrays(0)


def triptych_save(folder: Path, saved: Arrays) -> None:
    """As a training does: it has the lock of its run."""
    from triptych.training import checkpoint, run_folder

    with run_folder.hold(folder):
        before = [checkpoint.read_state(place).step for place in checkpoint.places(folder)[:1]]
        state = checkpoint.State(epoch=0, step=sum(before) + 1, input=(1, 28, 28), class_names=("a", "b"))
        run_folder.save(folder, (), checkpoint.Checkpoint(state, saved, {}))


def triptych_load(folder: Path) -> Arrays:
    from triptych.training import run_folder

    found = run_folder.load(folder)
    assert found is not None
    return found.model


def safetensors_save(folder: Path, saved: Arrays) -> None:
    from safetensors.numpy import save_file

    save_file(saved, folder / "model.safetensors")


def safetensors_load(folder: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def torch_save(folder: Path, saved: Arrays) -> None:
    import torch

    torch.save({name: torch.from_numpy(value) for name, value in saved.items()}, folder / "model.pt")


def torch_load(folder: Path) -> Arrays:
    import torch

    return {name: value.numpy() for name, value in torch.load(folder / "model.pt", weights_only=True).items()}


def dcp_save(folder: Path, saved: Arrays) -> None:
    import torch
    import torch.distributed.checkpoint as dcp

    dcp.save({name: torch.from_numpy(value) for name, value in saved.items()}, checkpoint_id=folder)


def dcp_load(folder: Path) -> Arrays:
    import torch
    import torch.distributed.checkpoint as dcp

    state = {name: torch.zeros(value.shape) for name, value in ARRAYS.items()}
    dcp.load(state, checkpoint_id=folder)
    return {name: value.numpy() for name, value in state.items()}


def orbax_save(folder: Path, saved: Arrays) -> None:
    import orbax.checkpoint as orbax

    with orbax.CheckpointManager(folder, options=orbax.CheckpointManagerOptions(max_to_keep=2)) as manager:
        step = manager.latest_step()
        manager.save(0 if step is None else step + 1, args=orbax.args.StandardSave(saved))


def orbax_load(folder: Path) -> Arrays:
    import orbax.checkpoint as orbax

    with orbax.CheckpointManager(folder) as manager:
        loaded = manager.restore(manager.latest_step(), args=orbax.args.StandardRestore(ARRAYS))
    return {name: np.asarray(value) for name, value in loaded.items()}


def lightning_save(folder: Path, saved: Arrays) -> None:
    import torch
    from lightning.fabric import Fabric

    state = {name: torch.from_numpy(value) for name, value in saved.items()}
    Fabric(accelerator="cpu", devices=1).save(folder / "state.ckpt", state)


def lightning_load(folder: Path) -> Arrays:
    from lightning.fabric import Fabric

    return {
        name: value.numpy() for name, value in Fabric(accelerator="cpu", devices=1).load(folder / "state.ckpt").items()
    }


# How each saves and loads, and what has to be imported for it.
WAYS: dict[str, tuple[Callable[[Path, Arrays], None], Callable[[Path], Arrays], tuple[str, ...]]] = {
    "triptych": (triptych_save, triptych_load, ("triptych.training.run_folder",)),
    "safetensors": (safetensors_save, safetensors_load, ("safetensors.numpy",)),
    "torch.save": (torch_save, torch_load, ("torch",)),
    "torch DCP": (dcp_save, dcp_load, ("torch.distributed.checkpoint",)),
    "Orbax": (orbax_save, orbax_load, ("orbax.checkpoint",)),
    "Lightning": (lightning_save, lightning_load, ("lightning.fabric",)),
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


DAMAGES = {"a flipped bit": flip, "cut short": cut, "4 kB of zeros": mix}


def child(work: Callable[[], object]) -> int:
    """A process that does it, and ends with 0, or with 1 where it raises."""
    started = os.fork()
    if started:
        return started
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        work()
        os._exit(0)
    except BaseException:  # DCP's own error is no Exception
        os._exit(1)


def ended(process: int) -> int:
    """The exit status of a child; 124 of one that had to be ended."""
    since = time.monotonic()
    while time.monotonic() - since < PATIENCE:
        waited, status = os.waitpid(process, os.WNOHANG)
        if waited:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return 124


def outcome(way: str, folder: Path, versions: int) -> str:
    """What is loaded: `whole` if it is one of the first so many versions."""
    load = WAYS[way][1]

    def work() -> None:
        loaded = load(folder)
        if not any(same(loaded, arrays(version)) for version in range(versions)):
            os._exit(2)

    return {0: "whole", 2: "silent"}.get(ended(child(work)), "nothing left")


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def saved(way: str, folder: Path, *made: Arrays) -> int:
    """A child that saves these, one after the other."""
    return child(lambda: [WAYS[way][0](folder, each) for each in made])


def damaged(way: str, folder: Path, number: int, damage: str) -> str:
    ended(saved(way, folder, ARRAYS))
    DAMAGES[damage](folder, random.Random(number))
    found = outcome(way, folder, 1)
    return {"nothing left": "noticed", "whole": "no harm"}.get(found, found)


def killed(way: str, folder: Path, number: int) -> str:
    """Within the saves that follow the first."""
    ended(saved(way, folder, ARRAYS))
    since = time.monotonic()
    ended(saved(way, folder, arrays(1), arrays(2)))
    lasts = time.monotonic() - since
    process = saved(way, folder, *[arrays(1), arrays(2)] * 25)
    time.sleep(random.Random(number).uniform(0.2, 2) * lasts)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return outcome(way, folder, 3)


def full(way: str, folder: Path, number: int) -> str:
    """On a small disk of its own. The last word: whether the save that had no room said so."""
    ended(saved(way, folder, ARRAYS))
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder.parent / "others").write_bytes(bytes(free - used // 2))
    said = ended(saved(way, folder, arrays(1) | {f"more {name}": value for name, value in arrays(2).items()}))
    os.unlink(folder.parent / "others")
    return f"{outcome(way, folder, 1)}, {'said' if said else 'not said'}"


def two_writers(way: str, folder: Path, number: int) -> str:
    ended(saved(way, folder, ARRAYS))
    writers = [saved(way, folder, *[arrays(version)] * SAVES) for version in (1, 2)]
    statuses = [ended(writer) for writer in writers]
    return f"{outcome(way, folder, 3)}{', refused' if any(statuses) else ''}"


FAULTS: dict[str, Callable[[str, Path, int], str]] = {
    "a kill in a write": killed,
    "a full disk": full,
    "two writers": two_writers,
}


def tried(way: str, fault: str) -> Counter[str]:
    """How often each outcome came of `TRIES` tries."""
    counts: Counter[str] = Counter()
    for number in range(TRIES):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            small = fault == "a full disk" and not mounted(place)
            if small:
                return Counter({"not run: no small disk can be mounted here": TRIES})
            folder = place / "saved"
            folder.mkdir()
            if fault in DAMAGES:
                counts[damaged(way, folder, number, fault)] += 1
            else:
                counts[FAULTS[fault](way, folder, number)] += 1
            if fault == "a full disk":
                subprocess.run(["umount", "-l", name], check=True)
    return counts


def mounted(place: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def triptych_resumes(place: Path) -> str:
    """From its checkpoint of step 16, of 18 in three epochs; `check_same` compares bits."""
    import killed

    whole, part = place / "whole", place / "part"
    pipe = os.open(os.devnull, os.O_WRONLY)
    killed.train("torch", whole, pipe)
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoint")
    killed.train("torch", part, pipe)
    killed.check_same(part, whole)
    return "the same bits"


def lightning_resumes(place: Path) -> str:
    """From its checkpoint of step 4, of 12 in two epochs, in a process that is seeded as the first was."""
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Linear(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(8, 1)
            self.seen: list[tuple[int, ...]] = []

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            self.seen.append(tuple(batch[1].tolist()))
            return (self.linear(batch[0]) ** 2).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    def fit(start: Path | None) -> Linear:
        lightning.seed_everything(0)
        images = torch.utils.data.TensorDataset(torch.randn(96, 8), torch.arange(96))
        batches = torch.utils.data.DataLoader(images, batch_size=16, shuffle=True)
        model = Linear()
        keeps = ModelCheckpoint(place, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        lightning.Trainer(max_epochs=2, accelerator="cpu", callbacks=[keeps], **quiet).fit(
            model, batches, ckpt_path=start
        )
        return model

    whole = fit(None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        part = fit(place / "step=4.ckpt")
    warned = "warned; " * any("ended before the epoch ended" in str(one.message) for one in said)
    weights = [model.linear.weight.detach() for model in (whole, part)]
    if torch.equal(*weights):
        return "the same bits"
    epoch = [*whole.seen[:4], *part.seen[:-6]]
    seen = Counter(image for batch in epoch for image in batch)
    twice = sum(count > 1 for count in seen.values())
    return f"{warned}other weights: of 96 images {twice} twice and {96 - len(seen)} never in that epoch"


RESUMES = {"triptych": triptych_resumes, "Lightning": lightning_resumes}
RESUME = "a resume within an epoch"


def resumed(way: str) -> str:
    """What came of it, where there is a training that can be resumed."""
    if way not in RESUMES:
        return "no training of its own"
    with tempfile.TemporaryDirectory() as name:
        said = Path(name) / "said.txt"
        ended(child(lambda: said.write_text(RESUMES[way](Path(name)))))
        return said.read_text() if said.exists() else "failed"


def row(way: str) -> None:
    """All of one way, as JSON."""
    for module in WAYS[way][2]:
        import_module(module)
    counts = {fault: dict(tried(way, fault)) for fault in (*DAMAGES, *FAULTS)}
    print(json.dumps(counts | {RESUME: {resumed(way): 1}}))


def cell(counts: dict[str, int]) -> str:
    several = sum(counts.values()) > 1
    return "; ".join(f"{number} {what}" if several else what for what, number in sorted(counts.items()))


def main() -> None:
    found: dict[str, dict[str, dict[str, int]]] = {}
    for way, (_, _, modules) in WAYS.items():
        package = modules[0].partition(".")[0]
        if find_spec(package) is None:
            print(f"{way}: not run: {package} is not installed", file=sys.stderr)
            continue
        command = [sys.executable, __file__, way]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    for faults in (list(DAMAGES), [*FAULTS, RESUME]):
        print(f"\n| of {TRIES} | " + " | ".join(faults) + " |")
        print("|---|" + "---|" * len(faults))
        for way, counts in found.items():
            cells = (cell(counts[fault]) for fault in faults)
            print(f"| {way} | " + " | ".join(cells) + " |")
    ours = [what for counts in found["triptych"].values() for what in counts]
    sys.exit(any(bad in what for what in ours for bad in ("silent", "nothing left", "not said", "other", "failed")))


if __name__ == "__main__":
    row(sys.argv[1]) if sys.argv[1:] else main()
