"""Smaller forms of vectors, and how they are written."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from iei.dialects.vectors import encoded
from iei.errors import InvalidInput
from iei.vectors import VectorDtype, quantized

VECTORS = np.random.default_rng(7).normal(size=(5, 64)).astype(np.float32)


@pytest.mark.parametrize(("dtype", "offset"), [("int8", 0), ("uint8", 128)])
def test_bytes_keep_the_angles(dtype: VectorDtype, offset: int) -> None:
    small = quantized(VECTORS, dtype)
    assert small.dtype == dtype
    back = small.astype(np.float32) - offset
    cosines = (back * VECTORS).sum(-1) / np.linalg.norm(back, axis=-1) / np.linalg.norm(VECTORS, axis=-1)
    assert cosines.min() > 0.9995
    assert np.abs(back).max(axis=-1).tolist() == [127] * 5


def test_bits_are_the_signs_the_first_in_the_highest_bit() -> None:
    vector = np.array([0.5, -0.1, 0.0, -2, -1, -1, -1, 3], np.float32)
    assert quantized(vector, "ubinary").tolist() == [0b10100001]
    assert quantized(vector, "binary").tolist() == [0b10100001 - 128]
    assert quantized(vector, "binary").dtype == np.int8
    signs = np.unpackbits(quantized(VECTORS, "ubinary"), axis=-1)
    assert (signs == (VECTORS >= 0)).all()


def test_a_length_that_fills_no_bytes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="12 values"):
        quantized(VECTORS[:, :12], "binary")


def test_zeros_stay_zeros() -> None:
    assert not quantized(np.zeros(8, np.float32), "int8").any()


@pytest.mark.parametrize("dtype", ["float", "float16", "int8", "uint8", "binary", "ubinary"])
def test_base64_has_the_same_numbers(dtype: VectorDtype) -> None:
    small = quantized(VECTORS[0], dtype)
    text = encoded(small, "base64")
    assert isinstance(text, str)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), small.dtype), small)
    assert encoded(small, "float") is small
