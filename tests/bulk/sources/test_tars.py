"""Shards of WebDataset, made with tarfile as its own writers make them."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.bulk.sources.tars import split
from iei.errors import StartupError
from tests.bulk.sources.reading import contents, ids, opened, until_stopped
from tests.pictures import png

PICTURE = png()


def shard(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(*keys: str) -> list[tuple[str, bytes]]:
    return [
        member
        for key in keys
        for member in (
            (f"{key}.cls", b"3"),
            (f"{key}.jpg", PICTURE),
            (f"{key}.json", json.dumps({"width": 5, "caption": f"json {key}"}).encode()),
            (f"{key}.txt", f"text {key}".encode()),
        )
    ]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")]
)
def test_samples(tmp_path: Path, name: str, mode: str) -> None:
    source = opened(shard(tmp_path / name, samples("000", "deep/001"), mode), keep=["txt", "width", "cls", "none"])
    assert ids(source) == [f"{name}/000", f"{name}/deep/001"]
    assert contents(source) == [PICTURE, PICTURE]
    assert next(iter(source)).kept == {"txt": "text 000", "width": 5, "cls": "3", "none": None}
    assert contents(opened(tmp_path / name, modality="text")) == ["text 000", "text deep/001"]


def test_shards_by_braces_are_one_source(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"s-{number:03d}.tar", samples("a", "b"))
    expected = [f"s-{number:03d}.tar/{key}" for number in range(3) for key in "ab"]
    for written in ("s-{000..002}.tar", "s-*.tar", ""):
        assert ids(opened(f"{tmp_path}/{written}")) == expected
    with pytest.raises(StartupError, match=r"s-003\.tar does not exist"):
        opened(f"{tmp_path}/s-{{000..003}}.tar")


def test_what_is_no_sample_is_passed_over(tmp_path: Path) -> None:
    members = [("readme.txt", b"hello"), *samples("a"), ("__MACOSX/a.jpg", b""), ("._b.jpg", b""), *samples("c")]
    source = opened(shard(tmp_path / "a.tar", members))
    assert ids(source) == ["a.tar/a", "a.tar/c"]
    assert source.skipped == 1


def test_one_of_several_pictures(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [("x.mask.png", b"mask"), ("x.left.JPG", b"left"), ("x.right.jpg", b"right")])
    assert contents(opened(file)) == [b"mask"]
    assert contents(opened(f"{file}:right.jpg")) == [b"right"]


def test_an_archive_that_is_cut_off_is_named_wherever_the_cut_is(tmp_path: Path) -> None:
    """tarfile takes most cuts for the end of the archive."""
    whole = shard(tmp_path / "a.tar", samples("a", "b", "c")).read_bytes()
    end = whole.rstrip(b"\0")
    for cut in (*range(512, len(end), 512), 600, len(end) - 3):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(StartupError, match=r"cut\.tar is damaged, or not a tar file: "):
            list(opened(tmp_path / "cut.tar"))
    for name, data in (("text.tar", b"no tar" * 1000), ("empty.tar", b""), ("a.tar.gz", b"\x1f\x8b broken")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StartupError, match="is damaged, or not a tar file"):
            opened(tmp_path / name)


def test_what_is_before_the_damage_counts(tmp_path: Path) -> None:
    data = shard(tmp_path / "a.tar", samples("a", "b", "c")).read_bytes()
    third = data.index(b"c.cls")
    (tmp_path / "a.tar").write_bytes(data[:third] + b"garbage!" * 1000)
    seen, sentence = until_stopped(opened(tmp_path / "a.tar"))
    assert seen == ["a.tar/a"], "the second may have lost members"
    assert sentence.startswith(f"{tmp_path}/a.tar is damaged, or not a tar file: ")


def test_a_large_shard_takes_no_memory(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [(f"{number:05d}.jpg", b"x") for number in range(2_000)])
    source = opened(file)
    tracemalloc.start()
    assert sum(1 for _ in source) == 2_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**19, "tarfile keeps 1 KiB of each member"


NAMES = st.text("ab./", min_size=1, max_size=8)


@given(NAMES)
def test_key_and_extension_make_the_name(name: str) -> None:
    key, extension = split(name)
    assert name.removeprefix("./") in (f"{key}.{extension}", key) or "//" in name
    assert "." not in key.rsplit("/", 1)[-1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["jpg", "txt", "mask.png"])), max_size=12))
def test_samples_are_neighbours_with_one_key(members: list[tuple[str, str]]) -> None:
    from itertools import groupby
    from tempfile import TemporaryDirectory

    expected = [
        key
        for key, group in groupby(members, key=lambda member: member[0])
        if any(extension != "txt" for _, extension in list(group))
    ]
    with TemporaryDirectory() as folder:
        file = shard(Path(folder) / "a.tar", [(f"{key}.{extension}", b"x") for key, extension in members])
        assert ids(opened(file)) == [f"a.tar/{key}" for key in expected]
