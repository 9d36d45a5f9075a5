"""The forms in which a request to `/v1/embeddings` may have an input: OpenAI's, and those of others with this route.

Wire format: docs/api/openai.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, model_validator

from iei.dialects.fields import ListOf, OrNull
from iei.dialects.items import input_of
from iei.dialects.token_ids import ReadIds
from iei.errors import InvalidInput
from iei.models.spec import Modality
from iei.requests import ImageInput, Input, TextInput, UntypedInput

TokenId = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


def _by_type(tags: Mapping[type, str], kinds: str) -> Discriminator:
    return Discriminator(
        lambda value: tags.get(type(value)), custom_error_type="kind", custom_error_message=f"must be {kinds}"
    )


class Link(BaseModel):
    """The `image_url` of a part of a message."""

    url: str


class EncodedImage(BaseModel):
    """The `image_base64` of a part of a message."""

    base64: str


StringOrLink = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[Link, Tag("<object>")],
    _by_type({str: "<string>", dict: "<object>"}, "a string or an object with a url"),
]

StringOrEncoded = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[EncodedImage, Tag("<object>")],
    _by_type({str: "<string>", dict: "<object>"}, "a string or an object with base64"),
]


class ObjectItem(BaseModel):
    """A text or an image as an object. All fields with images accept base64, a data URI or a URL."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: Literal["text", "image", "image_url", "image_base64"] | None = None
    """What the object is. Its other field says so, too."""
    text: str | None = None
    """A text: Jina's items, and parts of messages."""
    image: str | None = None
    """An image: Jina's items."""
    url: str | None = None
    """An image: Jina's items, as some clients write them."""
    bytes: str | None = None
    """An image: Jina's items, as some clients write them."""
    image_url: StringOrLink | None = None
    """An image: a string in Imbeddings' items, an object in parts of messages."""
    image_base64: StringOrEncoded | None = None
    """An image: a string in Imbeddings' items."""
    prompt_string: str | None = None
    """A text, or the place of an image in it: llama.cpp's items."""
    multimodal_data: Annotated[ListOf[str], OrNull] = []
    """The image of a `prompt_string`."""

    @model_validator(mode="after")
    def _has_one_source(self) -> ObjectItem:
        if sum(getattr(self, name) is not None for name in _SOURCES) != 1:
            raise ValueError(f"must have exactly one of {', '.join(_SOURCES)}")
        return self

    @property
    def is_imbeddings(self) -> bool:
        """Whether it is an image object of Imbeddings, which is answered with two vectors."""
        return self.type in (None, "image") and (isinstance(self.image_url, str) or isinstance(self.image_base64, str))

    def input(self) -> Input:
        """The text or image.

        Raises:
            InvalidInput: llama.cpp's item has several images, or a text beside its image.
        """
        if self.text is not None:
            return TextInput(self.text)
        if self.prompt_string is not None:
            return self._prompt(self.prompt_string)
        return ImageInput(self._image)

    @property
    def _image(self) -> str:
        given = self.image_url or self.image_base64 or self.image or self.url or self.bytes or ""
        if isinstance(given, Link):
            return given.url
        return given.base64 if isinstance(given, EncodedImage) else given

    def _prompt(self, text: str) -> Input:
        if not self.multimodal_data:
            return TextInput(text)
        if len(self.multimodal_data) > 1:
            raise InvalidInput(f"has {len(self.multimodal_data)} images: send each of them as an item")
        if _MARKER.sub("", text).strip():
            raise InvalidInput("has a text beside its image: send each of them as an item")
        return ImageInput(self.multimodal_data[0])


_SOURCES = ("text", "image", "url", "bytes", "image_url", "image_base64", "prompt_string")

_MARKER = re.compile(r"<__\w+__>")
"""What stands for an image in the prompts of llama.cpp."""

Part = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[ObjectItem, Tag("<object>")],
    _by_type({str: "<text>", dict: "<object>"}, "a string or an object with a text or an image"),
]


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    role: str = "user"
    """Who says it. What `system` and `developer` say is ignored."""
    content: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[ListOf[Part], Tag("<parts>")],
            _by_type({str: "<text>", list: "<parts>"}, "a string or a list of parts"),
        ]
        | None
    ) = None
    """A text, or a list of texts and images."""


class Conversation(RootModel[list[Message]]):
    """Messages that are one input."""

    root: Annotated[list[Message], Field(fail_fast=True, min_length=1)]


Item = str | list[int] | ObjectItem | Message | Conversation
"""An input in any form."""


def _tag_of(value: object) -> str | None:
    """The tag of one input."""
    if isinstance(value, dict):
        return "<message>" if "role" in value or "content" in value else "<object>"
    if isinstance(value, list):
        return "<conversation>" if value and isinstance(value[0], dict) else "<tokens>"
    return "<text>" if isinstance(value, str) else None


def _tag_of_all(value: object) -> str | None:
    """The tag of one input or a list of them. A list that begins with a message is one conversation."""
    if not isinstance(value, list):
        return _tag_of(value)
    first = value[0] if value else None
    if isinstance(first, dict) and "role" in first:
        return "<conversation>"
    return "<tokens>" if isinstance(first, int) else "<many>"


OneItem = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[ListOf[TokenId], Tag("<tokens>")]
    | Annotated[ObjectItem, Tag("<object>")]
    | Annotated[Message, Tag("<message>")]
    | Annotated[Conversation, Tag("<conversation>")],
    Discriminator(
        _tag_of,
        custom_error_type="item",
        custom_error_message="must be a string, a list of token ids, an object with a text or an image, or messages",
    ),
]

OneOrMoreItems = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[ListOf[TokenId], Tag("<tokens>")]
    | Annotated[ObjectItem, Tag("<object>")]
    | Annotated[Message, Tag("<message>")]
    | Annotated[Conversation, Tag("<conversation>")]
    | Annotated[ListOf[OneItem], Tag("<many>")],
    Discriminator(
        _tag_of_all,
        custom_error_type="items",
        custom_error_message="must be a text, the token ids of a text, an object with a text or an image, messages, "
        "or a list of these",
    ),
]

OneOrMoreConversations = Annotated[
    Annotated[Conversation, Tag("<conversation>")] | Annotated[ListOf[Conversation], Tag("<many>")],
    Discriminator(
        lambda value: (
            ("<many>" if value and isinstance(value[0], list) else "<conversation>")
            if isinstance(value, list)
            else None
        ),
        custom_error_type="conversations",
        custom_error_message="must be a list of messages, or a list of such lists",
    ),
]


def input_of_item(item: Item, modality: Modality | None, read_ids: ReadIds) -> Input:
    """The input that `item` stands for.

    Args:
        item: an input in any form.
        modality: how the request says strings are to be read. None: it does not say.
        read_ids: reads lists of token ids.

    Raises:
        InvalidInput: the item is not one text or one image.
        EmptyInput, InvalidField: see `read_ids`.
    """
    if isinstance(item, str):
        return input_of(item, modality)
    if isinstance(item, ObjectItem):
        return item.input()
    if isinstance(item, list):
        return read_ids(item)
    return _only_input([item] if isinstance(item, Message) else item.root, modality)


def _only_input(conversation: Iterable[Message], modality: Modality | None) -> Input:
    """The one text or image that a conversation comes down to."""
    parts = [
        part
        for message in conversation
        if message.role not in _INSTRUCTING
        for part in ([message.content] if isinstance(message.content, str) else message.content or ())
    ]
    inputs = [part.input() if isinstance(part, ObjectItem) else input_of(part, modality) for part in parts]
    remaining = [
        each for each in inputs if not isinstance(each, TextInput | UntypedInput) or _says_something(each.source)
    ]
    if len(remaining) != 1:
        images = sum(isinstance(each, ImageInput) for each in remaining)
        raise InvalidInput(
            f"has {images} images and {len(remaining) - images} texts, besides system messages and blank texts: a "
            "conversation becomes one vector, so it must have one image or one text"
        )
    return remaining[0]


_INSTRUCTING = ("system", "developer")
"""Roles that say what to do with the others' messages. An embedding model does not follow instructions."""


def _says_something(source: Any) -> bool:
    return not isinstance(source, str) or bool(source.strip())
