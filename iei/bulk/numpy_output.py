"""A job's vectors as one array of NumPy, with all other columns beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iei.bulk.parts import parquet, whole


def numpy_array(parts: Sequence[Path], target: Path) -> None:
    """`x.npy`, of shape [rows, D], which `np.load(…, mmap_mode="r")` maps; and `x.parquet`, of a row for each of its.

    Rows with errors come last in the table, and are not in the array: it has no nulls, and what stood in their places
    would be found by a search.
    """
    schema = pq.read_schema(parts[0])
    vectors = schema.field("embedding").type
    others = [name for name in schema.names if name != "embedding"]
    shape = sum(len(table) for table in _rows(parts, pc.is_null, ["error"])), vectors.list_size
    # The array has its name last: where it is, the table is too.
    with whole(target) as file:
        dtype = np.dtype(vectors.value_type.to_pandas_dtype())
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        with parquet(target.with_suffix(".parquet"), schema.remove(schema.get_field_index("embedding"))) as writer:
            for table in _rows(parts, pc.is_null, None):
                for column in table["embedding"].chunks:
                    file.write(np.ascontiguousarray(column.flatten().to_numpy()).data)
                writer.write_table(table.select(others))
            for table in _rows(parts, pc.is_valid, others):
                writer.write_table(table)


def _rows(parts: Sequence[Path], errors: Callable[[Any], Any], columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """Yields the rows whose column `error` is as `errors` says, group by group."""
    for part in parts:
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns)
                if len(wanted := table.filter(errors(table["error"]))):
                    yield wanted
