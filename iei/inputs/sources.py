"""Reads the image file from an item of a request, unless the item is a URL."""

from __future__ import annotations

import re
from typing import Literal

import pybase64

from iei.errors import EmptyInput, InvalidInput

Kind = Literal["base64", "data", "url"]

_PREFIXES: tuple[tuple[str, Kind], ...] = (("http://", "url"), ("https://", "url"), ("data:", "data"))
_FOREIGN = re.compile(r"[^A-Za-z0-9+/=]")
_SHOWN = 40


def kind_of(item: str) -> Kind:
    """The kind of an item, by its prefix. Base64 can't begin like a URL, since `:` is not in its alphabet."""
    start = item[:8].lower()
    return next((kind for prefix, kind in _PREFIXES if start.startswith(prefix)), "base64")


def encoded_bytes(item: str | bytes, max_bytes: int) -> bytes:
    """The file inside `item`: base64, a `data:` URI, or the file itself (a URL has to be fetched: `fetch.py`).

    Raises:
        EmptyInput: there is no data.
        InvalidInput: it is not valid base64, not a data URI of an image, or larger than `max_bytes`.
    """
    if isinstance(item, bytes):
        _check_size(len(item), max_bytes)
        return item
    decode = decode_data_uri if kind_of(item) == "data" else decode_base64
    return decode(item, max_bytes)


def decode_data_uri(uri: str, max_bytes: int) -> bytes:
    """`data:image/…;base64,…` (RFC 2397) → bytes."""
    comma = uri.find(",", 0, 1024)
    if comma < 0:
        raise InvalidInput(f"is a data URI without a comma before its data: {excerpt(uri)}")
    media_type, *parameters = uri[len("data:") : comma].lower().split(";")
    if not media_type.startswith("image/"):
        raise InvalidInput(
            f"is a data URI of {media_type or 'no media type'}, but only image/… is accepted: {excerpt(uri)}"
        )
    if "base64" not in parameters:
        raise InvalidInput(f"is a data URI that is not in base64 (data:{media_type};base64,…): {excerpt(uri)}")
    return decode_base64(uri[comma + 1 :], max_bytes)


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Strict base64 (RFC 4648, section 4: standard alphabet, padded, no line breaks) → bytes."""
    if not text:
        raise EmptyInput("is empty")
    _check_size(len(text) // 4 * 3 - text.count("=", -2), max_bytes)
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidInput(f"is not base64: {_fault(text)}: {excerpt(text)}") from error


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InvalidInput(f"has {size} bytes, over the limit of {max_bytes} (IEI_MAX_IMAGE_BYTES)")


def excerpt(text: str) -> str:
    """The beginning of `text`, quoted and short enough for a message or a log."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _fault(text: str) -> str:
    """Why `text` is not valid base64."""
    foreign = _FOREIGN.search(text)
    if foreign:
        character, position = foreign[0], foreign.start()
        if "://" in text[:_SHOWN]:
            return "only http:// and https:// URLs are taken"
        if character in "-_":
            return f"{character!r} at {position} is of the URL-safe alphabet; use the standard one"
        return f"{character!r} at {position} is not in the alphabet"
    if len(text) % 4:
        return f"its length, {len(text)}, is not a multiple of 4 (is padding missing?)"
    return "'=' may stand only at its end"
