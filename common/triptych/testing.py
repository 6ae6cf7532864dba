"""For a test suite of your own: your network is the one that a spec, a file or another network says it is.

from triptych.testing import assert_conforms

def test_my_vgg_is_vgg11():
    assert_conforms(my_package.vgg11(), "vgg11")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triptych.conformance.locate import Located


def assert_conforms(
    network: Any, expected: Any, *, precision: str = "fp64", seed: int = 0, name: str = "the network", **options: Any
) -> Located:
    """Asserts that `network` computes what `expected` says: every layer that can be seen, outputs in evaluation and
    training mode, and all gradients, with the same weights, in float64 to 1e-12 of each tensor's scale ("fp32": to what
    rounding explains).

    `network`: a `torch.nn.Module`, a Gluon block, a Flax NNX or Linen module, or `(function, parameters)` with a JAX
    function. `expected`: an Architecture, a name of the zoo, a file (a spec's JSON, an MXNet symbol, ONNX, Keras,
    TorchScript), a run folder, `module:name`, or another PyTorch module or Gluon block. Images have the shape that it
    says. `options`: `layout` ("NCHW" or "NHWC"), `mapping` and `ignored` of `triptych.locate`; the others are those of
    `triptych.load` for `expected` (`input`, `classes`, `width_ratio` ...).

    Raises AssertionError that names the first layer that parts, the level, by how much, and the likely cause, and
    TriptychError for what cannot be compared. Returns what was compared, with `not_run`: what was not.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    import triptych
    from triptych.porting import own_network

    own = {key: options.pop(key) for key in ("layout", "mapping", "ignored") if key in options}
    architecture = triptych.load(str(expected) if isinstance(expected, Path) else expected, **options)
    located = own_network.locate_port(network, architecture, name=name, precision=precision, seed=seed, **own)
    if located.difference is not None:
        raise AssertionError(_said(located))
    return located


def _said(located: Located) -> str:
    """The difference in a line or three."""
    difference = located.difference
    assert difference is not None
    where = f"in layer '{difference.layer}'" if difference.layer else "as a whole"
    lines = [
        f"{located.left} is not {located.arch}: they part at {difference.level} {where}, {located.precision}: "
        f"'{difference.check.tensor}' {difference.check.text}"
    ]
    lines += [f"likely cause: {difference.cause}"] if difference.cause else []
    lines += [text for text in (difference.note, *located.notes) if text]
    return "\n".join(lines)
