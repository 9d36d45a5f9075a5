"""Resizes and crops images as a model's `Geometry` describes.

Sizes and offsets are rounded as transformers' PIL image processors round them, so pixels are bit-identical.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from iei.errors import InvalidInput
from iei.models.spec import Geometry

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

_LARGEST_RESIZED = 32_000_000
"""Above this many resized pixels, only those inside the crop are computed. 1×5000 with short side 224 is 250 MP."""

REDUCTION_MARGIN = 3
"""How many times the target's sides a picture keeps when it is reduced by a cheap filter first.

A cheap filter lets fine patterns through, which come back as coarser ones that were not there. The model's own filter
then removes whatever is too fine for the target: the further above it the first step ends, the fewer are left. With 2,
lines of 5 pixels were off by 12 levels of 255 on average, with 3 by one (docs/benchmarks.md).
"""
_SUPPORT = 3
"""Radius of the widest filter (Lanczos) in source pixels, at scale 1."""


def to_pixels(image: Image.Image, geometry: Geometry, *, fast: bool = False) -> Pixels:
    """`image` (RGB) → uint8[H, W, 3], or for `float_resize` float32[H, W, 3] in [0, 255]. (H, W) is `geometry.size`.

    Args:
        image: of mode RGB.
        geometry: how to resize and crop it.
        fast: reduce much larger images by an integer factor before resampling; pixels differ slightly.
    """
    size = geometry.resized_size(*image.size)
    return _computed(image, size, geometry.crop_box(*size), geometry, fast)


def to_multiple(image: Image.Image, geometry: Geometry, stride: int, max_patches: int) -> Pixels:
    """`image` → pixels[H, W, 3] at its own size, rounded up to multiples of `stride`: 250×256 → 256×256, 16×16 patches.

    Args:
        image: of mode RGB.
        geometry: how to resample it.
        stride: pixels between neighbouring patches.
        max_patches: most patches allowed.

    Raises:
        InvalidInput: the image has more than `max_patches` patches.
    """
    columns, rows = (-(-side // stride) for side in image.size)
    if rows * columns > max_patches:
        raise InvalidInput(
            f"{image.width}×{image.height} makes {rows * columns} patches, over the limit of {max_patches} "
            "(IEI_MAX_PATCHES)"
        )
    size = (columns * stride, rows * stride)
    return _computed(image, size, (0, 0, *size), geometry, fast=False)


def _computed(image: Image.Image, size: tuple[int, int], box: Box, geometry: Geometry, fast: bool) -> Pixels:
    gap = REDUCTION_MARGIN if fast else None
    if not geometry.float_resize:
        return np.array(_resampled(image, size, box, geometry.resample, gap))
    bands = (_resampled(band.convert("F"), size, box, geometry.resample, gap) for band in image.split())
    return np.stack([np.asarray(band) for band in bands], axis=-1)


def _resampled(image: Image.Image, size: tuple[int, int], box: Box, resample: int, gap: float | None) -> Image.Image:
    if size[0] * size[1] > _LARGEST_RESIZED:
        return _resampled_part(image, size, box, resample)
    resized = image.resize(size, resample, reducing_gap=gap)
    return resized if box == (0, 0, *size) else resized.crop(box)  # a crop is zero outside the picture


def _resampled_part(image: Image.Image, size: tuple[int, int], box: Box, resample: int) -> Image.Image:
    """The part `box` of the resized image, computed only from the source pixels that it needs."""
    inner = (max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1]))
    (first_x, last_x, from_x, to_x), (first_y, last_y, from_y, to_y) = (
        _span(inner[axis], inner[axis + 2], image.size[axis], size[axis]) for axis in (0, 1)
    )
    # Pillow stores the box as float32, which is exact enough within a window but not across 60 million pixels.
    window = image.crop((first_x, first_y, last_x, last_y))
    part = window.resize((inner[2] - inner[0], inner[3] - inner[1]), resample, box=(from_x, from_y, to_x, to_y))
    return part.crop((box[0] - inner[0], box[1] - inner[1], box[2] - inner[0], box[3] - inner[1]))


def _span(start: int, stop: int, source: int, resized: int) -> tuple[int, int, float, float]:
    """Along one axis: the window (first, last) of source pixels that `start`…`stop` needs, and its place within it."""
    scale = source / resized
    margin = _SUPPORT * max(scale, 1.0) + 1
    first = max(0, math.floor(start * scale - margin))
    last = min(source, math.ceil(stop * scale + margin))
    return first, last, start * scale - first, stop * scale - first
