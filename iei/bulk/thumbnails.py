"""Small JPEGs of pictures, to look at beside their vectors."""

from __future__ import annotations

import io

from iei.errors import InvalidInput
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, decoded
from iei.settings import InputSettings

QUALITY = 85


class Thumbnails:
    """Makes them.

    Args:
        side: of the longer side, in pixels. Smaller pictures keep their size.
        settings: limits on the pictures.
    """

    def __init__(self, side: int, settings: InputSettings) -> None:
        self._side = side
        self._limits = DecodeLimits(
            max_pixels=settings.max_image_pixels,
            max_side=settings.max_image_side,
            budget=PixelBudget(settings.max_decoding_pixels),
            fast=True,
        )

    def of(self, data: bytes) -> bytes | None:
        """The thumbnail of an encoded picture, which is decoded once more, fast; None if that fails. In a thread."""
        file = io.BytesIO()
        try:
            with decoded(data, self._limits, target=(self._side, self._side)) as image:
                image.thumbnail((self._side, self._side))
                image.save(file, "JPEG", quality=QUALITY)
        except InvalidInput:
            return None
        return file.getvalue()
