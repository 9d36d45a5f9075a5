"""Content given in parts, as in messages of a chat: a list of texts and images that stands for one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from iei.dialects.fields import ListOf
from iei.errors import InvalidInput
from iei.requests import ImageInput, Input, TextInput, Unreadable


class TextPart(BaseModel):
    """A text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: Literal["text"] = "text"
    text: str

    @property
    def input(self) -> Input:
        """The input that this part alone stands for."""
        return TextInput(self.text)


class Address(BaseModel):
    """An object with the address of an image, and maybe other fields."""

    url: str


def _url_of(value: object) -> object:
    """The URL itself, of an object with one."""
    if isinstance(value, dict):
        value = value.get("url")
    if not isinstance(value, str):
        raise ValueError("must be a string, or an object whose url is a string")
    return value


class ImageUrlPart(BaseModel):
    """An image. OpenAI and Cohere write `image_url` as an object, Voyage as a string."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: Literal["image_url"] = "image_url"
    image_url: Annotated[str, BeforeValidator(_url_of, json_schema_input_type=str | Address)]
    """A URL, a data URI or base64; alone, or as the `url` of an object."""

    @property
    def input(self) -> Input:
        """The input that this part alone stands for."""
        return ImageInput(self.image_url)


class ImageBase64Part(BaseModel):
    """An image."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: Literal["image_base64"] = "image_base64"
    image_base64: str
    """Base64, a data URI or a URL."""

    @property
    def input(self) -> Input:
        """The input that this part alone stands for."""
        return ImageInput(self.image_base64)


_TYPES = ("text", "image_url", "image_base64")


def _tag(part: Any) -> str | None:
    """The tag of a part's type. A part that does not name its type has the one whose field it has."""
    if not isinstance(part, dict):
        return None
    return f"<{part.get('type') or next((name for name in _TYPES if name in part), '')}>"


Part = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImageUrlPart, Tag("<image_url>")]
    | Annotated[ImageBase64Part, Tag("<image_base64>")],
    Discriminator(
        _tag,
        custom_error_type="part",
        custom_error_message=f"must be an object whose type is one of {', '.join(_TYPES)}",
    ),
]
"""One part of a content."""

Parts = Annotated[ListOf[Part], Field(min_length=1)]
"""A content: its parts, at least one."""


def input_of_parts(parts: Sequence[TextPart | ImageUrlPart | ImageBase64Part]) -> Input:
    """The one input that `parts` stand for: the only part that is not a blank text. Several make it unreadable.

    Clients put blank texts beside images because some servers insist on a text. Models with a side for texts and one
    for images can't make one vector out of several parts.

    Args:
        parts: at least one.
    """
    filled = [part for part in parts if not (isinstance(part, TextPart) and not part.text.strip())]
    if len(filled) > 1:
        error = InvalidInput(
            f"content: has {len(filled)} parts ({', '.join(part.type for part in filled)}), but a vector is made of "
            "one text or one image: send each part as an input of its own"
        )
        return Unreadable(error)
    return (filled or parts)[0].input
