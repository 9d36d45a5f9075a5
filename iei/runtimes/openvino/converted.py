"""A converted model on disk: its graphs, and a description that says everything which torch was asked for.

Who reads one needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from iei.models.spec import Contrast, Quality
from iei.runtimes.api import ImageSide, TextSide
from iei.runtimes.padding import Padding

DESCRIPTION = "converted.json"
IMAGE_GRAPH, TEXT_GRAPH = "image.xml", "text.xml"
WEIGHTS = ".bin"
"""Ending of the file beside each graph that has its weights."""

DigestOf = Callable[[Path], str]
"""A file → the SHA-256 of its bytes, in hex. Raises OSError if it can't be read."""


@dataclass(frozen=True, slots=True)
class ImageGraph:
    """The image side. Its graph takes pictures [B, H, W, 3] and has the side's outputs, in their order."""

    side: ImageSide
    folds: bool
    """Whether it computes the same once the size of pictures is written into it, which makes it faster."""


@dataclass(frozen=True, slots=True)
class TextGraph:
    """The text side. Its graph takes ids int64 [B, L] and their mask float32 [B, L], and has the side's outputs."""

    side: TextSide
    padding: Padding


@dataclass(frozen=True, slots=True)
class Converted:
    """The description of a converted model."""

    made_with: Mapping[str, str]
    """Package → its version."""
    parameters: int = 0
    """How many numbers the checkpoint's weights are."""
    image: ImageGraph | None = None
    text: TextGraph | None = None
    contrast: Contrast | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """File of a graph or of its weights → SHA-256 of its bytes, in hex."""
    quality: Quality | None = None
    """Of a quantised model."""
    refusal: str | None = None
    """Why there are no graphs: the checkpoint can't be converted. Kept as well, because finding out takes long."""

    def write(self, folder: Path) -> None:
        """Writes the description beside the files that it names. Raises OSError."""
        (folder / DESCRIPTION).write_bytes(_ADAPTER.dump_json(self, indent=2))


_ADAPTER = TypeAdapter(Converted)


def sha256(file: Path) -> str:
    """The digest of a file's bytes, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_converted(folder: Path, *, digest_of: DigestOf | None = sha256) -> Converted:
    """Reads the description in `folder`.

    Args:
        folder: with a converted model.
        digest_of: by which the files that it names are compared with what was written; None: they are not.

    Raises:
        FileNotFoundError: there is no converted model.
        ValueError: it is damaged; what of it.
    """
    try:
        converted = _ADAPTER.validate_json((folder / DESCRIPTION).read_bytes())
    except ValidationError as error:
        raise ValueError(f"{folder / DESCRIPTION} is not what was written") from error
    for file, digest in ((folder / name, digest) for name, digest in converted.files.items()):
        if digest_of and not (file.is_file() and digest_of(file) == digest):
            raise ValueError(f"{file} is not what was written")
    return converted
