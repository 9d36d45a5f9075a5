from __future__ import annotations

from typing import Any

import pytest

from iei.dialects.items import input_of
from iei.inputs.modality import typed
from iei.models.spec import Geometry, ImageTower, Modality, ModelSpec, TextTower
from iei.requests import ImageInput, Input, TextInput

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
