"""A job's vectors as one array of NumPy, with all other columns beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iei.bulk.parts import parquet, whole


def numpy_array(parts: Sequence[Path], target: Path) -> None:
    """`x.npy`, of shape [rows, D], which `np.load(…, mmap_mode="r")` maps; and `x.parquet`, of a row for each of its.

    Items without a vector have no row in either: an array has no nulls, and what stands in their places would be found
    by a search. The parts have them.
    """
    schema = pq.read_schema(parts[0])
    vectors = schema.field("embedding").type
    shape = sum(len(table) for table in _computed(parts, ["error"])), vectors.list_size
    # The array has its name last: where it is, the table is too.
    with whole(target) as file:
        dtype = np.dtype(vectors.value_type.to_pandas_dtype())
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        with parquet(target.with_suffix(".parquet"), schema.remove(schema.get_field_index("embedding"))) as others:
            for table in _computed(parts, None):
                for column in table["embedding"].chunks:
                    file.write(np.ascontiguousarray(column.flatten().to_numpy()))
                others.write_table(table.drop_columns("embedding"))


def _computed(parts: Sequence[Path], columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """Yields the rows with vectors, group by group."""
    for part in parts:
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns)
                yield table.filter(pc.is_null(table["error"]))
