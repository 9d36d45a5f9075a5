"""What an item became."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iei.requests import PictureSize
from iei.vectors import Quantized


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the output: of an embedding, or of an error."""

    id: str
    embedding: Quantized | None = None
    """As it is stored. None where there is an error."""
    picture: PictureSize | None = None
    """As it is stored, upright. None of texts, and of what is no picture."""
    sha256: str | None = None
    """Of the encoded picture or of the text's UTF-8, in hex, as `sha256sum` prints it. None if it could not be read."""
    error: str | None = None
    """Why there is no embedding."""
    thumbnail: bytes | None = None
    """A small JPEG of the picture."""
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Column of the input → value."""
    is_duplicate: bool = False
    """Nothing was computed, and nothing is to be written: the job has a row of this content."""
