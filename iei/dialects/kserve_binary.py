"""The binary extension of the Open Inference Protocol: a JSON header, then the contents of tensors, in its order.

An element of a BYTES tensor is its length (u32, little-endian) and that many bytes; a BOOL is one byte, a FP32 four.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from iei.errors import MalformedBody

HEADER_LENGTH = "Inference-Header-Content-Length"


def split_message(body: bytes, header_length: int) -> tuple[bytes, memoryview]:
    """The JSON part and what follows it."""
    if header_length > len(body):
        raise MalformedBody(f"{HEADER_LENGTH} is {header_length}, and the whole body has {len(body)} bytes")
    return body[:header_length], memoryview(body)[header_length:]


def split_tensors(content: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """`content` as one part for each of `sizes`, in bytes."""
    if sum(sizes) != len(content):
        raise MalformedBody(
            f"{len(content)} bytes follow the JSON, and the tensors' binary_data_size make {sum(sizes)} together"
        )
    return [content[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def decode_bytes(content: memoryview, count: int) -> list[bytes]:
    """The `count` elements of a BYTES tensor."""
    elements: list[bytes] = []
    position = 0
    while len(elements) < count and position + 4 <= len(content):
        (length,) = struct.unpack_from("<I", content, position)
        position += 4 + length
        if position > len(content):
            raise MalformedBody(f"element {len(elements)} has {length} bytes, more than the tensor has left")
        elements.append(bytes(content[position - length : position]))
    if len(elements) != count or position != len(content):
        raise MalformedBody(f"the tensor has {len(content)} bytes, and these are not the {count} elements of its shape")
    return elements


def decode_bools(content: memoryview, count: int) -> list[bool]:
    """The `count` elements of a BOOL tensor."""
    if len(content) != count or any(value > 1 for value in content):
        raise MalformedBody(f"the tensor has {len(content)} bytes, and these are not the {count} booleans of its shape")
    return [value == 1 for value in content]


def encode_bytes(elements: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def encode_fp32(values: npt.NDArray[np.float32]) -> bytes:
    """Row-major."""
    return values.astype("<f4", copy=False).tobytes()
