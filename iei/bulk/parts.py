"""Files that have their names only once they are whole and on disk; and parts, which are such files of Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 4096
"""Rows of a group, which readers take as a whole: 12 MB of 768 float32."""


def temporary_of(target: Path) -> Path:
    """What a file is called while it is written. Readers of folders pass over such names."""
    return target.with_name(f".{target.name}.tmp")


@contextmanager
def whole(target: Path) -> Iterator[BinaryIO]:
    """A file that is called `target` after the block, and is on disk then; after an error there is none.

    Raises:
        OSError: it can't be written.
    """
    temporary = temporary_of(target)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Has the names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def parquet(target: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet file in the form in which this program writes all of them; `whole`. Each table becomes a row group.

    Raises:
        OSError: it can't be written.
    """
    # Vectors as a dictionary only cost time, and so do digests.
    repeated = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in ("id", "sha256")]
    options = {"compression": "zstd", "use_dictionary": repeated, "write_page_checksum": True}
    with whole(target) as file, pq.ParquetWriter(file, schema, **options) as writer:
        yield writer
