"""How much arithmetic a training step is, and what a device promises to do of it per second."""

from triptych.backend.contract import Backend
from triptych.spec import analysis
from triptych.spec.layers import Architecture, Conv, ConvTranspose, Dense

# Dense bf16 products, FLOP/s, by a part of the device's name: the vendor's data sheets (SXM forms).
NOMINAL = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
_PRODUCTS = (Conv, ConvTranspose, Dense)


def of_training(architecture: Architecture) -> int:
    """Floating-point operations of one image's training step, two per multiply-accumulate: forward, the gradient of
    the weights, and that of the input, which the first layer does not need. Auxiliary classifiers count."""
    total = analysis.totals(architecture)
    first = next((info for info in analysis.primitives(architecture) if isinstance(info.layer, _PRODUCTS)), None)
    return 6 * (total.macs + total.auxiliary_macs) - 2 * (first.macs if first else 0)


def of_inference(architecture: Architecture) -> int:
    """Floating-point operations of one image's forward pass in evaluation mode."""
    return 2 * analysis.totals(architecture).macs


def nominal(backend: Backend, device: str) -> float | None:
    """What the device's maker promises in bf16; None for one that is not in the table."""
    described = " ".join(known.reason for known in backend.devices() if known.name.startswith(device))
    return next((rate for name, rate in NOMINAL.items() if name in described), None)
