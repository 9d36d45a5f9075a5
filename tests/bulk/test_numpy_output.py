"""`-o x.npy`: an array that can be mapped, and a table with a row for each of its rows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iei.bulk.numpy_output import numpy_array
from iei.bulk.options import Encoding
from tests.bulk.drawn_parts import BAD, DIMENSION, write_parts


@pytest.mark.parametrize(
    ("encoding", "dtype", "length"),
    [
        ("float32", np.float32, DIMENSION),
        ("float16", np.float16, DIMENSION),
        ("int8", np.int8, DIMENSION),
        ("uint8", np.uint8, DIMENSION),
        ("ubinary", np.uint8, DIMENSION // 8),
    ],
)
def test_rows_of_the_array_are_those_of_the_table(tmp_path: Path, encoding: Encoding, dtype: type, length: int) -> None:
    parts = write_parts(tmp_path, encoding=encoding)
    numpy_array(parts, tmp_path / "x.npy")
    found = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert found.dtype == dtype
    assert found.shape == (29, length)
    rows = [row for part in parts for row in pq.read_table(part).to_pylist() if not row["error"]]
    assert np.array_equal(found, np.array([row["embedding"] for row in rows], dtype))
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["id", "width", "height", "sha256", "error", "label", "image"]
    assert table["id"].to_pylist() == [*(row["id"] for row in rows), str(BAD)]
    assert table["error"].null_count == 29, "the row with an error is the last one"
    assert b"drawn" in table.schema.metadata[b"iei"]
    assert sorted(path.name for path in tmp_path.iterdir() if "part" not in path.name) == ["x.npy", "x.parquet"]


def test_an_array_that_is_half_written_has_no_name(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    whole = parts[-1].read_bytes()
    parts[-1].write_bytes(whole[:64] + b"\0" * 512 + whole[576:])
    with pytest.raises((OSError, pa.ArrowException)):
        numpy_array(parts, tmp_path / "x.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == [part.name for part in parts]


def test_memory_is_that_of_a_group(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, parts=20, size=200)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    numpy_array(parts, tmp_path / "x.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(np.load(tmp_path / "x.npy")) == 20 * 200 - 1
    assert peak < 2**17 < (tmp_path / "x.npy").stat().st_size
    assert pa.total_allocated_bytes() - before < 2**17
