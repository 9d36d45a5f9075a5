from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iei.encoded import Encoded
from iei.errors import EmptyInput, InvalidInput
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, redecoded, undecoded
from iei.inputs.jpeg import plain
from iei.models.spec import Geometry
from iei.requests import PictureSize
from tests.inputs.decoding import decode_image
from tests.pictures import encode, encoded, jpeg, photo

LIMITS = DecodeLimits(1_000_000, 10_000, PixelBudget(1_000_000), max_encoded_bytes=100_000)
SQUARE = Geometry("exact", 224, 224, resample=3)


def _with_segment(file: bytes, marker: int, content: bytes) -> bytes:
    return file[:2] + bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content + file[2:]


def _pixels(file: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"optimize": True},
        {"restart_marker_blocks": 3},
        {"quality": 1},
        {"quality": 100},
        {"comment": b"\xff\xd9" * 20, "icc_profile": b"\xff\xda" * 70_000},
    ],
    ids=str,
)
def test_a_plain_file_keeps_its_pixels(options: dict[str, Any]) -> None:
    file = encode(photo(75, 50), "JPEG", **options)
    found = plain(file + b"\xff\xd8 and what follows the end")
    assert found
    assert (found.width, found.height) == (75, 50)
    np.testing.assert_array_equal(_pixels(found.file), _pixels(file))
    assert found.file.endswith(b"\xff\xd9")
    assert plain(found.file) == found


def test_metadata_stays_here() -> None:
    secret = b"Exif\0\0secret"
    for marker in (*range(0xE0, 0xEE), 0xEF, 0xFE):
        found = plain(_with_segment(jpeg(), marker, secret))
        assert found
        assert secret not in found.file


def test_fill_bytes_may_precede_markers() -> None:
    file = jpeg()
    found, filled = plain(file), plain(file[:2] + b"\xff\xff\xff" + file[2:])
    assert found
    assert found == filled


def test_kinds() -> None:
    kinds = {name for name, file in encoded().items() if plain(file)}
    assert kinds == {"jpeg", "jpeg grey", "jpeg exif turned", "mpo"}


ADOBE = b"Adobe\0\x64\0\0\0\0"
UNUSUAL: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda file: file[:-200],
    "without its end": lambda file: file[:-2],
    "a marker within the scan": lambda file: file[:-50] + b"\xff\xdc\0\4\0\1" + file[-50:],
    "RGB, as Adobe says": lambda file: _with_segment(file, 0xEE, ADOBE + b"\0"),
    "an Adobe segment that is cut short": lambda file: _with_segment(file, 0xEE, ADOBE),
    "arithmetic coding": lambda file: _with_segment(file, 0xCC, b"\0\0"),
    "a second frame": lambda file: _with_segment(file, 0xC0, file[file.index(b"\xff\xc0") + 4 :][:15]),
    "extended": lambda file: file.replace(b"\xff\xc0", b"\xff\xc1"),
    "12 bits": lambda file: file.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    "RGB, as its ids say": lambda file: file.replace(b"\x01\x22\x00\x02\x11\x01\x03\x11", b"R\x22\x00G\x11\x01B\x11"),
    "4:1:1": lambda file: file.replace(b"\x01\x22\x00", b"\x01\x41\x00"),
    "a quantization that is not there": lambda file: file.replace(b"\x01\x22\x00", b"\x01\x22\x03"),
    "a Huffman table that is not there": lambda file: file.replace(
        b"\xff\xda\x00\x0c\x03\x01\x00", b"\xff\xda\x00\x0c\x03\x01\x32"
    ),
    "more codes than there can be": lambda file: _with_segment(file, 0xC4, b"\0\3" + b"\0" * 15 + b"abc"),
    "a Huffman table twice": lambda file: _with_segment(file, 0xC4, file[file.index(b"\xff\xc4") + 4 :][:31]),
    "empty tables": lambda file: _with_segment(file, 0xC4, (b"\0" + b"\0" * 16) * 3000),
    "a quantization twice": lambda file: _with_segment(file, 0xDB, bytes(65)),
    "a scan of one component": lambda file: file.replace(
        b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11", b"\xff\xda\x00\x08\x01\x01\x00"
    ),
    "a segment that is longer than the file": lambda file: file[:4] + b"\xff\xff" + file[6:1000],
    "no JPEG": lambda file: b"GIF89a" + file[6:],
    "nothing": lambda file: b"",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_files_are_libjpegs(name: str) -> None:
    file = jpeg()
    changed = UNUSUAL[name](file)
    assert changed != file
    assert plain(changed) is None


def test_adobe_may_say_what_is_so_anyway() -> None:
    assert plain(_with_segment(jpeg(), 0xEE, ADOBE + b"\1"))


@pytest.mark.parametrize("orientation", [*range(10), 300, 65_535])
def test_the_size_is_that_of_the_upright_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode(photo(40, 30), "JPEG", exif=exif)
    left = undecoded(file, LIMITS, SQUARE)
    assert left
    found, size = left
    assert (found.width, found.height) == (40, 30)
    assert found.orientation == (orientation if orientation in range(1, 9) else 1)
    upright = decode_image(file, LIMITS)
    assert size == PictureSize(*upright.size)
    with redecoded(Encoded.unpack(found.pack()), LIMITS) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))


def test_pictures_that_the_engine_can_not_make_are_decoded_here() -> None:
    assert undecoded(encoded()["png"], LIMITS, SQUARE) is None
    assert undecoded(encode(photo(8, 9000), "JPEG"), LIMITS, SQUARE) is None
    assert undecoded(jpeg(), LIMITS, SQUARE)
    assert undecoded(jpeg(), replace(LIMITS, max_encoded_bytes=len(jpeg()) - 1), SQUARE) is None


def test_limits_are_those_of_what_is_decoded_here() -> None:
    for file in (encode(Image.new("L", (1001, 1000)), "JPEG"), encode(Image.new("L", (1, 10_001)), "JPEG")):
        with pytest.raises(InvalidInput) as theirs:
            decode_image(file, LIMITS)
        with pytest.raises(InvalidInput) as ours:
            undecoded(file, LIMITS, SQUARE)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(EmptyInput):
        undecoded(b"", LIMITS, SQUARE)
    with pytest.raises(InvalidInput, match="not an image"):
        undecoded(b"something else", LIMITS, SQUARE)
