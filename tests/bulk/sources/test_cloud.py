"""The same inputs through fsspec: its file system in memory, and an S3 server."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iei.errors import StartupError
from tests.bulk.sources.reading import contents, ids, opened
from tests.pictures import png

PICTURE = png()


def put(root: str) -> None:
    """The same objects, wherever."""
    shard, table = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as archive:
        info = tarfile.TarInfo("000.png")
        info.size = len(PICTURE)
        archive.addfile(info, io.BytesIO(PICTURE))
    pq.write_table(pa.table({"path": [f"{root}/photos/b.jpg", "photos/sub/c.png"]}), table)
    for name, data in (
        ("photos/b.jpg", PICTURE),
        ("photos/sub/c.png", PICTURE),
        ("photos/notes.txt", b"hello"),
        ("photos/.hidden/x.jpg", b""),
        ("shards/s-0.tar", shard.getvalue()),
        ("shards/s-1.tar", shard.getvalue()),
        ("x.parquet", table.getvalue()),
        ("x.csv", f"where\n{root}/photos/b.jpg\n".encode()),
    ):
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(data)


@pytest.fixture
def memory() -> Iterator[str]:
    put("memory://bucket")
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="other people's packages: uv sync --group clients")
    s3fs = pytest.importorskip("s3fs", reason="the extra `cloud`: uv sync --group clients")
    threaded = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    threaded.start()
    host, port = threaded.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        fsspec.filesystem("s3").mkdir("bucket")
        put("s3://bucket")
        yield "s3://bucket"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        threaded.stop()


@pytest.mark.parametrize("store", ["memory", "s3"])
@pytest.mark.filterwarnings("default")  # clients of clouds warn about themselves
def test_every_kind_of_input(store: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(store)
    folder = opened(f"{root}/photos")
    assert ids(folder) == ["b.jpg", "sub/c.png"]
    assert contents(folder) == [PICTURE, PICTURE]
    assert folder.skipped == 1
    assert ids(opened(f"{root}/photos/")) == ["b.jpg", "sub/c.png"]
    assert ids(opened(f"{root}/photos/**/*.png")) == [f"{root}/photos/sub/c.png"]
    assert contents(opened(f"{root}/photos/b.jpg")) == [PICTURE]
    assert ids(opened(f"{root}/shards/s-{{0..1}}.tar")) == ["s-0.tar/000", "s-1.tar/000"]
    assert contents(opened(f"{root}/shards")) == [PICTURE, PICTURE]
    assert contents(opened(f"{root}/x.parquet:path")) == [PICTURE, PICTURE]
    assert contents(opened(f"{root}/x.csv:where")) == [PICTURE]
    with pytest.raises(StartupError, match=rf"{root}/nothing\.jpg does not exist"):
        opened(f"{root}/nothing.jpg")
    with pytest.raises(StartupError, match=r"none/\*\.jpg does not exist"):
        opened(f"{root}/none/*.jpg")


def test_a_scheme_that_nothing_reads_is_named() -> None:
    with pytest.raises(StartupError, match=r"^nowhere://x/y can't be read: fsspec knows no nowhere://"):
        opened("nowhere://x/y")


def test_a_cloud_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(
        StartupError, match=r"^s3:// needs a package .*pip install 'image-embedding-inference\[cloud\]'"
    ):
        opened("s3://bucket/x")
