"""The examples of docs/reading-vectors.md, run as they stand there, but for the length and the id of their vectors."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from iei.bulk.lance_output import lance_dataset
from iei.bulk.numpy_output import numpy_array
from tests.bulk.drawn_parts import BAD, DIMENSION, write_parts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reading-vectors.md").read_text()
BLOCK = re.compile(r"```(?:python|bash)\n(.*?)```", re.DOTALL)
EXAMPLES = {
    section.splitlines()[0]: [block.replace("768", f"{DIMENSION}").replace("cat.jpg", "7") for block in blocks]
    for section in PAGE.split("\n## ")
    if (blocks := BLOCK.findall(section))
}
ATLAS_PYTHON = os.environ.get("TEST_ATLAS_PYTHON")

pytestmark = pytest.mark.filterwarnings("default")  # others' packages warn about themselves


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    """The vectors without errors, in order; the current folder has them in `vectors/`, with a hidden folder as jobs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectors/.iei").mkdir(parents=True)
    (tmp_path / "vectors/.iei/manifest-0-of-1.jsonl").write_text("{}\n")
    parts = write_parts(tmp_path / "vectors")
    return np.array([row["embedding"] for part in parts for row in pq.read_table(part).to_pylist() if not row["error"]])


def ran(title: str, example: int = 0) -> dict[str, Any]:
    """The names that an example leaves."""
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[title][example], f"{title} in reading-vectors.md", "exec"), names)
    return names


def nearest(vectors: np.ndarray[Any, Any]) -> list[str]:
    """The ids of the five nearest to 7, by NumPy."""
    ids = [str(number) for number in range(len(vectors) + 1) if number != BAD]
    return [ids[place] for place in np.argsort(-vectors @ vectors[7])[:5]]


def test_pyarrow_has_what_the_vectors_are_of(vectors: np.ndarray[Any, Any]) -> None:
    assert ran("# Reading vectors")["made_by"]["model"] == "drawn"


def test_duckdb(vectors: np.ndarray[Any, Any]) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = ran("DuckDB")["nearest"]
    assert [id_ for id_, _ in found] == nearest(vectors)
    assert found[0][1] == pytest.approx(1)
    duckdb.sql("DROP VIEW pictures")


def test_polars(vectors: np.ndarray[Any, Any]) -> None:
    polars = pytest.importorskip("polars")
    found = ran("Polars")
    assert found["frame"].schema["embedding"] == polars.Array(polars.Float32, DIMENSION)
    assert np.array_equal(found["vectors"], vectors)
    assert found["nearest"]["id"].to_list() == nearest(vectors)


def test_pandas(vectors: np.ndarray[Any, Any]) -> None:
    pytest.importorskip("pandas")
    found = ran("pandas")
    assert found["vectors"].dtype == np.float32
    assert np.array_equal(found["vectors"], vectors)
    assert found["nearest"].to_list() == nearest(vectors)


def test_numpy(vectors: np.ndarray[Any, Any], tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    numpy_array(sorted((tmp_path / "vectors").glob("*.parquet")), tmp_path / "x.npy")
    found = ran("NumPy")
    assert isinstance(found["vectors"], np.memmap)
    assert np.array_equal(found["vectors"], vectors)
    assert found["ids"][13] == "14", "the row with an error is behind those of the array"


def test_datasets(vectors: np.ndarray[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = ran("Hugging Face datasets")
    assert found["pictures"].features["embedding"] == datasets.List(datasets.Value("float32"), length=DIMENSION)
    assert np.array_equal(found["vectors"], vectors)


def test_lancedb(vectors: np.ndarray[Any, Any], tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    pytest.importorskip("lance")
    lance_dataset(sorted((tmp_path / "vectors").glob("*.parquet")), tmp_path / "db/pictures.lance")
    found = ran("LanceDB")["nearest"]
    assert [row["id"] for row in found] == nearest(vectors)
    more = ran("LanceDB", 1)["pictures"]
    assert more.count_rows() == len(vectors)
    assert [row["id"] for row in more.search(vectors[7]).distance_type("cosine").limit(5).to_list()] == nearest(vectors)


@pytest.mark.skipif(
    not ATLAS_PYTHON,
    reason="embedding-atlas brings a torch of its own: UV_PROJECT_ENVIRONMENT=.venv-atlas uv sync "
    "--only-group clients-atlas, then TEST_ATLAS_PYTHON=$PWD/.venv-atlas/bin/python",
)
def test_embedding_atlas(vectors: np.ndarray[Any, Any], tmp_path: Path) -> None:
    """With the documented command, which writes its page into a folder instead of serving it.

    UMAP takes a minute to compile itself: the first two values of each vector are its place on the map here.
    """
    assert ATLAS_PYTHON
    (command,) = EXAMPLES["Embedding Atlas"]
    instead = f"--with flat_umap --export-application {tmp_path / 'page'}"
    subprocess.run(
        f"{command.strip()} {instead}",
        shell=True,
        check=True,
        timeout=120,
        env={
            "PATH": f"{Path(ATLAS_PYTHON).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).with_name("atlas")),
            "HOME": str(tmp_path),
        },
    )
    (data,) = (tmp_path / "page").rglob("*.parquet")
    table = pq.read_table(data).to_pydict()
    assert np.array_equal(np.array(table["embedding"], np.float32), vectors)
    assert np.allclose(np.stack([table["projection_x"], table["projection_y"]], axis=1), vectors[:, :2])


def test_each_example_is_run() -> None:
    """A new section needs its test."""
    assert [(title, len(examples)) for title, examples in EXAMPLES.items()] == [
        ("# Reading vectors", 1),
        ("DuckDB", 1),
        ("Polars", 1),
        ("pandas", 1),
        ("NumPy", 1),
        ("Hugging Face datasets", 1),
        ("LanceDB", 2),
        ("Embedding Atlas", 1),
    ]
