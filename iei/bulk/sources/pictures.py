"""Which files are pictures, and what stands for a picture in lines and columns: addresses, bytes, base64."""

from __future__ import annotations

import posixpath
import re
from functools import partial
from typing import Any

from PIL import Image

from iei.bulk.items import Broken, Content, Encoded, Link, Stored
from iei.bulk.sources.files import Files, files_of, join
from iei.errors import IEIError, InvalidInput, StartupError
from iei.inputs.decode import FORMATS
from iei.inputs.sources import decode_base64, decode_data_uri

SUFFIXES = frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in FORMATS) | {
    ".heic",
    ".heif",
    ".jp2",
    ".jxl",
    ".mpo",
}
"""Suffixes of files that are pictures to a person. Some are in formats that are not decoded: their rows say so."""
_OTHER = re.compile(
    r"\.(arrow|bin|c|cfg|csv|db|docx?|feather|gz|h5|html?|ini|ipynb|jsonl?|js|lance|log|md|mov|mp[34]|ndjson|np[yz]|"
    r"parquet|pdf|pkl|pptx?|pt|py|rst|safetensors|sh|sqlite|tar|toml|tsv|txt|wav|xlsx?|xm[lp]|ya?ml|zip)"
)
"""Suffixes of files that are no pictures, so that those need not be opened. Of others, the first bytes decide."""
_SIGNATURE_BYTES = 16
_ANY_SIZE = 2**62
"""The service has the limit on a picture's bytes, and words for it."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_picture(files: Files, path: str) -> bool:
    """Whether a file is a picture by its suffix, or, where that says nothing, by its first bytes."""
    suffix = posixpath.splitext(path)[1].lower()
    if suffix in SUFFIXES or _OTHER.fullmatch(suffix):
        return suffix in SUFFIXES
    try:
        with files.open(path) as file:
            return has_signature(file.read(_SIGNATURE_BYTES))
    except OSError:  # its row says what reading it raises
        return True


def has_signature(data: bytes) -> bool:
    """Whether the first bytes of a file are those of a format that is decoded."""
    return any(accepts is not None and accepts(data[:_SIGNATURE_BYTES]) is True for accepts in _ACCEPTS)


_ACCEPTS = tuple(Image.OPEN[name][1] for name in FORMATS)


def looks_like_address(text: str) -> bool:
    """Whether a string stands for a picture, rather than being a text."""
    start = text[:64].lower()
    if start.startswith("data:image/"):
        return True
    if _SCHEME.match(start):
        return not any(map(str.isspace, text))
    return posixpath.splitext(text)[1].lower() in SUFFIXES and "\n" not in text


def at_address(address: Any, folder: str = "") -> Content:
    """What an address stands for: a data URI, an http or https URL, a URL of fsspec, or a path.

    Args:
        address: a string.
        folder: where relative paths begin.
    """
    if not isinstance(address, str) or not address.strip():
        return missing(address)
    start = address[:8].lower()
    if start.startswith("data:"):
        return _decoded(partial(decode_data_uri, address, _ANY_SIZE))
    if start.startswith(("http://", "https://")):
        return Link(address)
    try:
        path = address if address.startswith("/") or _SCHEME.match(address) else join(folder, address)
        return Stored(partial(files_of(path).read, path))
    except StartupError as error:
        return Broken(InvalidInput(str(error)))


def in_base64(text: Any) -> Content:
    """What a string of base64, or a data URI, has in it."""
    if not isinstance(text, str) or not text:
        return missing(text)
    decode = decode_data_uri if text[:5].lower() == "data:" else decode_base64
    return _decoded(partial(decode, text, _ANY_SIZE))


def missing(value: Any) -> Broken:
    """For a value that stands for nothing."""
    what = "null" if value is None else "empty" if value in ("", b"") else f"a {type(value).__name__}, not a string"
    return Broken(InvalidInput(f"is {what}"))


def _decoded(decode: partial[bytes]) -> Content:
    try:
        return Encoded(decode())
    except IEIError as error:
        return Broken(error)
