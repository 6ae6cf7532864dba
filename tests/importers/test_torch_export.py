"""PyTorch modules become networks: their own outputs, gradients and statistics, and they stay as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.backend import registry
from triptych.importers.steps import ImportRefusedError, Request
from triptych.importers.torch_export import load
from triptych.spec.layers import BatchNorm, Conv, Dense, Dropout, Softmax, outputs, walk

if "torch" not in registry.installed():
    pytest.skip("torch is not installed", allow_module_level=True)

import torch
from torch import nn
from torch.nn import functional as F

from torch_checks import check_same, distinct
from torch_networks import NETWORKS, Functional, after_conv, after_row

MODELS = Path(__file__).parents[2] / "../shared/data/models/facenet_pytorch_mtcnn"
SHAPE = (3, 12, 12)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def layers_of(imported: Any) -> list[Any]:
    return [layer for _, layer in walk(imported.architecture.layers)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_module_becomes_the_same_network(name: str) -> None:
    module = distinct(NETWORKS[name]())
    imported = load(module, Request(input=SHAPE, keep_softmax=True))
    for train in (False, True):
        check_same(module, imported, SHAPE, train=train)


def two_convolutions_of_one_weight() -> nn.Module:
    first, second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    second.weight = first.weight
    return nn.Sequential(first, second)


def used_twice() -> nn.Module:
    conv = nn.Conv2d(3, 3, 3)
    return nn.Sequential(conv, nn.ReLU(), conv)


class TwoInputs(nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        return x + y


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.tanh() if x.sum() > 0 else x.sigmoid()


REFUSED: dict[str, tuple[Any, str]] = {
    "one weight": (
        two_convolutions_of_one_weight,
        r"'1' \(operator conv2d\): shares the parameter '0.weight' with '0'",
    ),
    "one layer": (used_twice, r"shares the parameter '0.weight' with '0'"),
    "no statistics": (lambda: after_row(nn.BatchNorm2d(6, track_running_stats=False)), "no running statistics"),
    "momentum None": (lambda: after_row(nn.BatchNorm2d(6, momentum=None)), "'1': its momentum is None"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(2, 3)), "'0.weight' has no values yet; run the module once"),
    "divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
    "feature dropout": (
        lambda: after_row(nn.Dropout2d()),
        r"'1' \(operator feature_dropout\): this operator is not supp",
    ),
    "hardshrink": (
        lambda: after_row(nn.Hardshrink()),
        r"'1' \(operator hardshrink\): this operator is not supported; supported are adap",
    ),
    "celu": (lambda: after_row(nn.CELU(-2.0)), r"\(operator celu\): has the alpha -2.0; expected one above 0"),
    "threshold": (
        lambda: after_row(nn.Threshold(0.1, 0.0)),
        r"has the threshold and the value \(0.1, 0.0\); expected 0",
    ),
    "mean of channels and rows": (
        lambda: after_conv(lambda self, x: x.mean((1, 2))),
        r"is over the dimensions \[1, 2\] of 4; expected r",
    ),
    "elu of three numbers": (
        lambda: after_conv(lambda self, x: torch.ops.aten.elu(x, 1.0, 2.0)),
        r"has \{'scale': 2.0, 'input_scale': 1.0\} .*; expected 1 for both",
    ),
    "elu of whole numbers": (
        lambda: after_conv(lambda self, x: torch.where(x.to(torch.int64) > 0, x, 0.7 * torch.expm1(x))),
        r"\(operator gt\): this operator is not supported",
    ),
    "powers": (lambda: after_conv(lambda self, x: x**3), r"\(operator pow\): this operator is not supported"),
    "layer_norm": (lambda: after_row(nn.LayerNorm((6, 12, 12))), "operator layer_norm"),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d(5), r"makes \(5, 5\) of \(12, 12\), windows of several sizes"),
    "control flow": (Branching, "control flow that depends on the images"),
    "softmax of rows": (
        lambda: after_row(nn.Softmax(2), nn.Conv2d(6, 2, 1)),
        "along dimension 2 of 4; expected the chan",
    ),
    "cat of rows": (
        lambda: after_conv(lambda self, x: torch.cat([x, x], 2)),
        "along dimension 2 of 4; expected the chan",
    ),
    "dilated pool": (lambda: nn.MaxPool2d(2, dilation=2), "dilation"),
    "corners": (lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "aligns corners"),
    "fraction": (lambda: nn.Upsample(scale_factor=1.5), "expected whole ones|makes 18x18 of 12x12"),
    "even norm": (lambda: nn.LocalResponseNorm(4), "has the size 4; expected an odd one"),
    "two inputs": (TwoInputs, "forward|missing a required argument|positional argument"),
    "mean of images": (
        lambda: after_conv(lambda self, x: x.mean(0, keepdim=True)),
        "no longer the first axis|dimensions",
    ),
    "images mixed": (lambda: after_conv(lambda self, x: x.view(-1, 6)), "no longer the first axis"),
    "images swapped": (lambda: after_conv(lambda self, x: x.flip(0).tanh()), r"\(operator flip\)"),
    "rows backwards": (
        lambda: after_conv(lambda self, x: self.c(x.flip(2)), c=nn.Conv2d(6, 2, 1)),
        "rearranged",
    ),
    "a logarithm": (lambda: after_row(nn.LogSoftmax(1), nn.Conv2d(6, 2, 1)), "supported only at the end"),
    "one trained number": (
        lambda: after_conv(lambda self, x: x * self.w, w=nn.Parameter(torch.ones(1))),
        "trained shift alone, or one number",
    ),
    "a constant map": (lambda: after_conv(lambda self, x: x + self.w, w=torch.ones(12, 12)), "for every channel"),
    "circular": (lambda: nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), "mode circular; supported: constant"),
    "the input": (nn.Identity, "is the input itself|not computed"),
    "division": (lambda: after_conv(lambda self, x: x / x.sigmoid()), "divides by a map"),
    "noise": (lambda: after_conv(lambda self, x: x * torch.rand(1)), "is random"),
    "view of what changes": (
        lambda: after_conv(
            lambda self, x: self.c(torch.cat([x[:, :3], F.relu_(x[:, 3:]), x], 1)), c=nn.Conv2d(12, 2, 1)
        ),
        "view of what is changed in place",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_over_is_one_line(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ImportRefusedError, match=message) as caught:
        load(make(), Request(input=SHAPE))
    assert "\n" not in str(caught.value)


def test_what_pytorch_prints_of_a_refusal_stays_inside(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportRefusedError, match="control flow"):
        load(Branching(), Request(input=SHAPE))
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_normalised_are_taken_as_computed() -> None:
    module = after_conv(
        lambda self, x: F.linear(F.normalize(x.flatten(1)), F.normalize(self.w)), w=nn.Parameter(torch.ones(4, 864))
    )
    made = load(module, Request(input=SHAPE))
    assert "its weights are computed of w" in made.remarks[0]
    assert float(abs((made.parameters or {})["linear.weight"] - 864**-0.5).max()) < 1e-8


class Everything(nn.Module):
    """Modes, gradients, hooks, statistics and attributes that differ from part to part."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NETWORKS["remembering"]()
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()

    def forward(self, x: Any) -> Any:
        return self.drop(self.bn(self.net(x)))


@pytest.mark.parametrize("input", [SHAPE, None])
def test_a_module_is_left_as_it_was(input: tuple[int, int, int] | None) -> None:
    module = Everything()
    module(torch.rand(2, *SHAPE)).sum().backward()
    module.drop.eval()
    module.net.conv.bias.requires_grad_(False)
    module.net.register_forward_hook(lambda *arguments: None)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    parts = [(part, part.training, dict(part.__dict__), len(part._forward_hooks)) for part in module.modules()]
    gradients = [(p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in module.parameters()]
    random = torch.get_rng_state()
    load(module, Request(input=input))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    for part, training, attributes, hooks in parts:
        assert (part.training, len(part._forward_hooks)) == (training, hooks)
        assert part.__dict__.keys() == attributes.keys()
        assert all(part.__dict__[name] is value for name, value in attributes.items())
    for parameter, required, gradient, values in gradients:
        assert parameter.requires_grad is required
        assert parameter.grad is gradient
        assert gradient is None or torch.equal(gradient, values)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda module: torch.compile(nn.DataParallel(module))]
)
def test_wrappers_are_taken_off(wrap: Any) -> None:
    module = distinct(Functional())
    imported = load(wrap(module), Request(input=SHAPE))
    assert imported.architecture.source == "PyTorch: torch_networks.Functional"
    check_same(module, imported, SHAPE, train=True)


def test_a_module_that_cannot_be_exported_goes_by_its_symbolic_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    export, tried = torch.export.export, []

    def fails_on_modules(module: Any, *arguments: Any, **options: Any) -> Any:
        tried.append(type(module).__name__)
        if not isinstance(module, torch.fx.GraphModule):
            raise RuntimeError("no")
        return export(module, *arguments, **options)

    monkeypatch.setattr(torch.export, "export", fails_on_modules)
    module = distinct(NETWORKS["residual"]())
    imported = load(module, Request(input=SHAPE))
    assert len(tried) == 4
    check_same(module, imported, SHAPE, train=True)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(2 * 24 * 24, 3)), (1, 28, 28)),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), (3, 32, 32)),
        (lambda: after_row(nn.AdaptiveAvgPool2d(1)), (3, 224, 224)),
    ],
)
def test_an_input_that_nothing_says_is_found_and_said(module: Any, expected: tuple[int, int, int]) -> None:
    imported = load(module(), Request())
    assert imported.architecture.input == expected
    assert "was assumed" in imported.remarks[0]


def test_no_input_that_fits_is_one_line() -> None:
    with pytest.raises(ImportRefusedError, match=r"takes none of the images 3x224x224, .*; say which with --input"):
        load(after_row(nn.Flatten(), nn.Linear(7, 2)), Request())


def test_names_are_those_of_the_module() -> None:
    imported = load(NETWORKS["residual"](), Request(input=SHAPE, name="mine"))
    assert imported.architecture.name == "mine"
    names = [path for path in imported.parameters or () if path.endswith("conv1.weight")]
    assert len(names) == 2
    assert "fc.weight" in (imported.parameters or {})


def test_keys_of_a_dict_are_the_outputs_names() -> None:
    imported = load(NETWORKS["dict"](), Request(input=SHAPE))
    assert [path.rpartition(".")[2] for path in outputs(imported.architecture)] == ["low", "high"]


def test_a_network_may_end_at_a_module() -> None:
    module = distinct(NETWORKS["residual"]())
    imported = load(module, Request(input=SHAPE, outputs=("block1",)))
    check_same(nn.Sequential(module.block1), imported, SHAPE, train=True)
    with pytest.raises(ImportRefusedError, match=r"there is no node 'block3' to end in; nodes: block1\.add"):
        load(module, Request(input=SHAPE, outputs=("block3",)))


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(-1)])
def test_a_softmax_at_the_end_is_taken_off_and_said(last: nn.Module) -> None:
    module = distinct(nn.Sequential(nn.Flatten(), nn.Linear(432, 4), last))
    imported = load(module, Request(input=SHAPE))
    assert "softmax" in imported.remarks[0]
    assert "at the end is taken off" in imported.remarks[0]
    check_same(module[:2], imported, SHAPE, train=False)


def test_dropouts_and_statistics_survive() -> None:
    found = layers_of(load(NETWORKS["dropout"](), Request(input=SHAPE)))
    assert [layer.rate for layer in found if isinstance(layer, Dropout)] == [0.4, 0.2]
    found = layers_of(load(NETWORKS["residual"](), Request(input=SHAPE)))
    norms = {(layer.eps, layer.momentum, layer.unbiased) for layer in found if isinstance(layer, BatchNorm)}
    assert norms == {(1e-3, 0.05, True), (1e-5, 0.1, True)}


class Noisy(nn.Module):
    """Stochastic depth: noise in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        x = self.conv(x)
        return x * torch.bernoulli(torch.full((x.shape[0], 1, 1, 1), 0.5)) if self.training else x


REMARKED = {
    "half": (NETWORKS["in half"], "half-precision weights were widened to float32"),
    "noise": (
        Noisy,
        r"in training the module does what is not taken over: 'bernoulli' \(operator bernoulli\): is random",
    ),
    "always dropping": (lambda: after_conv(lambda self, x: F.dropout(x, 0.5)), "drops values in evaluation too"),
    "detached": (
        lambda: after_conv(lambda self, x: self.c(x.detach()), c=nn.Conv2d(6, 2, 1)),
        "the gradient ends here",
    ),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 3))),
        "its weights are computed of",
    ),
}
SPECTRAL = (nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm)


@pytest.mark.parametrize("norm", SPECTRAL)
def test_a_spectral_norm_is_taken_as_computed_in_evaluation(norm: Any) -> None:
    module = nn.Sequential(norm(nn.Conv2d(3, 2, 3)), nn.Flatten(), norm(nn.Linear(200, 4))).eval()
    module(torch.zeros(1, *SHAPE))  # the older one computes its weight where it runs
    imported = load(module, Request(input=SHAPE))
    weights = [array for name, array in (imported.parameters or {}).items() if name.endswith("weight")]
    for mine, part in zip(weights, (module[0], module[2]), strict=True):
        theirs = part.weight.detach().numpy()
        assert np.abs(mine - theirs).max() < 1e-6 * np.abs(theirs).max()
    assert any("its weights are computed of" in remark for remark in imported.remarks)


@pytest.mark.parametrize("name", REMARKED)
def test_what_differs_is_said(name: str) -> None:
    make, message = REMARKED[name]
    imported = load(make(), Request(input=SHAPE))
    assert any(re.search(message, remark) for remark in imported.remarks), imported.remarks


class Cascade(nn.Module):
    """A network of the face detector MTCNN, as facenet-pytorch names its parts: convolutions with PReLU and pool, dense
    layers behind a transposition, and heads."""

    def __init__(self, convs: list[tuple[int, int, int]], dense: tuple[int, int] | None, heads: list[int]) -> None:
        super().__init__()
        channels, self.number = 3, len(convs)
        for place, (width, kernel, pool) in enumerate(convs, 1):
            setattr(self, f"conv{place}", nn.Conv2d(channels, width, kernel))
            setattr(self, f"prelu{place}", nn.PReLU(width))
            setattr(self, f"pool{place}", nn.MaxPool2d(pool, 2, ceil_mode=True) if pool else nn.Identity())
            channels = width
        self.dense = dense is not None
        if dense:
            setattr(self, f"dense{self.number + 1}", nn.Linear(*dense))
            setattr(self, f"prelu{self.number + 1}", nn.PReLU(dense[1]))
            channels = dense[1]
        stem = f"dense{self.number + 2}" if dense else f"conv{self.number + 1}"
        self.heads = [f"{stem}_{place}" for place in range(1, len(heads) + 1)]
        for name, width in zip(self.heads, heads, strict=True):
            setattr(self, name, nn.Linear(channels, width) if dense else nn.Conv2d(channels, width, 1))
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Any) -> Any:
        for place in range(1, self.number + 1):
            x = getattr(self, f"conv{place}")(x)
            x = getattr(self, f"pool{place}")(getattr(self, f"prelu{place}")(x))
        if self.dense:
            x = x.permute(0, 3, 2, 1).contiguous()
            x = getattr(self, f"dense{self.number + 1}")(x.view(x.shape[0], -1))
            x = getattr(self, f"prelu{self.number + 1}")(x)
        first, *others = (getattr(self, name)(x) for name in self.heads)
        return (*others, self.softmax(first))


CASCADE = {
    "pnet": ((3, 12, 12), [(10, 3, 2), (16, 3, 0), (32, 3, 0)], None, [2, 4]),
    "rnet": ((3, 24, 24), [(28, 3, 3), (48, 3, 3), (64, 2, 0)], (576, 128), [2, 4]),
    "onet": ((3, 48, 48), [(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], (1152, 256), [2, 4, 10]),
}


@pytest.mark.parametrize("name", CASCADE)
def test_networks_of_strangers(name: str) -> None:
    file = MODELS / f"{name}.pt"
    if not file.is_file():
        pytest.skip("the folder of strangers' models is not there")
    shape, *table = CASCADE[name]
    module = Cascade(*table)
    module.load_state_dict(torch.load(file, weights_only=True))
    check_same(module, load(module, Request(input=shape, keep_softmax=True)), shape, train=False)
    without = load(module, Request(input=shape))
    assert not any(isinstance(layer, Softmax) for layer in layers_of(without))
    assert len([layer for layer in layers_of(without) if isinstance(layer, (Conv, Dense))]) == len(table[0]) + len(
        table[2]
    ) + bool(table[1])
