"""`-o x.lance`: a data set that LanceDB searches."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iei.bulk.lance_output import lance_dataset
from iei.errors import StartupError
from tests.bulk.drawn_parts import BAD, DIMENSION, write_parts


@pytest.mark.filterwarnings("default")  # Lance's own
def test_rows_and_vectors_are_those_of_the_parts(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance", reason="the extra `lance`: uv sync --group clients")
    parts = write_parts(tmp_path)
    for _ in range(2):  # a second time it replaces the first
        lance_dataset(parts, tmp_path / "x.lance")
    found = lance.dataset(tmp_path / "x.lance")
    expected = pa.concat_tables([pq.read_table(part) for part in parts])
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), DIMENSION)
    assert found.to_table().cast(expected.schema).equals(expected)
    assert b"drawn" in found.schema.metadata[b"iei"]
    nearest = {"column": "embedding", "q": np.array(expected["embedding"][7].as_py(), np.float32), "k": 3}
    ids = found.to_table(columns=["id"], nearest=nearest)["id"].to_pylist()
    assert ids[0] == "7"
    assert str(BAD) not in ids


def test_without_lance_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(StartupError, match=r"x\.lance needs Lance: pip install 'image-embedding-inference\[lance\]'"):
        lance_dataset([], tmp_path / "x.lance")
