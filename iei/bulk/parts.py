"""A part: a Parquet file that has its name only once it is whole and on disk."""

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
TEMPORARY = ".tmp"


@contextmanager
def whole(target: Path) -> Iterator[BinaryIO]:
    """A file that gets the name `target` at the end of the block, and is on disk then; on an error it is removed.

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
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def temporary_of(target: Path) -> Path:
    """What a file is called while it is written: readers of Parquet pass over such names."""
    return target.with_name(f".{target.name}{TEMPORARY}")


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def parquet_writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Writes Parquet as all readers take it. Vectors are not tried as a dictionary, which would only cost time."""
    strings = [field.name for field in schema if pa.types.is_string(field.type) and field.name != "sha256"]
    return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=strings, write_page_checksum=True)
