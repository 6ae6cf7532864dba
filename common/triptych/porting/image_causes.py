"""What somebody's preparation of images does otherwise: the values, or the resize, with which it would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.explain import Difference, Finding
from triptych.data.preprocess import InputTransform
from triptych.porting.own_images import SAME, as_pillow, channels_first, stored
from triptych.reference.pixels import network_input
from triptych.utils.arrays import Array, largest

RESIZED = 1e-4  # of the largest value: what float32 makes of a place between two pixels
# What people normalise by.
KNOWN = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "to -1 .. 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "Inception's": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box (area)": Image.Resampling.BOX,
    "Lanczos": Image.Resampling.LANCZOS,
}


def explain(finding: Finding, right: InputTransform | Callable[..., Any], layout: str) -> Difference:
    """What is done otherwise on the images' way to the network."""
    check, observed = finding.check, finding.observed
    if layout:
        return finding.at("input", f"the images come as {layout}, which is not what the network takes")
    shapes = [arrays[check.tensor].shape for arrays in (observed, finding.expected) if check.tensor in arrays]
    if len(shapes) == 2 and shapes[0] != shapes[1] == tuple(shapes[0][axis] for axis in (0, 1, 3, 2)):
        return finding.at("input", "height and width are exchanged")
    if check.problem or not isinstance(right, InputTransform):
        return finding.at("input")
    pixels = stored(finding.run)[check.tensor]
    tries = _wrong_values(pixels, right) if check.tensor == SAME else _wrong_sizes(pixels, right)
    value, budget = observed[check.tensor], check.budget if check.tensor == SAME else RESIZED * check.scale
    text = next((text for text, x in tries if same(x, value, budget)), "")
    text = text or (_fitted(pixels, right, value, budget) if check.tensor == SAME else "")
    return finding.at("input", text, f"it should be: {right.text}")


def _wrong_values(pixels: NDArray[np.uint8], right: InputTransform) -> Iterator[tuple[str, Array]]:
    images, plain = channels_first(pixels), replace(right, mean=(), std=())
    x, normal = network_input(images, plain), network_input(images, right)

    def by(mean: Sequence[float], std: Sequence[float], values: Array = x) -> Array:
        return np.asarray((values - np.reshape(mean or 0.0, (-1, 1, 1))) / np.reshape(std or 1.0, (-1, 1, 1)))

    mean, std, turned = right.mean, right.std, " (BGR for RGB)" * (right.channels == 3)
    yield f"the channels are in reverse order{turned}", network_input(images[:, ::-1], right)
    if right.channels == 3:
        back = network_input(images[:, ::-1], plain)
        yield "channels and numbers are both in reverse order", by(mean[::-1], std[::-1], back)
    yield "the pixels are 0 to 255, not 0 to 1: a factor of 255", by(mean, std, 255 * x)
    yield "nothing is normalised: the pixels are as they are stored, 0 to 255", 255 * x
    yield "the images are not normalised: only divided by 255", x
    yield "the result is 255 times as large", 255 * normal
    yield "the pixels are divided by 255 twice", by(mean, std, x / 255)
    yield "the mean is not subtracted", by((), std)
    yield "it is not divided by the deviation", by(mean, ())
    yield "the images are normalised twice", by(mean, std, normal)
    yield "mean and deviation are in reverse order", by(mean[::-1], std[::-1])
    yield (
        "it is divided by the deviation before the mean is subtracted",
        by((), std) - np.reshape(mean or 0.0, (-1, 1, 1)),
    )
    yield "it is divided by the variance, not the deviation", by(mean, tuple(value**2 for value in std))
    yield "it is divided by the deviation of its own channel", _standardised(x, (2, 3))
    yield "it is normalised by its own mean and deviation, image by image", _standardised(x, (1, 2, 3))
    for name, (other, spread) in KNOWN.items():
        if len(other) == right.channels:
            yield f"it is normalised by other numbers ({name})", by(other, spread)
    yield "the pixels are divided by 256, not 255", by(mean, std, x * 255 / 256)
    yield "the images are mirrored", normal[..., ::-1]
    yield "the images are upside down", normal[..., ::-1, :]
    if right.height == right.width:
        yield "height and width are exchanged", normal.swapaxes(2, 3)


def _standardised(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray((x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True))


def _fitted(pixels: NDArray[np.uint8], right: InputTransform, value: Array, budget: float) -> str:
    """By which factors and sums for each channel the pixels became what they are."""
    x = network_input(channels_first(pixels), replace(right, mean=(), std=()))
    if value.shape != x.shape:
        return ""
    means, deviations = [], []
    for channel in range(x.shape[1]):
        design = np.stack([x[:, channel].ravel(), np.ones(x[:, channel].size)], axis=1)
        (factor, shift), *_ = np.linalg.lstsq(design, value[:, channel].ravel(), rcond=None)
        if (
            largest(design @ (factor, shift) - value[:, channel].ravel()) > budget * max(1.0, largest(value))
            or not factor
        ):
            return ""
        means.append(f"{-shift / factor:.4g}")
        deviations.append(f"{1 / factor:.4g}")
    if scale := _before(means, deviations, right):
        return f"the pixels are {scale:.4g} times as large: divided by {255 / scale:.4g}, not 255"
    return f"it is normalised by other numbers: mean={','.join(means)} std={','.join(deviations)}"


def _before(means: Sequence[str], deviations: Sequence[str], right: InputTransform) -> float:
    """The factor of the pixels with which the right mean and deviation are what was fitted; 0 if there is none."""
    factors = [std / float(seen) for seen, std in zip(deviations, right.std, strict=False)]
    shifts = [mean / float(seen) for seen, mean in zip(means, right.mean, strict=False) if float(seen)]
    every = [*factors, *shifts]
    together = len(factors) == len(shifts) == right.channels and np.allclose(every, factors[0], rtol=2e-3)
    return factors[0] if together else 0.0


def _wrong_sizes(pixels: NDArray[np.uint8], right: InputTransform) -> Iterator[tuple[str, Array]]:
    def after(resized: Array) -> Array:
        return _behind(resized, right)

    size = right.height, right.width
    for name, kind in FILTERS.items():
        yield f"it is resized by another filter: {name}", after(_resized(pixels, size, kind, whole=False))
        rounded = f"it is resized to whole pixel values by the filter {name} (Pillow on 8 bits)"
        yield rounded, after(_resized(pixels, size, kind, whole=True))
    for name, matrix in PLAIN.items():
        rows, columns = (matrix(old, new) for old, new in zip(pixels.shape[1:3], size, strict=True))
        x = np.einsum("ph,qw,nhwc->npqc", rows, columns, pixels.astype(np.float64), optimize=True)
        yield f"it is resized otherwise: {name}", after(x)
        yield f"it is resized otherwise: {name}, to whole pixel values", after(np.rint(x))
    yield "the middle is cut out, it is not resized", after(_middle(pixels, size))
    yield (
        "height and width are exchanged before it is resized",
        network_input(channels_first(pixels.swapaxes(1, 2)), right),
    )
    for larger in (256, size[0] * 256 // 224):
        for whole in (True, False):
            text = f"the shorter side is resized to {larger} and the middle cut out: the shape of things is kept"
            yield text, after(_kept_in_shape(pixels, size, larger, whole))
    text = "the shorter side is resized to the input's and the middle cut out: the shape of things is kept"
    for whole in (True, False):
        yield text, after(_kept_in_shape(pixels, size, max(size), whole))


def _behind(pixels: Array, right: InputTransform) -> Array:
    """What comes behind the resize, of pixels `(N, H, W, C)`, 0 to 255."""
    x = pixels.transpose(0, 3, 1, 2)[:, :: -1 if right.reverse else 1] / 255
    return np.asarray((x - np.reshape(right.mean or 0.0, (-1, 1, 1))) / np.reshape(right.std or 1.0, (-1, 1, 1)))


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int], kind: Any, *, whole: bool) -> Array:
    turned = size[1], size[0]
    if whole:
        images = [np.asarray(as_pillow(image).resize(turned, kind)) for image in pixels]
        return np.stack(images).reshape(len(pixels), *size, -1).astype(np.float64)
    planes = [
        [Image.fromarray(p.astype(np.float32)).resize(turned, kind) for p in channels_first(i[None])[0]] for i in pixels
    ]
    return np.array([[np.asarray(plane) for plane in image] for image in planes]).transpose(0, 2, 3, 1)


def _kept_in_shape(pixels: NDArray[np.uint8], size: tuple[int, int], shorter: int, whole: bool) -> Array:
    height, width = pixels.shape[1:3]
    scaled = (shorter, int(shorter * width / height)) if height <= width else (int(shorter * height / width), shorter)
    return _middle(_resized(pixels, scaled, Image.Resampling.BILINEAR, whole=whole), size)


def _middle(pixels: NDArray[Any], size: tuple[int, int]) -> Array:
    top, left = (round((old - new) / 2) for old, new in zip(pixels.shape[1:3], size, strict=True))
    return np.asarray(pixels[:, max(top, 0) :][:, : size[0]][:, :, max(left, 0) :][:, :, : size[1]], np.float64)


def _matrix(old: int, new: int, centre: Callable[[int], float], weights: Callable[[Array], Array]) -> Array:
    """Rows of weights over the old pixels, those outside counted to the edge."""
    rows = np.zeros((new, old))
    for place in range(new):
        middle = centre(place)
        for near in range(int(np.floor(middle)) - 2, int(np.floor(middle)) + 4):
            rows[place, min(max(near, 0), old - 1)] += float(weights(np.asarray(abs(near - middle))))
    return np.asarray(rows / rows.sum(1, keepdims=True))


def _triangle(distance: Array) -> Array:
    return np.asarray(np.maximum(0.0, 1.0 - distance))


def _cubic(distance: Array, a: float = -0.75) -> Array:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _half(old: int, new: int) -> Callable[[int], float]:
    return lambda place: (place + 0.5) * old / new - 0.5


PLAIN: dict[str, Callable[[int, int], Array]] = {
    "bilinear without antialias (OpenCV's, PyTorch's default)": lambda o, n: _matrix(o, n, _half(o, n), _triangle),
    "bilinear with the corners aligned": lambda o, n: _matrix(
        o, n, lambda place: place * (o - 1) / max(n - 1, 1), _triangle
    ),
    "bilinear from the upper left corner": lambda o, n: _matrix(o, n, lambda place: place * o / n, _triangle),
    "bicubic without antialias": lambda o, n: _matrix(o, n, _half(o, n), _cubic),
    "nearest, from the upper left corner": lambda o, n: np.eye(o)[[int(place * o / n) for place in range(n)]],
}
