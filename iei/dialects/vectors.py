"""Encodings in which vectors are sent."""

from __future__ import annotations

from typing import Literal

import pybase64

from iei.vectors import Quantized

Encoding = Literal["float", "base64"]
"""`float`: a JSON list of numbers. `base64`: base64 of the little-endian numbers."""


def encoded(vectors: Quantized, encoding: Encoding) -> Quantized | str:
    """`vectors` as a response has them: the array itself, which becomes a JSON list, or base64."""
    if encoding == "float":
        return vectors
    return pybase64.b64encode_as_string(vectors.astype(vectors.dtype.newbyteorder("<"), copy=False).tobytes())
