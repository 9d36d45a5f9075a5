"""A job's rows as a data set of Lance, which LanceDB searches (extra `lance`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from iei.errors import StartupError


def lance_dataset(parts: Sequence[Path], target: Path) -> None:
    """`x.lance`. It is there once it is whole: Lance writes what names the version of a data set last.

    Raises:
        StartupError: Lance is not installed.
    """
    try:
        import lance
    except ImportError as error:
        raise StartupError(
            f"{target} needs Lance: pip install 'image-embedding-inference[lance]', then start the same command again."
        ) from error
    schema = pq.read_schema(parts[0])
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, _batches(parts)), target, mode="overwrite")


def _batches(parts: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches()
