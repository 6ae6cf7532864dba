"""Three networks of MXNet's by two ways to PyTorch: MXNet's own ONNX exporter with onnx2torch, and triptych.

Each step runs in an environment of its own, as the tools want other versions; none needs another's packages:

    python benchmarks/compare_tools.py make DIR        MXNet 1.9.1, NumPy 1.23, onnx 1.14 (newer ones lack onnx.mapping)
    python benchmarks/compare_tools.py onnx2torch DIR  PyTorch, onnx, onnx2torch
    python benchmarks/compare_tools.py triptych DIR    triptych with PyTorch
    python benchmarks/compare_tools.py table DIR       the table of docs/compare-tools.md
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("resnet18_v2", "squeezenet1.1", "face")
SHAPE = (2, 3, 224, 224)
ROWS = {
    "converted": "converted",
    "eval": "outputs in evaluation",
    "train": "outputs in training mode, dropout off",
    "gradient": "gradients",
    "statistics": "running statistics after a step",
    "trained": "numbers that are trained",
    "dropouts": "dropout layers",
    "lines": "source to keep",
}


def share(found: Any, expected: Any) -> float:
    """The largest difference, of the largest value."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


# -- MXNet -------------------------------------------------------------------------------------------------------------


def network(name: str) -> Any:
    """One of Gluon's model zoo, or a small one in the manner of face networks."""
    from mxnet.gluon import nn
    from mxnet.gluon.model_zoo import vision

    if name != "face":
        return vision.get_model(name, classes=10)
    net = nn.HybridSequential()
    for channels in (12, 24):
        net.add(nn.Conv2D(channels, 3, padding=1, use_bias=False), nn.BatchNorm(scale=False, epsilon=2e-5))
        net.add(nn.PReLU(in_channels=channels), nn.MaxPool2D(3, strides=2, ceil_mode=True))
    net.add(nn.Dense(32), nn.BatchNorm(scale=False))
    return net


def make(folder: Path) -> None:
    """Each network with drawn weights, as trained ones are, its files, its ONNX file, and what MXNet makes of it."""
    import mxnet as mx

    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        mx.random.seed(0)
        random = np.random.default_rng(0)
        images = random.standard_normal(SHAPE).astype(np.float32)
        net = network(name)
        net.initialize(mx.init.Xavier())
        net.hybridize()
        net(mx.nd.array(images))
        for key, parameter in net.collect_params().items():
            if key.endswith(("gamma", "running_var", "alpha")):
                parameter.set_data(mx.nd.array(0.5 + random.random(parameter.shape)))
            elif key.endswith(("running_mean", "beta")):
                parameter.set_data(mx.nd.array(random.standard_normal(parameter.shape) / 4))
        net(mx.nd.array(images))
        net.export(str(folder / name))
        facts: dict[str, Any] = {"versions": versions("mxnet", "onnx", "numpy"), "exported": export(folder, name)}
        net.cast("float64")  # what rounds cannot be taken for what is wrong
        images = images.astype(np.float64)
        arrays = {"images": images, "eval": net(mx.nd.array(images, dtype="float64")).asnumpy(), **trained(net, images)}
        facts["trained"] = sum(p.data().size for p in net.collect_params().values() if p.grad_req != "null")
        facts["dropouts"] = str(net).count("Dropout(")
        np.savez(folder / f"{name}.npz", **arrays)
        (folder / f"{name}.mxnet.json").write_text(json.dumps(facts))


def export(folder: Path, name: str) -> str:
    """Write the ONNX file; what MXNet's exporter says, where it does not."""
    import mxnet as mx

    files = (str(folder / f"{name}-symbol.json"), str(folder / f"{name}-0000.params"))
    try:
        mx.onnx.export_model(*files, [SHAPE], [np.float32], str(folder / f"{name}.onnx"))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    return ""


def trained(net: Any, images: Any) -> dict[str, Any]:
    """What a pass in training mode without dropout gives: outputs, the images' gradient, all running statistics."""
    import mxnet as mx

    def off(block: Any) -> None:
        if type(block).__name__ == "Dropout":
            block._rate = 0.0

    net.apply(off)
    net.hybridize(active=False)
    x = mx.nd.array(images, dtype="float64")
    x.attach_grad()
    with mx.autograd.record():
        y = net(x)
        loss = (y * y).sum()
    loss.backward()
    mx.nd.waitall()
    statistics = [p.data().asnumpy() for key, p in net.collect_params().items() if "running" in key]
    return {"train": y.asnumpy(), "gradient": x.grad.asnumpy(), "statistics": totals(statistics)}


def totals(arrays: Any) -> Any:
    """The sums of arrays in the order of their size and value: names and order are each framework's own."""
    return np.sort(np.array([float(np.asarray(array, np.float64).sum()) for array in arrays]))


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def judge(folder: Path, tool: str, load: Callable[[str], tuple[Any, str]]) -> None:
    """What a tool's networks make of the same images."""
    import torch

    for name in NETWORKS:
        expected = np.load(folder / f"{name}.npz")
        facts: dict[str, Any] = {"versions": versions("torch", *(("onnx", tool) if tool == "onnx2torch" else (tool,)))}
        try:
            net, facts["lines"] = load(name)
            net = net.double()
            x = torch.from_numpy(expected["images"]).requires_grad_()
            facts["converted"] = "yes"
            facts["trained"] = sum(p.numel() for p in net.parameters() if p.requires_grad)
            facts["dropouts"] = sum("Dropout" in type(part).__name__ for part in net.modules())
            facts["eval"] = share(net.eval()(x).detach().numpy(), expected["eval"])
            for part in net.modules():
                if "Dropout" in type(part).__name__:
                    part.p = 0.0
            y = net.train()(x)
            (y * y).sum().backward()
            assert x.grad is not None
            facts["train"] = share(y.detach().numpy(), expected["train"])
            facts["gradient"] = share(x.grad.numpy(), expected["gradient"])
            statistics = [b.numpy() for key, b in net.named_buffers() if key.endswith(("running_mean", "running_var"))]
            found = totals(statistics)
            known = expected["statistics"]
            same = found.shape == known.shape
            facts["statistics"] = (share(found, known) if found.size else "none") if same else f"{len(found)} arrays"
        except Exception as error:
            facts["failed"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        (folder / f"{name}.{tool}.json").write_text(json.dumps(facts))
        print(name, facts)


def by_onnx2torch(folder: Path, name: str) -> tuple[Any, str]:
    """onnx2torch imports torchvision for the operators of detectors, which these networks have not: where the installed
    one was built for another PyTorch, a stand-in is."""
    from unittest import mock

    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        sys.modules |= {"torchvision": mock.MagicMock(), "torchvision.ops": mock.MagicMock()}
    import onnx2torch

    path = folder / f"{name}.onnx"
    if not path.is_file():
        raise RuntimeError("MXNet's exporter wrote no file")
    return onnx2torch.convert(str(path)), "none: a torch.fx graph"


def by_triptych(folder: Path, name: str) -> tuple[Any, str]:
    out = folder / f"{name}.ported"
    line = [sys.executable, "-m", "triptych", "port", str(folder / f"{name}-symbol.json"), "--to", "torch"]
    shape = "x".join(map(str, SHAPE[1:]))
    if not out.is_dir():
        subprocess.run([*line, "--input", shape, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    names: dict[str, Any] = {}
    source = (out / "torch" / "model.py").read_text()
    exec(compile(source, "model.py", "exec"), names)
    return names["load"](str(out / "torch" / "model.safetensors")), f"{len(source.splitlines())} lines"


def versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "of this checkout"
    return found


# -- the table ---------------------------------------------------------------------------------------------------------


def table(folder: Path) -> None:
    """Both ways side by side, of every network."""
    for name in NETWORKS:
        mxnet = json.loads((folder / f"{name}.mxnet.json").read_text())
        ways = [json.loads((folder / f"{name}.{tool}.json").read_text()) for tool in ("onnx2torch", "triptych")]
        print(f"\n## {name}\n\n| | MXNet's exporter and onnx2torch | triptych |\n|---|---|---|")
        for key, what in ROWS.items():
            own = f" (MXNet: {mxnet[key]:,})" if key in mxnet else ""
            print(f"| {what}{own} | {' | '.join(told(way, key) for way in ways)} |")
        failed = [
            ("MXNet's exporter", mxnet["exported"]),
            *zip(("onnx2torch", "triptych"), (w.get("failed", "") for w in ways), strict=True),
        ]
        print(*(f"\n{tool}: `{text}`" for tool, text in failed if text), sep="")
    print("\nVersions:", json.dumps([mxnet["versions"], *(way["versions"] for way in ways)]))


def told(facts: dict[str, Any], key: str) -> str:
    value = facts.get(key, "no" if key == "converted" else "")
    if isinstance(value, float):
        return f"{value:.1e} off" if value > 1e-3 else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else value


def main(step: str, folder: str) -> None:
    path = Path(folder)
    if step == "make":
        make(path)
    elif step == "table":
        table(path)
    else:
        load = {"onnx2torch": by_onnx2torch, "triptych": by_triptych}[step]
        judge(path, step, lambda name: load(path, name))


if __name__ == "__main__":
    main(*sys.argv[1:])
