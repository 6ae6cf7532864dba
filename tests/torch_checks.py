"""An imported network against the PyTorch module that it was: outputs, gradients and statistics in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from array_checks import by_value, close, compare_all
from triptych.importers.steps import Imported
from triptych.reference import network as reference
from triptych.spec.layers import Dropout, outputs, walk


def distinct(module: nn.Module) -> nn.Module:
    """The module with values that are all different, so that arrays can be told by them."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else 0.3 * torch.randn_like(tensor))
    return module


def perturbed(module: nn.Module) -> nn.Module:
    """A large module with its own initialisation, but with biases and statistics that are all different."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5 if "var" in name else tensor + 0.1 * torch.randn_like(tensor)
                )
    return module


def leaves(result: Any) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(result)


def operators_of_torchvision() -> object:
    """What torchvision's compiled part registers, for a torch of another build, as names without kernels; keep it as
    long as they are wanted."""
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


class Masks:
    """Takes the place of torch.nn.functional.dropout, and notes its masks."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __call__(self, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not training or p == 0:
            return x
        mask = torch.rand(x.shape) >= p
        self.kept.append(mask.numpy())
        return x * mask / (1 - p)


def hard_sigmoid(x: Any, inplace: bool = False) -> Any:
    """PyTorch's own takes its derivative 1 / 6 in single precision, in float64 too (seen with 2.13 on a CPU)."""
    return nn.functional.relu6(x + 3) / 6


def check_same(
    module: nn.Module, imported: Imported, shape: tuple[int, int, int], *, train: bool, images: int = 4
) -> None:
    """The module's outputs, gradients and statistics on some images, in float64, against the reference's."""
    module = copy.deepcopy(module).double().train(train)
    x = (torch.rand(images, *shape, dtype=torch.float64) - 0.4).requires_grad_()
    before = {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}
    masks = Masks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "dropout", masks)
        patch.setattr(nn.functional, "hardsigmoid", hard_sigmoid)
        theirs = leaves(module(x))
    architecture, parameters = imported.architecture, imported.parameters or {}
    paths = [path for path, layer in walk(architecture.layers) if isinstance(layer, Dropout)]
    named = dict(zip(paths, masks.kept, strict=True)) if train else {}
    run = reference.forward(architecture, parameters, x.detach().numpy(), train=train, masks=named)
    ends = outputs(architecture)
    assert len(ends) == len(theirs)
    cotangents = tuple(np.random.default_rng(0).normal(size=tuple(end.shape)) for end in theirs)
    for path, their in zip(ends, theirs, strict=True):
        close(run.outputs[path], their, path)
    sum((torch.from_numpy(c / len(c)) * end).sum() for c, end in zip(cotangents, theirs, strict=True)).backward()
    _, gradients = reference.backward(run, cotangents)
    close(gradients["input"], x.grad, "the images' gradient")
    mine = by_value(parameters, {name: gradients[name] for name in parameters if name in gradients})
    wanted = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    compare_all(mine, by_value(before, wanted))
    after = {name: buffer.numpy() for name, buffer in module.named_buffers() if "running" in name}
    kept = {name: run.statistics.get(name, array) for name, array in parameters.items() if "running" in name}
    compare_all(by_value(parameters, kept), by_value(before, after))
