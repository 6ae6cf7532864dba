"""Ports whose activation is another one, or has another number: the layer and the cause are named."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.numpy

from triptych.backend import registry
from triptych.backend.contract import PortAdapter
from triptych.backend.execution import exact
from triptych.conformance.locate import Located
from triptych.emitting.emit import dialect_of, emit
from triptych.porting.own_network import Own, compare_with
from triptych.spec.layers import (
    ELU,
    GELU,
    SELU,
    Architecture,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Initializer,
    Layer,
    Mish,
    ReLU,
    Softplus,
    Softsign,
)
from triptych.utils.modules import run_file
from triptych.weights import initializers

HAND = "nn.HybridLambda(lambda F, x: {})"
TANH_GELU = HAND.format("x * (F.tanh((x + x * x * x * 0.044715) * 0.7978845608028654) * 0.5 + 0.5)")
EXACT_GELU = HAND.format("x * (F.erf(x * 0.7071067811865476) * 0.5 + 0.5)")
ELU_OF_SELU = HAND.format("F.where(x > 0, x, F.expm1(F.minimum(x, 0)) * 1.6732632423543772)")
ALPHA = "alpha is 1, not 0.5"
# The right activation, the cause that is to be named, and what stands in the source of each backend, right and wrong.
FAULTS: dict[str, tuple[Layer, str, dict[str, tuple[str, str]]]] = {
    "alpha": (
        ELU("act", 0.5),
        ALPHA,
        {
            "torch": ("nn.ELU(0.5)", "nn.ELU()"),
            "mxnet": (" ELU(0.5)", " nn.ELU(1.0)"),
            "jax": ("partial(nnx.elu, alpha=0.5)", "nnx.elu"),
        },
    ),
    "scale": (
        SELU("act"),
        "the scale is missing: ELU with SELU's alpha",
        {
            "torch": ("nn.SELU()", "nn.ELU(1.6732632423543772)"),
            "mxnet": (" SELU()", f" {ELU_OF_SELU}"),
            "jax": ("nnx.selu", "partial(nnx.elu, alpha=1.6732632423543772)"),
        },
    ),
    "tanh form": (
        GELU("act", approximate=False),
        "its tanh form is applied, not erf",
        {
            "torch": ("nn.GELU()", 'nn.GELU("tanh")'),
            "mxnet": (" GELU()", f" {TANH_GELU}"),
            "jax": ("partial(nnx.gelu, approximate=False)", "nnx.gelu"),
        },
    ),
    "exact form": (
        GELU("act", approximate=True),
        "it is computed by erf, not in its tanh form",
        {
            "torch": ('nn.GELU(approximate="tanh")', "nn.GELU()"),
            "mxnet": (" TanhGELU()", f" {EXACT_GELU}"),
            "jax": ("nnx.gelu", "partial(nnx.gelu, approximate=False)"),
        },
    ),
    "softplus for relu": (
        ReLU("act"),
        "softplus is applied",
        {
            "torch": ("nn.ReLU()", "nn.Softplus()"),
            "mxnet": ('nn.Activation("relu")', 'nn.Activation("softrelu")'),
            "jax": ("nnx.relu", "nnx.softplus"),
        },
    ),
    "relu for softplus": (
        Softplus("act"),
        "a ReLU is applied",
        {
            "torch": ("nn.Softplus(threshold=40.0)", "nn.ReLU()"),
            "mxnet": (" Softplus(threshold=40.0)", ' nn.Activation("relu")'),
            "jax": ("nnx.softplus", "nnx.relu"),
        },
    ),
    "tanh for softsign": (
        Softsign("act"),
        "tanh is applied",
        {
            "torch": ("nn.Softsign()", "nn.Tanh()"),
            "mxnet": ('nn.Activation("softsign")', 'nn.Activation("tanh")'),
            "jax": ("nnx.soft_sign", "nnx.tanh"),
        },
    ),
    "silu for mish": (
        Mish("act"),
        "SiLU is applied",
        {
            "torch": ("nn.Mish()", "nn.SiLU()"),
            "mxnet": (" Mish()", " nn.Swish()"),
            "jax": ("jax.nn.mish", "nnx.silu"),
        },
    ),
}


def network(layer: Layer) -> Architecture:
    layers = (Conv("conv", 6, (3, 3), padding=(1, 1)), layer, Conv("more", 6, (3, 3)), GlobalAvgPool("mean"))
    ends = (Flatten("flatten"), Dense("dense", 4))
    return Architecture("net", (3, 9, 10), 4, (*layers, *ends), Initializer("kaiming_normal"))


def located(architecture: Architecture, backend: str, source: str, folder: Path) -> Located:
    adapter = cast(PortAdapter, importlib.import_module(f"{registry.BACKENDS[backend].package}.port"))
    framework, layout = registry.load(backend), "NHWC" if dialect_of(backend).channels_last else "NCHW"
    state = emit(architecture, backend).state(initializers.draw(architecture, 0))
    weights = {name: np.ascontiguousarray(value) for name, value in state.items()}
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(weights))
    (folder / "net.py").write_text(source)
    with framework.precise():
        made: Any = run_file(folder / "net.py", "net").load(str(folder / "model.safetensors"))
        port = Own("net.py", lambda count: adapter.Port(made, layout, exact("fp64"), count), framework, layout)
        return compare_with(port, architecture).located


@pytest.mark.parametrize("backend", list(registry.BACKENDS))
@pytest.mark.parametrize("fault", FAULTS)
def test_another_activation_is_named(fault: str, backend: str, tmp_path: Path) -> None:
    if backend not in registry.installed():
        pytest.skip(f"{backend} is not installed")
    layer, cause, sources = FAULTS[fault]
    architecture = network(layer)
    right, (old, new) = emit(architecture, backend).source, sources[backend]
    assert right.count(old) == 1, right
    assert located(architecture, backend, right, tmp_path).difference is None
    difference = located(architecture, backend, right.replace(old, new), tmp_path).difference
    assert difference is not None
    assert (difference.layer, difference.level, difference.cause) == ("act", "forward eval", cause)
