"""Ray Data, on a cluster of several nodes."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iei.errors import StartupError
from tests.pictures import encode

pa: Any = pytest.importorskip("pyarrow")
dataset: Any = pytest.importorskip("pyarrow.dataset")

pytestmark = [
    pytest.mark.timeout(900),  # the first test waits for the cluster
    pytest.mark.cluster,
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),  # Ray warns of its own code; hardly any of ours runs in this process
]

COUNT = 300
BROKEN = "2/broken.jpg"
PATIENCE_S = 200.0


@pytest.fixture(scope="module")
def nodes(cluster: Any) -> Iterator[list[Any]]:
    """Two nodes besides the head. Actors of these tests run on them only."""
    added = [cluster.add_node(num_cpus=2, resources={"embed": 2}) for _ in range(2)]
    yield added
    for node in cluster.worker_nodes & set(added):
        cluster.remove_node(node)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `COUNT` drawn pictures, one that is broken, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        file = folder / str(number % 3) / f"{number:03d}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(_drawn(number))
    (folder / BROKEN).write_bytes(b"no picture")
    (folder / "notes.txt").write_text("of the photographer")
    return folder


@pytest.fixture(scope="module")
def model(text_models: dict[str, str]) -> str:
    """A tiny CLIP's folder."""
    return text_models["IEI_MODELS"].split(",")[0].removeprefix("clip=")


@pytest.fixture(scope="module")
def alone(pictures: Path, model: str) -> dict[str, Any]:
    """Id → row, as one process makes them without Ray."""
    from iei.ray import Embedder

    files = sorted(file for file in pictures.rglob("*") if file.suffix in (".png", ".jpg"))
    table = pa.table({"id": [str(file.relative_to(pictures)) for file in files], "path": list(map(str, files))})
    embedder = Embedder(model)
    rows = _by_id(embedder(table))
    embedder.close()
    return rows


def test_a_node_that_dies_costs_no_row(
    cluster: Any, nodes: list[Any], pictures: Path, model: str, alone: dict[str, Any], tmp_path: Path
) -> None:
    import ray.data

    from iei.ray import embed

    rows = embed(
        ray.data.read_binary_files(
            str(pictures), include_paths=True, file_extensions=["png", "jpg"], override_num_blocks=20
        ),
        model,
        actors=2,
        batch_size=8,
        num_cpus=1,
        resources={"embed": 1},
        id_column="path",
    )
    killed = threading.Event()

    def kill() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob("*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.01)
        cluster.remove_node(nodes[0], allow_graceful=False)
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    rows.write_parquet(str(tmp_path))
    assert killed.is_set()
    killer.join()

    written = dataset.dataset(tmp_path)
    assert written.schema.field("embedding").type == pa.list_(pa.float32(), len(alone["0/000.png"]["embedding"]))
    assert b'"model"' in written.schema.metadata[b"iei"]
    found = _by_id(written.to_table(), below=pictures)
    _assert_same(found, alone)
    assert "known format" in found[BROKEN]["error"]


def test_a_job_goes_on_where_it_was(
    nodes: list[Any], pictures: Path, model: str, alone: dict[str, Any], tmp_path: Path
) -> None:
    from iei.bulk.options import BulkOptions
    from iei.ray.arguments import settings_of
    from iei.ray.data import Job, run

    inputs, out = tmp_path / "pictures", tmp_path / "out"
    (inputs / "0").mkdir(parents=True)
    job = Job([str(inputs)], str(out), actors=1, rows_per_file=1000)
    settings = settings_of({"model": model})
    parts: set[Path] = set()
    for begin, end in ((0, 30), (30, 45)):
        for file in sorted(pictures.glob("0/*.png"))[begin:end]:
            (inputs / "0" / file.name).write_bytes(file.read_bytes())
        assert run(settings, BulkOptions(), job) == (end, 0)
        (new,) = {*out.glob("*.parquet")} - parts
        assert dataset.dataset(new).count_rows() == end - begin
        parts.add(new)
    found = _by_id(dataset.dataset(out).to_table())
    _assert_same(found, {name: alone[name] for name in list(alone)[:45]})
    with pytest.raises(StartupError, match=r"is of another job: dimensions \(8 now, None then\). Give another folder"):
        run(settings, BulkOptions(dimensions=8), job)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "out", "--dedup"], "--dedup has no meaning with --engine ray"),
        (["-o", "out.parquet"], "the output is a folder"),
        ([], "the output is a folder"),
    ],
)
def test_what_a_cluster_does_not_do_is_said(flags: list[str], message: str) -> None:
    from iei.commands.main import main

    with pytest.raises(SystemExit, match=message):
        main(["embed", "--demo", "--engine", "ray", "pictures", *flags])


def test_tables_and_shards_are_read_by_ray(cluster: Any, tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    from iei.ray.data import read

    table = pa.table({"key": [7, 8], "photo": [_drawn(0), _drawn(1)], "caption": ["one", "two"]})
    pyarrow.parquet.write_table(table, tmp_path / "photos.parquet")
    pyarrow.csv.write_csv(table.drop_columns("photo"), tmp_path / "texts.csv")
    with tarfile.open(tmp_path / "shard-0.tar", "w") as shard:
        for name, data in (("a.jpg", _drawn(0)), ("a.json", b"{}"), ("b.png", _drawn(1))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))

    parquet = read([f"{tmp_path}/photos.parquet:photo"], id_column="key")
    assert (parquet.column, parquet.unique, parquet.kept) == ("photo", "key", ("key",))
    assert _columns(parquet.dataset, "id", "photo") == [("7", _drawn(0)), ("8", _drawn(1))]
    texts = read([f"{tmp_path}/texts.csv:caption"], id_column="key")
    assert {"id", "caption"} <= set(texts.dataset.schema().names)
    shards = read([f"{tmp_path}/shard-0.tar"])
    assert _columns(shards.dataset, "id", "image") == [("shard-0.tar/a", _drawn(0)), ("shard-0.tar/b", _drawn(1))]

    with pytest.raises(StartupError, match=r"no column .id.: name one with --id-column.* there are: key, photo"):
        read([f"{tmp_path}/photos.parquet"])
    with pytest.raises(StartupError, match="all inputs are of one kind"):
        read([f"{tmp_path}/photos.parquet", str(tmp_path)])


def test_arguments_of_an_actor_are_checked() -> None:
    from iei.ray import Embedder

    with pytest.raises(StartupError, match=r"dimension is no argument: did you mean dimensions\?"):
        Embedder("demo", dimension=8)


def _drawn(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels).resize((64, 48)), "PNG")


def _columns(rows: Any, *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in names) for row in rows.take_all())


def _by_id(table: Any, below: Path | None = None) -> dict[str, Any]:
    rows: Sequence[Any] = table.to_pylist()
    found = {row["id"].removeprefix(f"{below}/"): row for row in rows}
    assert len(found) == len(rows)  # none twice
    return found


def _assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit for bit but for the vectors, whose last bits depend on the batch that they were in."""
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        for column in ("width", "height", "sha256", "error"):
            assert found[name][column] == row[column], name
        if row["embedding"]:
            np.testing.assert_allclose(found[name]["embedding"], row["embedding"], atol=1e-5)
