"""Parts of a job, with vectors that a test knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from iei.bulk.manifest import part_name
from iei.bulk.options import STORED_AS, Encoding
from iei.bulk.parts import parquet
from iei.bulk.row import Row
from iei.bulk.schema import schema_of, table_of
from iei.requests import PictureSize
from iei.vectors import quantized

DIMENSION = 16
BAD = 13
"""Number of the item that has an error."""


def write_parts(folder: Path, *, encoding: Encoding = "float32", parts: int = 3, size: int = 10) -> list[Path]:
    """Parts as a job writes them: ids are numbers, and the label of an item is its number modulo 3."""
    schema = schema_of(
        {"model": "drawn", "encoding": encoding},
        dimension=DIMENSION,
        encoding=encoding,
        kept={"label": pa.int64()},
        thumbnails=True,
    )
    vectors = np.random.default_rng(0).normal(size=(parts * size, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    files = [folder / part_name(part) for part in range(parts)]
    for part, file in enumerate(files):
        rows = [_row(number, vectors[number], encoding) for number in range(part * size, (part + 1) * size)]
        with parquet(file, schema) as writer:
            writer.write_table(table_of(rows, schema))
    return files


def _row(number: int, vector: Any, encoding: Encoding) -> Row:
    if number == BAD:
        return Row(str(number), error="is not an image in a known format (JPEG, …)", kept={"label": number % 3})
    return Row(
        str(number),
        quantized(vector, STORED_AS[encoding]),
        PictureSize(640, 480),
        "00" * 32,
        thumbnail=b"a small JPEG",
        kept={"label": number % 3},
    )
