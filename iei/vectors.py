"""Data types of vectors: float32 as it was computed, or smaller forms of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from iei.errors import InvalidInput
from iei.requests import Vectors

VectorDtype = Literal["float", "float16", "int8", "uint8", "binary", "ubinary"]
"""Data types of vectors by the names that hosted embedding services use. `float` is float32."""

Quantized = npt.NDArray[Any]
"""An array of one of the types of `VectorDtype`. The packed ones have an eighth of the values in their last axis."""


def quantized(vectors: Vectors, dtype: VectorDtype) -> Quantized:
    """`vectors` in a smaller data type.

    * `int8`: each vector scaled so that its largest magnitude is 127, then rounded. Cosines survive; lengths don't. No
      service publishes the calibration of its own int8, so these can't be mixed with vectors of theirs.
    * `uint8`: `int8` plus 128.
    * `ubinary`: one bit per value, 1 where it is not negative; eight to a byte, the first in the highest bit.
    * `binary`: `ubinary` minus 128, as int8.

    Args:
        vectors: float32[…, dim], finite.
        dtype: the type wanted.

    Raises:
        InvalidInput: a packed type is wanted, and the length of the vectors is not a multiple of 8.
    """
    return _QUANTIZED[dtype](vectors)


def _int8(vectors: Vectors) -> Quantized:
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    levels: Quantized = np.rint(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8)
    return levels


def _ubinary(vectors: Vectors) -> Quantized:
    if vectors.shape[-1] % 8:
        raise InvalidInput(
            f"vectors of {vectors.shape[-1]} values can't be packed into bits: their length must be a multiple of 8"
        )
    return np.packbits(vectors >= 0, axis=-1)


_QUANTIZED: Mapping[VectorDtype, Callable[[Vectors], Quantized]] = {
    "float": np.asarray,
    "float16": lambda vectors: vectors.astype(np.float16),
    "int8": _int8,
    "uint8": lambda vectors: (_int8(vectors).astype(np.int16) + 128).astype(np.uint8),
    "binary": lambda vectors: (_ubinary(vectors).astype(np.int16) - 128).astype(np.int8),
    "ubinary": _ubinary,
}
