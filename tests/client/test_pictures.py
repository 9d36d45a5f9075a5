"""What the server decodes of a picture is what the program had."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iei.client import pictures
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits
from tests.inputs.decoding import decode_image
from tests.pictures import encoded, photo, png

LIMITS = DecodeLimits(max_pixels=10**8, max_side=65_535, budget=PixelBudget(10**8))


def decoded(data: bytes | str) -> Any:
    assert isinstance(data, bytes)
    return np.asarray(decode_image(data, LIMITS))


@pytest.mark.parametrize("name", encoded())
@pytest.mark.parametrize("compressed_from", [pictures.COMPRESSED_FROM_BYTES, 0], ids=["small", "large"])
def test_an_open_file_gives_the_pixels_of_the_file(
    monkeypatch: pytest.MonkeyPatch, name: str, compressed_from: int
) -> None:
    monkeypatch.setattr(pictures, "COMPRESSED_FROM_BYTES", compressed_from)
    file = encoded()[name]
    with Image.open(io.BytesIO(file)) as image:
        np.testing.assert_array_equal(decoded(pictures.sent(image)), decoded(file))


def test_a_large_picture_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo(300, 200)
    uncompressed = pictures.sent(image)
    monkeypatch.setattr(pictures, "COMPRESSED_FROM_BYTES", 300 * 200)
    assert len(pictures.sent(image)) < len(uncompressed) * 0.9


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_an_array_is_the_picture_of_its_pixels(mode: str) -> None:
    image = photo(40, 30).convert(mode)
    assert pictures.sent(np.asarray(image)) == pictures.sent(image)


def test_files_and_addresses_are_sent_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png())
    assert pictures.sent(file) == pictures.sent(str(file)) == pictures.sent(png()) == png()
    for address in ("http://x/a.png", "https://x/a.png", "data:image/png;base64,AAAA"):
        assert pictures.sent(address) == address


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"is an array of float32\[4, 4, 3\]: pixels are uint8"),
        (np.zeros((3, 4, 5), np.uint8), r"is an array of uint8\[3, 4, 5\]"),
        (np.zeros((0, 4, 3), np.uint8), r"is an array of uint8\[0, 4, 3\]"),
        (3, "is a int: a picture is a path"),
        (None, "is a NoneType"),
    ],
)
def test_what_is_no_picture_is_said_to_be_none(item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pictures.sent(item)


def test_one_picture_is_a_list_of_one() -> None:
    image, array = photo(40, 30), np.zeros((4, 4, 3), np.uint8)
    for one in ("a.png", Path("a.png"), b"file", image, array, array[..., 0]):
        assert len(list(pictures.listed(one))) == 1
    assert len(list(pictures.listed(np.stack([array] * 3)))) == 3
    assert list(pictures.listed(name for name in ("a", "b"))) == ["a", "b"]
