from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iei.encoded import MAX_PIXELS, MAX_REDUCTION, Encoded, is_decodable, is_encoded, why_not_decoded
from iei.models.spec import Geometry

SQUARE = Geometry("exact", 224, 224, resample=3)
SHORT = Geometry("short_side", 256, 256, resample=2, crop=(224, 224))


def test_what_was_packed_is_unpacked() -> None:
    file = np.arange(200, dtype=np.uint8)
    array = Encoded(375, 500, 6, file).pack()
    assert is_encoded("image", array)
    height, width, orientation, unpacked = Encoded.unpack(array)
    assert (height, width, orientation) == (375, 500, 6)
    np.testing.assert_array_equal(unpacked, file)
    assert array.flags.writeable  # or torch warns of it


@pytest.mark.parametrize(
    "array", [np.zeros(15, np.uint8), np.zeros(100, np.float32), np.zeros((8, 8, 3), np.uint8)], ids=str
)
def test_what_is_no_jpeg_is_refused(array: np.ndarray[Any, Any]) -> None:
    assert not is_encoded("image", array)
    with pytest.raises(ValueError, match="is no JPEG"):
        Encoded.unpack(array)


def test_neither_pixels_nor_token_ids_are_encoded() -> None:
    assert not is_encoded("image", np.zeros((8, 8, 3), np.uint8))
    assert not is_encoded("text", np.zeros(8, np.int32))


@pytest.mark.parametrize(
    ("geometry", "width", "height", "decodable"),
    [
        (SQUARE, 500, 375, True),
        (SQUARE, 1, 1, True),
        (SQUARE, 4000, 4000, True),
        (SQUARE, 4001, 4000, False),  # too many pixels
        (SQUARE, 224 * MAX_REDUCTION, 100, True),
        (SQUARE, 224 * MAX_REDUCTION + 1, 100, False),  # too much smaller
        (SQUARE, 100, 224 * MAX_REDUCTION + 1, False),
        (SHORT, 256, 256 * 240, True),
        (SHORT, 1, MAX_PIXELS // 256**2, True),
        (SHORT, 1, MAX_PIXELS // 256**2 + 1, False),  # too many pixels before the crop
    ],
)
def test_limits(geometry: Geometry, width: int, height: int, decodable: bool) -> None:
    assert is_decodable(geometry, width, height) is decodable


def test_geometries() -> None:
    assert why_not_decoded(SQUARE) is None
    assert why_not_decoded(Geometry("none", 224, 224, resample=3)) == "its pictures keep their sizes"
    assert why_not_decoded(Geometry("exact", 224, 224, resample=1)) == "torch has no filter 1 on a GPU"
