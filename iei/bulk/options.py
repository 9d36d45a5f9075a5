"""What a bulk job wants of its items: the same for every part of it, and on every machine that makes some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iei.models.spec import Modality
from iei.requests import Options
from iei.vectors import VectorDtype

Encoding = Literal["float32", "float16", "int8", "uint8", "ubinary"]
"""How vectors are stored. `uint8` and `int8` are quantized, `ubinary` is one bit per value in bytes."""

STORED_AS: dict[Encoding, VectorDtype] = {
    "float32": "float",
    "float16": "float16",
    "int8": "int8",
    "uint8": "uint8",
    "ubinary": "ubinary",
}
"""The form of a vector by the name of its encoding."""


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """What rows are to have. Can be pickled."""

    modality: Modality | None = None
    """What strings are, and whose length vectors have if both sides' differ. None: pictures, if the model takes any."""
    pooling: str | None = None
    """None: the model's default."""
    normalize: bool | None = None
    """None: as requests that don't say."""
    dimensions: int | None = None
    """Leading values that are kept, before normalising. None: all."""
    truncate: bool = False
    """Cut texts that are too long for the model, instead of giving them an error."""
    encoding: Encoding = "float32"
    thumbnails: int = 0
    """Longer side of the small JPEGs that rows have of their pictures, in pixels. 0: they have none."""
    keep: tuple[str, ...] = ()
    """Columns of the input that rows have, too."""

    @property
    def request(self) -> Options:
        """The same for the service."""
        return Options(
            outputs=(self.pooling or "default",),
            normalize=self.normalize,
            dimensions=self.dimensions,
            truncate=self.truncate,
        )
