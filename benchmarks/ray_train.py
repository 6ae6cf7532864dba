"""The PyTorch backend under Ray Train: Ray places the processes and joins them, triptych trains.

pip install "ray[train]"                          # an environment of its own
python benchmarks/ray_train.py --workers 2 --out runs/ray
python benchmarks/ray_train.py --address auto --workers 16 --device cuda --recipe imagenet-vgg --out /shared/runs/vgg

The run's folder, on a file system that all hosts see, is that of `triptych train`, which can evaluate and resume it.
Ray's JaxTrainer is alpha, and on CPUs its workers train without knowing of each other, silently: use `jax.distributed`
(docs/scaling.md).
"""

import argparse
import os
from pathlib import Path
from typing import Any

import ray
from ray import train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from triptych import data
from triptych.backend import registry
from triptych.training import keeping, loop, recipes, sessions
from triptych.training.recipe import vary

LOOPBACK = "127.0.0.1"


def work(told: dict[str, Any]) -> None:
    """One of the workers, which Ray has joined by then."""
    backend = registry.load("torch")
    group = backend.join(told["device"], 1)
    recipe = vary(recipes.get_recipe(told["recipe"]), **told["changes"])
    dataset = data.load(recipe.data, reading=recipe.reading)
    first = group.rank == 0
    session = sessions.start(backend, recipe, dataset, device=told["device"], group=group, writes=first)
    if first:
        keeping.keep_in(session, Path(told["out"]))
    loop.fit(session, loop.Listener())
    last = session.epochs[-1]
    train.report({"train_loss": last.train_loss, "test_accuracy": last.test_accuracy})


def main() -> None:
    """Start the workers, here or in a cluster, and print what the last epoch gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a running cluster; left out, Ray is started here, on the loopback alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--recipe", default="d2l-vgg")
    parser.add_argument("--data", help="if not the recipe's own")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--width-ratio", type=float)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    fields = ("data", "epochs", "width_ratio")
    changes: dict[str, Any] = {name: value for name in fields if (value := getattr(chosen, name)) is not None}
    if "width_ratio" in changes:
        changes["dense_width"] = None  # narrowed too, as `triptych train` does it
    if chosen.resolution is not None:
        changes["size"] = (chosen.resolution, chosen.resolution)
    out = chosen.out.absolute()
    if chosen.address is None:
        os.environ.setdefault("RAY_NODE_IP_ADDRESS", LOOPBACK)
    ray.init(address=chosen.address, **({} if chosen.address else {"_node_ip_address": LOOPBACK}))
    trainer = TorchTrainer(
        work,
        train_loop_config={"recipe": chosen.recipe, "changes": changes, "device": chosen.device, "out": str(out)},
        scaling_config=ScalingConfig(num_workers=chosen.workers, use_gpu=chosen.device == "cuda"),
        torch_config=TorchConfig(backend="gloo" if chosen.device == "cpu" else "cpu:gloo,cuda:nccl"),
        run_config=RunConfig(name=out.name, storage_path=str(out.parent / "ray")),  # what Ray itself keeps
    )
    trainer.fit()
    print((out / "metrics.jsonl").read_text().splitlines()[-1])


if __name__ == "__main__":
    main()
