"""Picture files that are made to be expensive: small ones that say they are large, and large ones of tiny pieces."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from tests.pictures import encode, photo


def png_of(
    width: int,
    height: int,
    content: bytes,
    *,
    interlaced: bool = False,
    idat: int = 2**20,
    before: bytes = b"",
    bits: int = 8,
    colour: int = 0,
) -> bytes:
    """A PNG, by default a grey one of 8 bits a pixel.

    Args:
        width: as the header says.
        height: as the header says.
        content: the compressed rows.
        interlaced: whether in the seven passes of Adam7.
        idat: bytes of each IDAT chunk.
        before: chunks between header and rows.
        bits: of a channel.
        colour: type of colour; 6 is RGBA.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced)))
    rows = b"".join(png_chunk(b"IDAT", content[at : at + idat]) for at in range(0, len(content), idat))
    return b"\x89PNG\r\n\x1a\n" + header + before + rows + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bmp_of(width: int, height: int, content: bytes, *, bits: int = 8, compression: int = 0) -> bytes:
    """A BMP with a palette. `compression` 1: run-length encoded."""
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    offset = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(content), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", offset + len(content), 0, 0, offset) + info + palette + content


def tiff_of(
    width: int,
    height: int,
    strips: list[bytes],
    *,
    compression: int = 1,
    rows: int | None = None,
    tile: int | None = None,
    directories: int = 1,
    bits: int = 8,
    samples: int = 1,
) -> bytes:
    """A TIFF, by default a grey one of 8 bits a pixel.

    Args:
        width: as the directory says.
        height: as the directory says.
        strips: contents of the strips, or of the tiles.
        compression: 1 none, 5 LZW, 8 deflate, 32773 PackBits.
        rows: of a strip; all by default.
        tile: side of the tiles, instead of strips.
        directories: how many of them, one after the other.
        bits: of a channel.
        samples: channels; 4 are RGBA.
    """
    offsets, position = [], 8
    for strip in strips:
        offsets.append(position)
        position += len(strip)
    place_of_offsets, place_of_counts = position, position + 4 * len(strips)
    directory = place_of_counts + 4 * len(strips)

    def where(values: list[int], place: int) -> int:
        return values[0] if len(values) == 1 else place

    counts = [len(strip) for strip in strips]
    kinds = (324, 325) if tile else (273, 279)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, compression),
        (262, 3, 1, 1 if samples == 1 else 2),
        (277, 3, 1, samples),
        *([(338, 3, 1, 2)] if samples == 4 else []),
        *([(322, 4, 1, tile), (323, 4, 1, tile)] if tile else [(278, 4, 1, rows or height)]),
        (kinds[0], 4, len(strips), where(offsets, place_of_offsets)),
        (kinds[1], 4, len(strips), where(counts, place_of_counts)),
    ]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    chain = b"".join(
        body + struct.pack("<I", directory + (at + 1) * (len(body) + 4) if at + 1 < directories else 0)
        for at in range(directories)
    )
    arrays = struct.pack(f"<{len(strips)}I", *offsets) + struct.pack(f"<{len(strips)}I", *counts)
    return struct.pack("<2sHI", b"II", 42, directory) + b"".join(strips) + arrays + chain


def gif_of(
    width: int, height: int, codes: bytes, *, frame: tuple[int, int] | None = None, frames: int = 1, before: bytes = b""
) -> bytes:
    """A GIF of two greys whose frames all have the LZW data `codes`, for codes of 2 bits at first."""
    across, down = frame or (width, height)
    blocks = b"".join(bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255))
    one = struct.pack("<BHHHHBB", 0x2C, 0, 0, across, down, 0, 2) + blocks + b"\0"
    return (
        struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80, 0, 0)
        + bytes((0, 0, 0, 255, 255, 255))
        + before
        + one * frames
        + b";"
    )


def jpeg_with(data: bytes, segment: bytes, times: int) -> bytes:
    """A JPEG with a segment many times before its first own one."""
    return data[:2] + segment * times + data[2:]


def noise(side: int) -> Image.Image:
    """Random pixels: what no format can pack."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def bomb(nulls: int) -> bytes:
    """So many nulls, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    piece = bytes(2**20)
    parts = [packer.compress(piece) for _ in range(nulls // 2**20)]
    return b"".join([*parts, packer.compress(bytes(nulls % 2**20)), packer.flush()])


def animated(format: str, frames: int, side: int) -> bytes:
    """A picture of many frames."""
    grey = Image.new("RGB", (side, side))
    more = [Image.new("RGB", (side, side), (at % 256, at // 256 % 256, 0)) for at in range(frames)]
    return encode(grey, format, save_all=True, append_images=more)


def photos(megapixels: float) -> Mapping[str, Callable[[], bytes]]:
    """The yardstick: photos of the largest size that is allowed."""
    side = int((megapixels * 1e6) ** 0.5)
    return {
        "photo, JPEG": lambda: encode(photo(side, side), "JPEG", quality=90),
        "photo, progressive JPEG": lambda: encode(photo(side, side), "JPEG", quality=90, progressive=True),
        "photo, PNG": lambda: encode(photo(side, side), "PNG", compress_level=1),
        "photo, WebP": lambda: encode(photo(side, side), "WEBP", quality=80, method=0),
        "photo, TIFF with LZW": lambda: encode(photo(side, side), "TIFF", compression="tiff_lzw"),
    }


def hostile(megapixels: float, max_bytes: int) -> Mapping[str, Callable[[], bytes]]:
    """What is expensive in each format, in files of at most so many pixels and bytes."""
    pixels = int(megapixels * 1e6)
    side = int(pixels**0.5)
    line = pixels // 65_000
    return {
        "PNG 1×64 M": lambda: png_of(1, pixels, zlib.compress(b"")),
        "PNG 1×64 M, whole": lambda: png_of(1, pixels, bomb(2 * pixels)),
        "PNG 64 M×1, whole": lambda: png_of(pixels, 1, bomb(pixels + 1)),
        "PNG narrow, whole": lambda: png_of(line, 65_000, bomb((line + 1) * 65_000)),
        "PNG interlaced": lambda: png_of(side, side, bomb(2 * pixels), interlaced=True),
        "PNG interlaced 1×64 M": lambda: png_of(1, pixels, bomb(2 * pixels), interlaced=True),
        "PNG, IDAT of 1 byte": lambda: png_of(
            side, side, zlib.compress(bytes((side + 1) * side), 0)[: max_bytes // 14], idat=1
        ),
        "PNG, a million empty chunks": lambda: png_of(
            9, 9, bomb(90), before=png_chunk(b"abCd", b"") * (max_bytes // 13)
        ),
        "PNG, a million texts": lambda: png_of(9, 9, bomb(90), before=png_chunk(b"tEXt", b"a\0b") * (max_bytes // 16)),
        "PNG, text bombs": lambda: png_of(9, 9, bomb(90), before=png_chunk(b"zTXt", b"a\0\0" + bomb(2**20 - 1)) * 64),
        "PNG, profile bombs": lambda: png_of(
            9, 9, bomb(90), before=png_chunk(b"iCCP", b"a\0\0" + bomb(2**20 - 1)) * 20_000
        ),
        "APNG of many frames": lambda: animated("PNG", 2000, 64),
        "BMP 1×64 M": lambda: bmp_of(1, pixels, b""),
        "BMP 1×64 M, whole": lambda: bmp_of(1, max_bytes // 4 - 1000, bytes(max_bytes - 4000)),
        "BMP 1-bit": lambda: bmp_of(side, side, bytes(side * side // 8 + 8 * side), bits=1),
        "BMP RLE of 4 kB": lambda: bmp_of(side, side, b"\xff\1" * 1500, compression=1),
        "BMP RLE, runs": lambda: bmp_of(side, side, b"\1\1" * min(pixels, max_bytes // 2 - 1000), compression=1),
        "BMP RLE, ends of lines": lambda: bmp_of(side, side, (b"\0\0") * (max_bytes // 2 - 1000), compression=1),
        "BMP RLE, deltas": lambda: bmp_of(side, side, b"\0\2\0\0" * (max_bytes // 4 - 1000), compression=1),
        "BMP RLE, long deltas": lambda: bmp_of(side, side, b"\0\2\xff\xff" * 1000, compression=1),
        "GIF, frames": lambda: gif_of(side, side, b"\4", frame=(1, 1), frames=max_bytes // 16),
        "GIF, one pixel": lambda: gif_of(side, side, b"\x44\1", frame=(1, 1)),
        "GIF, extensions": lambda: gif_of(9, 9, b"\x44\1", before=b"!\xf9\0\0" * (max_bytes // 5)),
        "GIF, comment": lambda: gif_of(9, 9, b"\x44\1", before=b"!\xfe" + b"\1a" * (max_bytes // 3) + b"\0"),
        "GIF 1×64 k": lambda: gif_of(1, 65_535, b"\4" * 100),
        "GIF, clear codes": lambda: gif_of(side, side, bytes([0x24] * (max_bytes - max_bytes // 200))),
        "TIFF 1×64 M": lambda: tiff_of(1, pixels, [b"a"]),
        "TIFF, strips of a row": lambda: tiff_of(1, max_bytes // 9 - 100, [b"a"] * (max_bytes // 9 - 100), rows=1),
        "TIFF, strips of a row, 64 k": lambda: tiff_of(line, 65_000, [b"a" * 100] * 65_000, rows=1),
        "TIFF, strips of a row, deflate": lambda: tiff_of(
            line, 65_000, [zlib.compress(bytes(line))] * 65_000, rows=1, compression=8
        ),
        "TIFF, tiles of 16, deflate": lambda: tiff_of(
            side, side, [zlib.compress(bytes(256))] * (-(-side // 16)) ** 2, tile=16, compression=8
        ),
        "TIFF, tiles of 16, raw": lambda: tiff_of(5000, 5000, [bytes(256)] * 313**2, tile=16),
        "TIFF, one tile of 65,536": lambda: tiff_of(
            side, side, [bomb(65_536 * 65_536 // 8)], tile=65_536, compression=8
        ),
        "TIFF, deflate": lambda: tiff_of(side, side, [bomb(pixels)], compression=8),
        "TIFF, PackBits": lambda: tiff_of(side, side, [b"\0a" * (max_bytes // 2 - 1000)], compression=32773),
        "TIFF, tiles of a pixel": lambda: tiff_of(2000, 1000, [b"a"] * 2_000_000, tile=1),
        "TIFF, 16-bit RGBA": lambda: tiff_of(side, side, [bomb(8 * pixels)], compression=8, bits=16, samples=4),
        "PNG, 16-bit RGBA, interlaced": lambda: png_of(
            side, side, bomb(9 * pixels), interlaced=True, bits=16, colour=6
        ),
        "PNG, 16-bit RGBA": lambda: png_of(side, side, bomb(8 * pixels + side), bits=16, colour=6),
        "TIFF, directories": lambda: tiff_of(9, 9, [bytes(81)], directories=max_bytes // 120),
        "WebP, frames": lambda: animated("WEBP", 2000, 64),
        "WebP, noise": lambda: encode(noise(3000), "WEBP", lossless=True, quality=0, method=0),
        "WebP 16,383×3,900": lambda: encode(Image.new("RGB", (16_383, pixels // 16_383)), "WEBP"),
        "AVIF, black": lambda: encode(Image.new("RGB", (side, side)), "AVIF", speed=10, quality=10),
        "AVIF, noise": lambda: encode(noise(2000), "AVIF", speed=10, quality=100),
        "AVIF 65,535 wide": lambda: encode(Image.new("RGB", (65_000, line)), "AVIF", speed=10, quality=10),
        "JPEG, black": lambda: encode(Image.new("RGB", (side, side)), "JPEG"),
        "JPEG, noise": lambda: encode(noise(4000), "JPEG", quality=95)[:max_bytes],
        "JPEG, 200 scans": lambda: many_scans(side, 199),
        "JPEG, 30 scans": lambda: many_scans(side, 30),
        "JPEG, progressive CMYK": lambda: encode(
            Image.new("CMYK", (side, side), (9, 99, 199, 9)), "JPEG", progressive=True, subsampling=0
        ),
        "JPEG 65,500 wide": lambda: encode(Image.new("RGB", (65_500, pixels // 65_500)), "JPEG"),
        "JPEG 65,500 high": lambda: encode(Image.new("RGB", (pixels // 65_500, 65_500)), "JPEG"),
        "JPEG, restart markers": lambda: encode(Image.new("RGB", (side, side)), "JPEG", restart_marker_blocks=1),
        "JPEG, segments": lambda: jpeg_with(encode(photo(9, 9), "JPEG"), b"\xff\xe5\0\2", max_bytes // 4 - 1000),
        "JPEG, comments": lambda: jpeg_with(encode(photo(9, 9), "JPEG"), b"\xff\xfe\0\2", max_bytes // 4 - 1000),
        "JPEG, profiles": lambda: jpeg_with(
            encode(photo(9, 9), "JPEG"), b"\xff\xe2\0\x10ICC_PROFILE\0", max_bytes // 18 - 1000
        ),
        "JPEG, EXIF": lambda: jpeg_with(encode(photo(9, 9), "JPEG"), b"\xff\xe1\0\x08Exif\0\0", max_bytes // 10 - 1000),
        "JPEG, fill bytes": lambda: jpeg_with(encode(photo(9, 9), "JPEG"), b"\xff", max_bytes - 2000),
        "JPEG, Photoshop": lambda: jpeg_with(encode(photo(9, 9), "JPEG"), photoshop(65_000 // 12), max_bytes // 65_100),
        "MPO": lambda: animated("MPO", 2000, 64),
    }


def photoshop(resources: int) -> bytes:
    """An APP13 segment of so many empty resources."""
    data = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * resources
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encode(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    first = data.index(b"\xff\xda")
    scan = data[last:-2]
    return data[:first] + data[first:last] + scan * (scans - data[:last].count(b"\xff\xda")) + b"\xff\xd9"
