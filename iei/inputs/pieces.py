"""The pieces that a picture file is made of, limited: what a parser does for each costs more than a pixel.

A photo has some hundred. 32 MB of empty segments, chunks, blocks, runs or strips keep Pillow, which walks them in
Python, busy for up to 16 s, however few pixels there are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from struct import unpack_from

from iei.errors import InvalidInput

MAX_READS = 2**19
"""Most reads of a file. Pillow makes one to three for each piece, and takes 0.5 to 2 µs for each of them."""
MAX_TILES = 2**17
"""Most strips or tiles of a TIFF, at 6 µs each. 64 MP in tiles of 32×32 are 62,500."""
MAX_TAGS = 2**16
"""Most tags of a TIFF. A BigTIFF can say more."""
MAX_REPEATED: Mapping[str, tuple[bytes, int]] = {
    "PNG": (b"iCCP", 8),  # there may be one; Pillow decompresses each to up to 1 MiB
    "JPEG": (b"Exif\0\0", 64),  # of 64 KiB each; Pillow copies all that came before for each
}
"""Format → what comes once in a file or a few times, and how often it may."""


class PictureFile(io.BytesIO):
    """A file in memory that may be read so many times, and no more.

    Args:
        data: the file.

    Raises:
        InvalidInput: by `read`, when a parser has made too many small steps.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        self._left -= 1
        if self._left < 0:
            raise InvalidInput("is made of more small pieces than any photo: save it again with a photo editor")
        return super().read(size)


def check_pieces(format: str, data: bytes) -> None:
    """Checks what a parser does not read one by one.

    Args:
        format: Pillow's name of the format.
        data: the file. What is cut short is left to the parser.

    Raises:
        InvalidInput: it has too many of something.
    """
    if format in MAX_REPEATED:
        mark, limit = MAX_REPEATED[format]
        _limited(data.count(mark), limit, f"blocks of {mark[:4].decode()}")
    if format == "TIFF":
        _check_directory(data)


def _check_directory(data: bytes) -> None:
    """The first directory of a TIFF (TIFF 6.0, section 2; BigTIFF has numbers of 64 bits)."""
    order, is_big = ">" if data[:1] == b"M" else "<", data[2:3] == b"+"
    (at_first, offset), (head, number), (size, entry) = _BIG if is_big else _CLASSIC
    if len(data) < at_first + head:
        return
    (start,) = unpack_from(order + offset, data, at_first)
    if start + head > len(data):
        return
    (tags,) = unpack_from(order + number, data, start)
    _limited(tags, MAX_TAGS, "tags")
    end = min(start + head + tags * size, len(data) - size + 1)
    for position in range(start + head, end, size):
        tag, _, values = unpack_from(order + entry, data, position)
        if tag in _TILES:
            _limited(values, MAX_TILES, "strips or tiles")


_CLASSIC = ((4, "I"), (2, "H"), (12, "HHI"))
_BIG = ((8, "Q"), (8, "Q"), (20, "HHQ"))
"""Where the offset of the first directory is; bytes of its number of entries, and of an entry; each with its form."""
_TILES = (273, 324)
"""The tags StripOffsets and TileOffsets."""


def _limited(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise InvalidInput(f"has {count} {what}, over the limit of {limit}: save it again with a photo editor")
