"""JPEGs → pixels as the geometry says, on the device: what `iei.inputs.geometry` does with Pillow, within rounding.

Pillow resamples in two passes and rounds to uint8 after each; torch does so in float32, and it is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from iei.encoded import RESAMPLED, Encoded
from iei.models.spec import Geometry
from iei.runtimes.api import Input

Decode = Callable[[Sequence[npt.NDArray[np.uint8]]], list[Tensor]]
"""Files → pictures as they have them, uint8[3, H, W] on the device, or uint8[1, H, W] of grey ones."""

_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (-1,)),
    3: (False, (-2, -1)),
    4: (False, (-2,)),
    5: (True, ()),
    6: (True, (-1,)),
    7: (True, (-2, -1)),
    8: (True, (-2,)),
}
"""EXIF orientation → whether rows become columns, and which axes are flipped then (Exif 2.32, table 6)."""


class Decoding(NamedTuple):
    """Makes a batch of pixels of a batch of JPEGs."""

    geometry: Geometry
    """One that `iei.encoded.why_not_decoded` says nothing against."""
    decode: Decode
    software: str
    """Name and version of what decodes."""

    def __call__(self, batch: Sequence[Input]) -> Tensor:
        """Decodes, turns upright, resizes and crops.

        Args:
            batch: JPEGs (`iei.encoded`).

        Returns:
            uint8[B, H, W, 3] (float32 where the geometry has `float_resize`), on the device.

        Raises:
            ValueError: a picture has not the size that its header says.
            RuntimeError: a file can't be decoded.
        """
        jpegs = [Encoded.unpack(each) for each in batch]
        pictures = self.decode([jpeg.file for jpeg in jpegs])
        return torch.stack([self._pixels(*each) for each in zip(jpegs, pictures, strict=True)])

    def _pixels(self, jpeg: Encoded, picture: Tensor) -> Tensor:
        if picture.shape[1:] != (jpeg.height, jpeg.width):
            raise ValueError(f"a JPEG of {jpeg.width}×{jpeg.height} was decoded to {tuple(picture.shape)}")
        upright = _turned(picture, jpeg.orientation)
        width, height = self.geometry.resized_size(upright.shape[2], upright.shape[1])
        values = functional.interpolate(
            upright[None].to(torch.float32),
            (height, width),
            mode=RESAMPLED[self.geometry.resample],
            align_corners=False,
            antialias=True,
        )
        left, top, right, bottom = self.geometry.crop_box(width, height)
        values = functional.pad(values[0], (-left, right - width, -top, bottom - height))  # crops, too
        if not self.geometry.float_resize:
            values = values.round_().clamp_(0, 255).to(torch.uint8)
        return values.expand(3, -1, -1).permute(1, 2, 0)


def _turned(picture: Tensor, orientation: int) -> Tensor:
    """Turns [C, H, W] upright."""
    is_turned, flipped = _TURNS.get(orientation, (False, ()))
    return (picture.transpose(1, 2) if is_turned else picture).flip(flipped)
