"""Which JPEGs another decoder than libjpeg may get, and the least that it needs of them.

A decoder on a GPU is a C library, in the process that has the model, that strangers' bytes would reach. nvJPEG has died
of metadata before (https://github.com/NVIDIA/CUDALibrarySamples/issues/116), so it gets none: only the segments that
pixels are made of, each of them checked. The same few kinds are those of which no two decoders make different colours.
Whatever is not one of them, damaged or only unusual, is libjpeg's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_START = b"\xff\xd8"
_JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\x00\x01\x00\x01\x00\x00"
"""Says that three components are YCbCr (JFIF 1.02, page 5)."""
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The first marker that is not within a scan, as restarts (T.81, B.1.1.3) and stuffed zeros are."""
_END = b"\xff\xd9"
_SUBSAMPLED = (b"\x11\x11\x11", b"\x21\x11\x11", b"\x12\x11\x11", b"\x22\x11\x11")
"""Sampling factors: 4:4:4, 4:2:2, 4:4:0 and 4:2:0."""


class Plain(NamedTuple):
    """A JPEG of the plainest kind: baseline, of one scan, grey or YCbCr, complete."""

    height: int
    width: int
    file: bytes
    """Without metadata, and without what follows its end."""


def plain(data: bytes) -> Plain | None:
    """What pixels are made of in the JPEG `data`; None if it is not of the plainest kind."""
    try:
        return _plain(data)
    except (_UnusualError, IndexError, struct.error):
        return None


class _UnusualError(Exception):
    """It is not of the plainest kind."""


def _require(condition: bool) -> None:
    if not condition:
        raise _UnusualError


@dataclass(slots=True)
class _Tables:
    """What has been read of a file. A table that is defined twice is unusual: there could be millions to read."""

    quantization: set[int] = field(default_factory=set)
    huffman: set[int] = field(default_factory=set)
    """Class and place in one byte, as files have them: 0x10 is the first one for AC."""
    size: tuple[int, int] | None = None
    """Height and width, once there is a frame."""
    components: bytes = b""


def _plain(data: bytes) -> Plain:
    _require(data.startswith(_START))
    tables, kept, at = _Tables(), [_START, _JFIF], len(_START)
    marker = 0
    while marker != _SCAN:
        prefix, marker = data[at], data[at + 1]
        _require(prefix == 0xFF)
        if marker == 0xFF:  # any number of them may precede a marker
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        after = at + 2 + length
        _require(length >= 2 and after <= len(data))
        content = data[at + 4 : after]
        if marker in _READ:
            _READ[marker](content, tables)
            kept.append(data[at:after])
        elif marker == _ADOBE and content.startswith(b"Adobe"):
            _require(content[11] == 1)  # YCbCr
        else:
            _require(marker in _METADATA)
        at = after
    end = _AFTER_SCAN.search(data, at)
    if end is None or end.group() != _END or tables.size is None:
        raise _UnusualError
    return Plain(*tables.size, b"".join((*kept, data[at : end.end()])))


def _read_quantization(content: bytes, tables: _Tables) -> None:
    while content:
        _require(content[0] < 4 and len(content) >= 65)  # of 8 bits
        _require(content[0] not in tables.quantization)
        tables.quantization.add(content[0])
        content = content[65:]


def _read_huffman(content: bytes, tables: _Tables) -> None:
    while content:
        counts = content[1:17]
        values = sum(counts)
        _require(content[0] in (0x00, 0x01, 0x10, 0x11) and len(counts) == 16 and len(content) >= 17 + values <= 273)
        _require(content[0] not in tables.huffman)
        # No more codes of each length than the shorter ones leave.
        _require(sum(count << (15 - place) for place, count in enumerate(counts)) <= 1 << 16)
        tables.huffman.add(content[0])
        content = content[17 + values :]


def _read_frame(content: bytes, tables: _Tables) -> None:
    bits, height, width, count = struct.unpack_from(">BHHB", content)
    ids, sampling, quantizations = (content[6 + place :: 3] for place in range(3))
    _require(tables.size is None and bits == 8 and height > 0 and width > 0 and len(content) == 6 + 3 * count)
    _require(sampling == b"\x11" if count == 1 else ids == b"\1\2\3" and sampling in _SUBSAMPLED)
    _require(tables.quantization.issuperset(quantizations))
    tables.size, tables.components = (height, width), ids


def _read_restart(content: bytes, tables: _Tables) -> None:
    _require(len(content) == 2)


def _read_scan(content: bytes, tables: _Tables) -> None:
    count = len(tables.components)
    _require(count > 0 and content[0] == count and len(content) == 4 + 2 * count)
    _require(content[1:-3:2] == tables.components and content[-3:] == b"\x00\x3f\x00")
    for both in content[2:-3:2]:
        _require({both >> 4, 0x10 | both & 0xF} <= tables.huffman)


_SCAN, _ADOBE = 0xDA, 0xEE
_METADATA = (*range(0xE0, 0xF0), 0xFE)
_READ: Mapping[int, Callable[[bytes, _Tables], None]] = {
    0xC0: _read_frame,
    0xC4: _read_huffman,
    _SCAN: _read_scan,
    0xDB: _read_quantization,
    0xDD: _read_restart,
}
"""Marker of a segment that is kept → what checks it (T.81, B.2)."""
