"""`Embedder`: items become rows, in order, with the vectors that a server gives; bad ones cost their own row only."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image

from iei.bulk.embedder import Embedder
from iei.bulk.items import Broken, Content, Encoded, Item, Stored, Text
from iei.bulk.options import BulkOptions, Encoding
from iei.bulk.row import Row
from iei.errors import IEIError, InvalidInput, StartupError
from iei.settings import read_settings
from tests import pictures
from tests.servers import Server


@pytest.fixture(scope="module")
def embedder(demo_cache: str) -> Iterator[Embedder]:
    embedder = _embedder(demo_cache, BulkOptions())
    yield embedder
    embedder.close()


def _embedder(demo_cache: str, options: BulkOptions) -> Embedder:
    return Embedder(read_settings(model="demo", device="cpu", cache_dir=demo_cache), options)


def rows_of(embedder: Embedder, *contents: Content) -> list[Row]:
    async def all_of_them() -> list[Row]:
        async with embedder.running() as running:
            items = [Item(str(place), content) for place, content in enumerate(contents)]
            return [row async for row in running.rows(items)]

    return asyncio.run(all_of_them())


def server_vectors(server: Server, path: str, body: object) -> npt.NDArray[np.float32]:
    response = httpx.post(server.url + path, json=body, headers={"accept": "application/x-npy"}, timeout=60)
    vectors: npt.NDArray[np.float32] = np.load(io.BytesIO(response.content))
    return vectors


def test_pictures_have_the_vectors_of_the_server(embedder: Embedder, demo_server: Server) -> None:
    (row,) = rows_of(embedder, Encoded(pictures.jpeg()))
    expected = server_vectors(demo_server, "/embed", {"inputs": pictures.base64_of(pictures.jpeg())})
    assert row.embedding is not None
    np.testing.assert_allclose(row.embedding, expected[0], atol=1e-4)  # the server may have another runtime


def test_texts_have_the_vectors_of_the_server(text_models: dict[str, str], text_server: Server) -> None:
    models, cache_dir = text_models["IEI_MODELS"], text_models["IEI_CACHE_DIR"]
    settings = read_settings(models=models, device="cpu", runtime="openvino", cache_dir=cache_dir)  # as the server's
    embedder = Embedder(settings, BulkOptions(modality="text"))
    (row,) = rows_of(embedder, Text("a cat"))
    embedder.close()
    assert row.embedding is not None
    assert np.array_equal(row.embedding, server_vectors(text_server, "/embed", {"inputs": "a cat"})[0])
    assert row.sha256 == hashlib.sha256(b"a cat").hexdigest()
    assert row.picture is None


def test_a_bad_item_costs_its_own_vector_and_rows_keep_their_order(embedder: Embedder, tmp_path: Path) -> None:
    def gone() -> bytes:
        return (tmp_path / "none").read_bytes()

    good = pictures.encoded()["jpeg exif turned"]
    contents: list[Content] = [
        Encoded(b"no picture"),
        Stored(gone),
        Encoded(good),
        Broken(InvalidInput("is null")),
        Text("a cat"),
    ]
    rows = rows_of(embedder, *contents)
    assert [row.id for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row.error and row.error.split(" (")[0] for row in rows] == [
        "is not an image in a known format",
        "can't be read: No such file or directory",
        None,
        "is null",
        "model 'demo' takes no texts",
    ]
    assert [row.embedding is None for row in rows] == [True, True, False, True, True]
    assert rows[2].picture == (64, 96)
    assert rows[2].sha256 == hashlib.sha256(good).hexdigest()
    assert rows[1].sha256 is None


@pytest.mark.parametrize(
    ("encoding", "kind", "length"),
    [
        ("float32", pa.float32(), 192),
        ("float16", pa.float16(), 192),
        ("int8", pa.int8(), 192),
        ("ubinary", pa.uint8(), 24),
    ],
)
def test_tables_have_vectors_as_lists_of_fixed_size(
    demo_cache: str, encoding: Encoding, kind: pa.DataType, length: int
) -> None:
    embedder = _embedder(demo_cache, BulkOptions(encoding=encoding, keep=("label",)))
    table = pa.table({"bytes": [pictures.png(), None], "label": [7, 8]})
    result = embedder.table(table)
    embedder.close()
    assert result.schema.field("embedding").type == pa.list_(kind, length)
    assert result["embedding"].null_count == 1
    assert result["label"].to_pylist() == [7, 8]
    assert result["error"].to_pylist() == [None, "is null"]


def test_tables_come_one_by_one_with_ids_and_thumbnails(demo_cache: str) -> None:
    embedder = _embedder(demo_cache, BulkOptions(thumbnails=32))
    for name in ("a", "b"):
        table = pa.table({"image": [{"bytes": pictures.jpeg(), "path": "x.jpg"}], "path": [name]})
        (row,) = embedder.table(table).to_pylist()
        assert row["id"] == name
        assert (row["width"], row["height"]) == (500, 375)
        assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (32, 24)
    embedder.close()


def test_a_table_without_a_column_to_embed_is_refused(embedder: Embedder) -> None:
    with pytest.raises(StartupError, match="the table has the columns label: name the one that is embedded"):
        embedder.table(pa.table({"label": [1]}))
    with pytest.raises(StartupError, match="column 'label' has neither bytes"):
        embedder.table(pa.table({"label": [1]}), "label")


def test_what_the_model_can_not_give_is_refused_at_once(demo_cache: str) -> None:
    with pytest.raises(IEIError, match="dimensions must be from 1 to 192"):
        _embedder(demo_cache, BulkOptions(dimensions=500))
    with pytest.raises(IEIError, match="multiple of 8"):
        _embedder(demo_cache, BulkOptions(dimensions=100, encoding="ubinary"))


def test_items_are_read_ahead_no_further_than_a_few_batches(embedder: Embedder) -> None:
    """However long the input is: what is in memory has a bound."""
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        while True:
            taken += 1
            yield Item(str(taken), Encoded(pictures.png()))

    async def some() -> None:
        async with embedder.running() as running:
            rows = running.rows(endless())
            async for row in rows:
                if row.id == "40":
                    break
            await rows.aclose()

    asyncio.run(some())
    assert taken < 300
