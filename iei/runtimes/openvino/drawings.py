"""Pictures that are drawn: what int8 is fitted to, and compared on, where nobody names better ones.

Flat shapes, gradients, stripes and noise of all scales, mixed at random, so that activations take the range that photos
give them. The same pictures every time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Pixels = npt.NDArray[np.uint8]


def drawings(count: int, size: tuple[int, int], seed: int) -> Iterator[Image.Image]:
    """Yields `count` different pictures of `size` (width, height)."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _shapes(rng, Image.fromarray(_background(rng, size)))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Noise over a gradient, with stripes in a third of them."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width] / max(size)
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * x + np.sin(angle) * y)[..., None]
    values = rng.uniform(0, 255, 3) * (1 - along) + rng.uniform(0, 255, 3) * along
    if rng.random() < 1 / 3:
        values += rng.uniform(20, 90) * np.sin(2 * np.pi * rng.uniform(2, 40) * along)
    for cells in (4, 16, 64):
        noise = rng.normal(0, 255, (cells, cells, 3)).clip(-128, 127) + 128
        layer = Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        values += rng.uniform(0, 0.4) * (np.asarray(layer, np.float64) - 128)
    pixels: Pixels = values.clip(0, 255).astype(np.uint8)
    return pixels


def _shapes(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Draws up to a dozen shapes, and blurs a quarter of the pictures."""
    width, height = picture.size
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 12)):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        points = [(float(x * width), float(y * height)) for x, y in rng.random((int(rng.integers(3, 7)), 2))]
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(*points[:2], strict=True))
        match int(rng.integers(3)):
            case 0:
                draw.ellipse((left, top, right, bottom), fill=colour)
            case 1:
                draw.polygon(points, fill=colour)
            case _:
                draw.line(points, fill=colour, width=int(rng.integers(1, 9)))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4))) if rng.random() < 1 / 4 else picture
