"""Decides whether a string is an image or a text. All dialects use this rule."""

from __future__ import annotations

import re
from collections.abc import Iterable

from iei.errors import InvalidInput
from iei.models.spec import ModelSpec
from iei.requests import ImageInput, Input, TextInput, Unreadable, UntypedInput
from iei.settings import UrlTexts

IMAGE_PREFIX = "data:image/"


def typed(item: Input, spec: ModelSpec, urls: UrlTexts = "warn") -> ImageInput | TextInput | Unreadable:
    """`item` as an image or a text, for the model `spec`.

    Data URIs of images are images. Any other string is a text if the model accepts texts, as words such as `cats`
    are valid base64 too; otherwise it is an image. But a string that can only be a picture's file is no text: it would
    be too long for most models, and for the others a vector of nothing.

    Args:
        item: as its dialect read it.
        spec: the model.
        urls: whether URLs that would be texts are refused.
    """
    if not isinstance(item, UntypedInput):
        return item
    source = item.source
    if not spec.text or source[: len(IMAGE_PREFIX)].lower() == IMAGE_PREFIX:
        return ImageInput(source)
    if kind := _PICTURE.match(source):
        return Unreadable(InvalidInput(_picture(_FORMATS[kind[1][:4]], spec)))
    if urls == "refuse" and spec.image and _URL.match(source):
        return Unreadable(InvalidInput(f"is a URL, which a model for both takes for a text: {_ADVICE}"))
    return TextInput(source)


def url_warnings(items: Iterable[Input], spec: ModelSpec, urls: UrlTexts) -> tuple[str, ...]:
    """What a client should know of URLs that became texts: one sentence, or none.

    Args:
        items: as their dialect read them.
        spec: the model.
        urls: whether it is to be warned.
    """
    if urls != "warn" or not (spec.text and spec.image):
        return ()
    count = sum(isinstance(item, UntypedInput) and bool(_URL.match(item.source)) for item in items)
    return (f"URLs were embedded as texts ({count}): {_ADVICE}",) if count else ()


_URL = re.compile(r"https?://\S{1,2000}$", re.IGNORECASE)
_ADVICE = "send `modality: image` for the pictures there, or `modality: text` (IEI_URL_TEXTS)"

_FORMATS = {
    "/9j/": "jpeg",
    "iVBO": "png",
    "R0lG": "gif",
    "UklG": "webp",
    "SUkq": "tiff",
    "TU0A": "tiff",
    "AAAA": "avif",
}
"""The first characters of a file in base64 → its format."""
_PICTURE = re.compile(
    r"(/9j/|iVBORw0KGgo|R0lGODlh|R0lGODdh|UklGR.{6}XRUJQ|SUkqA|TU0AK|AAAA..Z0eXBhdmlm)[A-Za-z0-9+/]{32}"
)
"""A picture's signature in base64, and more of it than a word has."""


def _picture(kind: str, spec: ModelSpec) -> str:
    if not spec.image:
        return f"is a picture ({kind.upper()}, in base64), and the model {spec.name!r} takes texts only"
    return (
        f"is a picture ({kind.upper()}) in plain base64, which a model for both takes for a text: send it as a data "
        f"URI (data:image/{kind};base64,…), or with `modality: image`"
    )
