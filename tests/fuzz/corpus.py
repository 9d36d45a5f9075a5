"""Small pictures in every format that is decoded: each mode, compression and layout that can be written.

Nothing is downloaded: Pillow writes most of them, and what it can't write (interlaced PNG, tiled TIFF, run lengths in a
BMP) is put together here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from iei.inputs.decode import FORMATS
from tests.pictures import encode, photo

WIDTH, HEIGHT = 24, 16

_VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "JPEG": {
        "": {},
        "progressive": {"progressive": True},
        "optimised": {"optimize": True},
        "4:4:4": {"subsampling": 0},
        "4:2:0": {"subsampling": 2},
        "restarts": {"restart_marker_blocks": 1},
        "rgb inside": {"keep_rgb": True},
        "comment": {"comment": b"a cat"},
    },
    "PNG": {
        "": {},
        "level 0": {"compress_level": 0},
        "profile": {"icc_profile": b"no profile"},
        "dpi": {"dpi": (72, 72)},
    },
    "WEBP": {"": {}, "lossless": {"lossless": True}, "exact": {"lossless": True, "exact": True}},
    "GIF": {"": {}, "plain": {"interlace": 0}, "transparent": {"transparency": 0}},
    "BMP": {"": {}},
    "TIFF": {
        "": {},
        "big": {"big_tiff": True},
        **{
            name: {"compression": name}
            for name in ("tiff_lzw", "zstd", "lzma", "tiff_adobe_deflate", "tiff_deflate", "packbits")
        },
    },
    "AVIF": {"": {}, "4:4:4": {"subsampling": "4:4:4"}, "4:0:0": {"subsampling": "4:0:0"}},
}
"""Format → name of a way to write it → Pillow's options for that."""


@cache
def corpus() -> Mapping[str, bytes]:
    """Sound files by what they are."""
    found: dict[str, bytes] = {}
    for format in FORMATS:
        for mode, image in _modes().items():
            for variant, options in _VARIANTS[format].items():
                file = _written(image, format, options)
                # Pillow writes big-endian BigTIFFs that neither it nor anyone else can read.
                if file and file not in found.values() and not file.startswith(b"MM\0+"):
                    found[f"{format} {mode} {variant}".strip()] = file
    return {**found, **dict(_special())}


def _written(image: Image.Image, format: str, options: Mapping[str, Any]) -> bytes | None:
    """None: Pillow does not write this mode in this way."""
    try:
        return encode(image, format, **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError):
        return None


@cache
def _modes() -> Mapping[str, Image.Image]:
    rgb = photo(WIDTH, HEIGHT)
    grey = rgb.convert("L")
    deep = np.asarray(grey).astype(np.uint16) * 257
    rgba, grey_alpha, palette = rgb.convert("RGBA"), grey.convert("LA"), rgb.quantize(16)
    for image in (rgba, grey_alpha):
        image.putalpha(grey)
    converted = {mode: rgb.convert(mode) for mode in ("1", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "I", "F")}
    return {
        "RGB": rgb,
        "L": grey,
        **converted,
        "LA": grey_alpha,
        "P": palette,
        "PA": palette.convert("PA"),
        "RGBA": rgba,
        "RGBa": rgba.convert("RGBa"),
        "I;16": Image.fromarray(deep),
        "I;16B": Image.frombytes("I;16B", grey.size, deep.astype(">u2").tobytes()),
    }


def _special() -> Iterator[tuple[str, bytes]]:
    """Several frames, metadata, and what Pillow reads but does not write."""
    rgb, grey, palette, rgba = (_modes()[mode] for mode in ("RGB", "L", "P", "RGBA"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        yield f"{format} turned", encode(rgb, format, exif=exif)
    for format, image in (("GIF", palette), ("PNG", rgb), ("WEBP", rgba), ("TIFF", rgb), ("MPO", rgb), ("AVIF", rgb)):
        yield f"{format} frames", encode(image, format, save_all=True, append_images=[image.rotate(90)], duration=50)
    yield "PNG P transparent", encode(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    yield "PNG RGB transparent", encode(rgb, "PNG", transparency=(1, 2, 3))
    yield "PNG L transparent", encode(grey, "PNG", transparency=7)
    for colour, image in ((0, grey), (2, rgb), (3, palette), (6, rgba)):
        yield f"PNG {image.mode} interlaced", _interlaced(image, colour)
    for compression in ("tiff_ccitt", "group3", "group4"):
        yield f"TIFF 1 {compression}", encode(_modes()["1"], "TIFF", compression=compression)
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        yield f"TIFF {mode} jpeg", encode(_modes()[mode], "TIFF", compression="jpeg")
    yield "TIFF tiled", _tiled(rgb)
    yield "BMP run lengths", _run_lengths(palette)


def _interlaced(image: Image.Image, colour: int) -> bytes:
    """A PNG in seven passes (Adam7). https://www.w3.org/TR/png-3/#8Interlace"""
    pixels = np.asarray(image).reshape(HEIGHT, WIDTH, -1)
    starts_and_steps = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = (row for top, left, down, right in starts_and_steps for row in pixels[top::down, left::right])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, colour, 0, 0, 1))]
    if image.mode == "P":
        chunks.append((b"PLTE", bytes(image.getpalette() or ())))
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), (b"IEND", b"")]
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _tiled(image: Image.Image) -> bytes:
    """A TIFF in tiles of 16×16, without compression."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :WIDTH] = np.asarray(image)
    tiles = [pixels[:, left : left + 16].tobytes() for left in (0, 16)]
    depths, places, sizes = 8, 14, 22  # offsets of what does not fit into an entry: after the header
    start = 30
    entries = [
        (256, 4, 1, WIDTH),
        (257, 4, 1, HEIGHT),
        (258, 3, 3, depths),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (322, 4, 1, 16),
        (323, 4, 1, 16),
        (324, 4, 2, places),
        (325, 4, 2, sizes),
    ]
    directory = start + sum(map(len, tiles))
    content = struct.pack("<4sIHHHIIII", b"II*\0", directory, 8, 8, 8, start, start + len(tiles[0]), *map(len, tiles))
    described = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return content + b"".join(tiles) + described


def _run_lengths(image: Image.Image) -> bytes:
    """A BMP whose rows are runs of a length and a colour (BI_RLE8)."""
    rows = np.asarray(image)[::-1]
    content = b"".join(b"".join(bytes((1, colour)) for colour in row) + b"\0\0" for row in rows) + b"\0\1"
    colours = image.getpalette() or []
    palette = b"".join(bytes((*reversed(colours[at : at + 3]), 0)) for at in range(0, 48, 3))
    start = 54 + len(palette)
    header = struct.pack("<2sIHHI", b"BM", start + len(content), 0, 0, start)
    return (
        header + struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(content), 0, 0, 16, 0) + palette + content
    )
