"""Contents in parts: what one input they stand for, and what is wrong with the others."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from iei.dialects.parts import Parts, input_of_parts
from iei.errors import InvalidField
from iei.requests import ImageInput, Input, TextInput, Unreadable
from tests.dialects.reading import read_json


class Message(BaseModel):
    content: Parts


def parts_of(*parts: Any) -> Parts:
    return read_json(json.dumps({"content": parts}).encode(), Message).content


TEXT: dict[str, Any] = {"type": "text", "text": "a cat"}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([TEXT], TextInput("a cat")),
        ([IMAGE], ImageInput("data:image/png;base64,AAAA")),
        ([{"type": "image_url", "image_url": "https://a.example/b.png"}], ImageInput("https://a.example/b.png")),
        ([{"type": "image_base64", "image_base64": "AAAA"}], ImageInput("AAAA")),
        ([{"text": "data:image/png;base64,AAAA"}], TextInput("data:image/png;base64,AAAA")),
        ([{"type": "text", "text": ""}, IMAGE, {"type": "text", "text": " \n"}], ImageInput(IMAGE["image_url"]["url"])),
        ([{"type": "text", "text": "  "}], TextInput("  ")),
        ([{"type": "text", "text": ""}, {"type": "text", "text": ""}], TextInput("")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_content_is_its_one_part_that_is_not_blank(parts: list[Any], expected: Input) -> None:
    assert input_of_parts(parts_of(*parts)) == expected


@pytest.mark.parametrize("parts", [[TEXT, IMAGE], [TEXT, TEXT], [IMAGE, {"type": "text", "text": ""}, IMAGE]])
def test_several_are_unreadable(parts: list[Any]) -> None:
    unreadable = input_of_parts(parts_of(*parts))
    assert isinstance(unreadable, Unreadable)
    assert re.match(r"content: has 2 parts \((text|image_url), (text|image_url)\)", str(unreadable.error))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "video_url", "video_url": "a"}, "must be an object whose type is one of text, image_url, image_b"),
        ({"type": ["text"]}, "must be an object whose type is one of"),
        ({}, "must be an object whose type is one of"),
        ("a cat", "must be an object whose type is one of"),
        ({"type": "text"}, "content[1].text: Field required"),
        ({"type": "image_url", "image_url": {}}, "content[1].image_url: must be a string, or an object whose url"),
        ({"type": "image_url", "image_url": 7}, "content[1].image_url: must be a string, or an object whose url"),
        ({"type": "image_base64", "image_base64": None}, "content[1].image_base64: Input should be a valid string"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_part_is_named(part: Any, message: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parts_of(TEXT, part)
    assert str(refused.value).startswith("content[1]")
    assert message in str(refused.value)


def test_no_parts_are_refused() -> None:
    with pytest.raises(InvalidField, match="content"):
        parts_of()
