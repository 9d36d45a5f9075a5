"""A picture decoded and kept."""

from __future__ import annotations

from PIL import Image

from iei.inputs.decode import DecodeLimits, decoded


def decode_image(data: bytes, limits: DecodeLimits, *, target: tuple[int, int] | None = None) -> Image.Image:
    """What `decoded` gives, for tests that look at it afterwards."""
    with decoded(data, limits, target=target) as image:
        return image
