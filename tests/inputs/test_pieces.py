"""Pictures that cost more than a photo of the same limit are refused, and unusual ones that don't are not."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from iei.errors import InvalidInput
from iei.inputs import pieces
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits
from tests.hostile_pictures import (
    bmp_of,
    bomb,
    gif_of,
    jpeg_with,
    many_scans,
    photoshop,
    png_chunk,
    png_of,
    tiff_of,
)
from tests.inputs.decoding import decode_image
from tests.pictures import encode, jpeg, photo, png

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LIMITS = DecodeLimits(max_pixels=64_000_000, max_side=65_535, budget=PixelBudget(128_000_000))
MANY = pieces.MAX_READS + 10
SMALL, SIDE = "more small pieces", r"has a side over the limit of 65535 \(IEI_MAX_IMAGE_SIDE\)"

COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "a column of 64 MP": (lambda: png_of(1, 64_000_000, bomb(10**6)), SIDE),
    "a row of 64 MP": (lambda: png_of(64_000_000, 1, bomb(10**6)), SIDE),
    "a column as BMP": (lambda: bmp_of(1, 65_536, bytes(4 * 65_536)), SIDE),
    "a column as TIFF": (lambda: tiff_of(1, 65_536, [bytes(65_536)]), SIDE),
    "PNG, empty chunks": (lambda: png_of(9, 9, bomb(90), before=png_chunk(b"abCd", b"") * (MANY // 2)), SMALL),
    "PNG, rows in bytes": (lambda: png_of(700, 700, zlib.compress(bytes(700 * 701), 0), idat=1), SMALL),
    "PNG, profiles": (lambda: png_of(9, 9, bomb(90), before=png_chunk(b"iCCP", b"a\0\0" + bomb(2**20)) * 9), "iCCP"),
    "JPEG, segments": (lambda: jpeg_with(jpeg(), b"\xff\xe5\0\2", MANY // 2), SMALL),
    "JPEG, comments": (lambda: jpeg_with(jpeg(), b"\xff\xfe\0\2", MANY // 2), SMALL),
    "JPEG, fill bytes": (lambda: jpeg_with(jpeg(), b"\xff", MANY), SMALL),
    "JPEG, junk": (lambda: jpeg_with(jpeg(), b"\xff\xe5\0\2" + b"a" * MANY, 1), SMALL),
    "JPEG, EXIF in parts": (lambda: jpeg_with(jpeg(), b"\xff\xe1\0\x08Exif\0\0", 65), "has 65 blocks of Exif"),
    "GIF, extensions": (lambda: gif_of(9, 9, b"\x44\1", before=b"!\xf9\0\0" * MANY), SMALL),
    "GIF, a comment": (lambda: gif_of(9, 9, b"\x44\1", before=b"!\xfe" + b"\1a" * MANY + b"\0"), SMALL),
    "BMP, runs": (lambda: bmp_of(1000, 1000, b"\1\1" * 1_000_000, compression=1), SMALL),
    "TIFF, strips": (lambda: tiff_of(2, 65_000, [b"aa"] * 131_073, rows=1), "has 131073 strips or tiles"),
    "TIFF, tiles of a pixel": (lambda: tiff_of(1000, 500, [b"a"] * 500_000, tile=1), "has 500000 strips or tiles"),
    "TIFF, directory beyond all": (lambda: b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + b"\xff" * 60, "tags"),
    "JPEG, scans of a large picture": (lambda: many_scans(8000, 31), "is a JPEG of 31 scans, over the limit of 30"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_costs_more_than_a_photo_is_refused(name: str) -> None:
    make, message = COSTLY[name]
    with pytest.raises(InvalidInput, match=message):
        decode_image(make(), LIMITS)
    assert LIMITS.budget.held == 0


CHEAP: dict[str, Callable[[], bytes]] = {
    "a column": lambda: png_of(1, 65_535, bomb(2 * 65_535)),
    "a row": lambda: png_of(65_535, 1, bomb(65_536)),
    "PNG, small chunks": lambda: png_of(700, 700, zlib.compress(bytes(700 * 701), 0), idat=256),
    "PNG, a profile": lambda: encode(photo(64, 48), "PNG", icc_profile=b"a profile"),
    "JPEG, many scans": lambda: many_scans(500, 150),
    "JPEG, a camera's segments": lambda: jpeg_with(jpeg(), photoshop(100), 50),
    "TIFF, strips of a row": lambda: tiff_of(50, 5000, [bytes(50)] * 5000, rows=1),
    "TIFF, small tiles": lambda: tiff_of(1024, 1024, [bytes(256)] * 4096, tile=16),
    "BMP, runs": lambda: bmp_of(300, 300, (b"\1\1" * 300 + b"\0\0") * 300 + b"\0\1", compression=1),
    "GIF, frames": lambda: gif_of(9, 9, b"\x44\1", frame=(1, 1), frames=10_000),
}


@pytest.mark.parametrize("name", CHEAP)
def test_what_is_only_unusual_is_decoded(name: str) -> None:
    assert decode_image(CHEAP[name](), LIMITS).mode == "RGB"


def test_the_limits_follow_the_settings() -> None:
    limits = DecodeLimits(max_pixels=500 * 500, max_side=600, budget=PixelBudget(10**6))
    assert decode_image(png(600, 10), limits).size == (600, 10)
    with pytest.raises(InvalidInput, match="601×10 has a side over the limit of 600"):
        decode_image(png(601, 10), limits)
    assert decode_image(many_scans(500, 30), limits).size == (500, 500)
    with pytest.raises(InvalidInput, match="31 scans, over the limit of 30"):
        decode_image(many_scans(500, 31), limits)


def test_a_small_step_too_many_ends_the_work_of_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    file = pieces.PictureFile(b"abc" * 10)
    monkeypatch.setattr(pieces, "MAX_READS", 3)
    few = pieces.PictureFile(b"abc" * 10)
    assert [file.read(1) + few.read(1) for _ in range(3)] == [b"aa", b"bb", b"cc"]
    assert file.read(1) == b"a"
    with pytest.raises(InvalidInput, match=re.escape(SMALL)):
        few.read(1)


@pytest.mark.parametrize(
    ("format", "options", "weight"),
    [("PNG", {}, 1), ("JPEG", {}, 1), ("JPEG", {"progressive": True}, 2), ("WEBP", {}, 2), ("TIFF", {}, 2)],
)
def test_what_needs_twice_the_memory_holds_twice_the_budget(format: str, options: dict[str, bool], weight: int) -> None:
    budget = PixelBudget(10**6)
    held = []

    class Seen(PixelBudget):
        def hold(self, pixels: int):  # type: ignore[no-untyped-def]
            held.append(pixels)
            return budget.hold(pixels)

    limits = DecodeLimits(max_pixels=10**6, max_side=10**4, budget=Seen(1))
    decode_image(encode(Image.new("RGB", (40, 30)), format, **options), limits)
    assert held == [weight * 40 * 30]
