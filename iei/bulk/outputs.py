"""What the parts of a job become at its end, where the output is a single file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from iei.bulk.lance_output import lance_dataset
from iei.bulk.numpy_output import numpy_array
from iei.bulk.parts import parquet

Finisher = Callable[[Sequence[Path], Path], None]
"""Makes the output of the files of all parts, in order; there is at least one. It reads them group by group, and gives
the output its name once it is whole and on disk. Raises OSError, or StartupError."""


def one_parquet(parts: Sequence[Path], target: Path) -> None:
    """All parts as one Parquet file, with the same groups."""
    with parquet(target, pq.read_schema(parts[0])) as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))


FINISHERS: Mapping[str, Finisher] = {".parquet": one_parquet, ".npy": numpy_array, ".lance": lance_dataset}
"""Suffix of an output → what makes it. An output with none of them is a folder of parts."""
