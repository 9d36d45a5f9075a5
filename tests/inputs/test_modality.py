from __future__ import annotations

from typing import Any

import pytest

from iei.dialects.items import input_of
from iei.inputs.modality import typed, url_warnings
from iei.models.spec import Geometry, ImageTower, Modality, ModelSpec, TextTower
from iei.requests import ImageInput, Input, TextInput, Unreadable, UntypedInput
from tests.pictures import base64_of, encode, photo

IMAGE = ImageTower(Geometry("exact", 32, 32, 2), {"mean": 8}, tokens=5, patches=4, stride=16)
TEXT = TextTower("tokenizer.json", {"mean": 8}, max_tokens=16, pooling="mean")
URI = "data:image/png;base64,iVBORw0KGgo="


def _spec(**towers: Any) -> ModelSpec:
    return ModelSpec("m", "m", None, "any", "cpu", "float32", "torch", 1, **towers)


@pytest.mark.parametrize(
    ("towers", "item", "modality", "expected"),
    [
        ({"image": IMAGE}, "cats", None, ImageInput("cats")),
        ({"image": IMAGE}, URI, None, ImageInput(URI)),
        ({"text": TEXT}, "cats", None, TextInput("cats")),
        ({"text": TEXT}, URI, None, ImageInput(URI)),  # which will be refused: better than a vector of its letters
        ({"image": IMAGE, "text": TEXT}, "cats", None, TextInput("cats")),
        ({"image": IMAGE, "text": TEXT}, "https://cats.example/1.png", None, TextInput("https://cats.example/1.png")),
        ({"image": IMAGE, "text": TEXT}, URI, None, ImageInput(URI)),
        ({"image": IMAGE, "text": TEXT}, "DATA:IMAGE/png;base64,AAAA", None, ImageInput("DATA:IMAGE/png;base64,AAAA")),
        ({"image": IMAGE, "text": TEXT}, "cats", "image", ImageInput("cats")),
        ({"image": IMAGE, "text": TEXT}, URI, "text", TextInput(URI)),
        ({"image": IMAGE, "text": TEXT}, [3, 5], None, TextInput((3, 5))),
        ({"image": IMAGE, "text": TEXT}, [3, 5], "image", TextInput((3, 5))),
        ({"image": IMAGE}, [3, 5], None, TextInput((3, 5))),
    ],
)
def test_what_an_item_is(
    towers: dict[str, Any], item: str | list[int], modality: Modality | None, expected: Input
) -> None:
    assert typed(input_of(item, modality), _spec(**towers)) == expected


BOTH = {"image": IMAGE, "text": TEXT}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_picture_in_plain_base64_is_no_text(format: str) -> None:
    item = UntypedInput(base64_of(encode(photo(32, 32), format)))
    refused = typed(item, _spec(**BOTH))
    assert isinstance(refused, Unreadable)
    assert f"data:image/{format.lower()};base64,…" in str(refused.error)
    assert "`modality: image`" in str(refused.error)
    only = typed(item, _spec(text=TEXT))
    assert isinstance(only, Unreadable)
    assert "takes texts only" in str(only.error)
    assert typed(item, _spec(image=IMAGE)) == ImageInput(item.source)


@pytest.mark.parametrize(
    "text", ["iVBORw0KGgo", "/9j/ is how a JPEG begins in base64, and so on and on and on", "UklGR"]
)
def test_a_text_about_pictures_is_a_text(text: str) -> None:
    assert typed(UntypedInput(text), _spec(**BOTH)) == TextInput(text)


URL = UntypedInput("https://cats.example/1.png")


def test_a_url_as_a_text_is_warned_of_or_refused_or_allowed() -> None:
    spec = _spec(**BOTH)
    items: list[Input] = [URL, TextInput(URL.source), UntypedInput("see https://cats.example/1.png"), URL]
    (warning,) = url_warnings(items, spec, "warn")
    assert warning.startswith("URLs were embedded as texts (2): send `modality: image`")
    assert not url_warnings(items, spec, "allow")
    assert isinstance(typed(URL, spec, "warn"), TextInput)
    assert isinstance(typed(URL, spec, "allow"), TextInput)
    refused = [isinstance(typed(item, spec, "refuse"), Unreadable) for item in items]
    assert refused == [True, False, False, True]
    assert not url_warnings(items, spec, "refuse")


def test_a_url_is_a_text_to_a_model_of_texts() -> None:
    assert typed(URL, _spec(text=TEXT), "refuse") == TextInput(URL.source)
    assert not url_warnings([URL], _spec(text=TEXT), "warn")
