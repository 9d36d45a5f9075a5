"""The binary tensor extension of the Open Inference Protocol: a JSON header, then the tensors in the same order.

An element of a BYTES tensor is its length (u32, little-endian) and that many bytes; a BOOL is one byte, an FP32 four.
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
    """The JSON header and the bytes after it.

    Args:
        body: the whole message.
        header_length: length of the header in bytes.

    Raises:
        MalformedBody: `body` is shorter than the header.
    """
    if header_length > len(body):
        raise MalformedBody(f"{HEADER_LENGTH} is {header_length}, but the whole body has only {len(body)} bytes")
    return body[:header_length], memoryview(body)[header_length:]


def split_tensors(content: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Splits `content` into tensors.

    Args:
        content: the bytes after the JSON header.
        sizes: bytes of each tensor, in order.

    Raises:
        MalformedBody: the sizes don't add up to the length of `content`.
    """
    if sum(sizes) != len(content):
        raise MalformedBody(
            f"{len(content)} bytes follow the JSON, but the tensors' binary_data_size add up to {sum(sizes)}"
        )
    return [content[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def decode_bytes(content: memoryview, count: int) -> list[bytes]:
    """The elements of a BYTES tensor.

    Raises:
        MalformedBody: `content` does not consist of exactly `count` elements.
    """
    elements: list[bytes] = []
    position = 0
    while len(elements) < count and position + 4 <= len(content):
        (length,) = struct.unpack_from("<I", content, position)
        position += 4 + length
        if position > len(content):
            raise MalformedBody(f"element {len(elements)} has {length} bytes, more than remain in the tensor")
        elements.append(bytes(content[position - length : position]))
    if len(elements) != count or position != len(content):
        raise MalformedBody(f"the tensor has {len(content)} bytes, which are not the {count} elements of its shape")
    return elements


def decode_bools(content: memoryview, count: int) -> list[bool]:
    """The elements of a BOOL tensor.

    Raises:
        MalformedBody: `content` does not consist of exactly `count` bytes, each 0 or 1.
    """
    if len(content) != count or any(value > 1 for value in content):
        raise MalformedBody(f"the tensor has {len(content)} bytes, which are not the {count} booleans of its shape")
    return [value == 1 for value in content]


def encode_bytes(elements: Iterable[bytes]) -> bytes:
    """The content of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def encode_fp32(values: npt.NDArray[np.float32]) -> bytes:
    """The content of an FP32 tensor: little-endian, row-major."""
    return values.astype("<f4", copy=False).tobytes()
