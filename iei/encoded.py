"""JPEGs as a worker sends them to an engine that decodes them: in one array, with what the worker has read of them."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from iei.models.spec import Geometry, Modality

MAX_PIXELS = 16_000_000
"""Largest picture that an engine decodes, and the largest that it makes of one before the crop."""
MAX_REDUCTION = 32
"""How much larger than its target a side may be. torch keeps the weights of a resize in memory of the GPU that has room
for those of 47 times (bicubic); beyond that it raises an error."""
RESAMPLED = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that torch has with antialiasing on a GPU → torch's names."""

_HEADER = struct.Struct("<IIB7x")


class Encoded(NamedTuple):
    """A JPEG, with what the worker has read of it."""

    height: int
    """In pixels, as the file has it: before the picture is turned upright."""
    width: int
    orientation: int
    """EXIF's, 1 to 8. The file itself has no metadata."""
    file: npt.NDArray[np.uint8]
    """uint8[N]: baseline, grey or YCbCr, without metadata, ending with its end-of-image marker."""

    def pack(self) -> npt.NDArray[np.uint8]:
        """The array that travels, uint8[M]."""
        array = np.empty(_HEADER.size + len(self.file), np.uint8)
        _HEADER.pack_into(array.data, 0, self.height, self.width, self.orientation)
        array[_HEADER.size :] = self.file
        return array

    @classmethod
    def unpack(cls, array: npt.NDArray[Any]) -> Encoded:
        """Reverses `pack`, without a copy of the file.

        Raises:
            ValueError: it is no such array.
        """
        if not is_encoded("image", array):
            raise ValueError(f"an array {array.dtype}{array.shape} is no JPEG")
        height, width, orientation = _HEADER.unpack_from(array.data)
        return cls(height, width, orientation, array[_HEADER.size :])


def is_encoded(modality: Modality, array: npt.NDArray[Any]) -> bool:
    """Whether an input is a JPEG, and neither pixels nor token ids."""
    return modality == "image" and array.ndim == 1 and array.dtype == np.uint8 and len(array) >= _HEADER.size


def why_not_decoded(geometry: Geometry) -> str | None:
    """Why torch can't make what the geometry says of a JPEG on a GPU; None if it can."""
    if geometry.resize == "none":
        return "its pictures keep their sizes"
    if geometry.resample not in RESAMPLED:
        return f"torch has no filter {geometry.resample} on a GPU"
    return None


def is_decodable(geometry: Geometry, width: int, height: int) -> bool:
    """Whether an engine makes what the geometry says of an upright picture of this size, within its limits."""
    to_width, to_height = geometry.resized_size(width, height)
    return (
        max(width * height, to_width * to_height) <= MAX_PIXELS
        and width <= MAX_REDUCTION * to_width
        and height <= MAX_REDUCTION * to_height
    )
