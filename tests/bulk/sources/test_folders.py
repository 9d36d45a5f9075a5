"""Folders, patterns and single files: what is read of them, in which order, and what is passed over."""

from __future__ import annotations

import os
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from iei.bulk.sources import folders
from iei.bulk.sources.files import LocalFiles
from iei.bulk.sources.folders import Folder
from iei.bulk.sources.pictures import SUFFIXES
from iei.errors import StartupError
from tests.bulk.sources.reading import content, contents, ids, opened
from tests.pictures import png

PICTURE = png()


def put(folder: Path, *names: str, data: bytes = PICTURE) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def test_a_folder_is_read_in_one_order_and_passes_over_what_is_no_picture(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/2.PNG", "a/10.webp", "c/d/e.tiff", "no-suffix", "of.unknown")
    put(tmp_path, "notes.txt", "c/other.unknown", "table.csv", data=b"no picture")
    put(tmp_path, ".hidden.jpg", ".git/x.jpg", "__MACOSX/b.jpg", "@eaDir/b.jpg/thumb.jpg")
    source = opened(tmp_path)
    expected = ["a/10.webp", "a/2.PNG", "b.jpg", "c/d/e.tiff", "no-suffix", "of.unknown"]
    assert ids(source) == expected
    assert source.skipped == 3
    assert source.total == 6
    assert ids(source) == expected, "a second time it is the same"
    assert source.skipped == 3
    assert contents(source) == [PICTURE] * 6


def test_pictures_in_formats_that_are_not_decoded_are_no_secret(tmp_path: Path) -> None:
    """A phone's pictures would be missing without a word."""
    put(tmp_path, "phone.heic", "a.jpg")
    assert ids(opened(tmp_path)) == ["a.jpg", "phone.heic"]
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"} < SUFFIXES


def test_two_folders_have_their_names_before(tmp_path: Path) -> None:
    put(tmp_path, "one/a.jpg", "two/a.jpg", "deep/one/a.jpg")
    assert ids(opened(tmp_path / "one", tmp_path / "two")) == ["one/a.jpg", "two/a.jpg"]
    both = [tmp_path / "one", tmp_path / "deep/one"]
    assert ids(opened(*both)) == [f"{folder}/a.jpg" for folder in both]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a/x.jpg")
    put(tmp_path / "elsewhere", "y.jpg")
    (tmp_path / "photos/a/up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "photos/a")
    (tmp_path / "photos/gone.jpg").symlink_to(tmp_path / "nowhere")
    assert ids(opened(tmp_path / "photos")) == ["a/x.jpg", "b/back/x.jpg", "b/y.jpg", "gone.jpg"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    assert ids(opened(tmp_path)) == ["a.jpg"]


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "film.jpg").open("wb") as file:
        file.truncate(2**31)
    (row,) = opened(tmp_path)
    with pytest.raises(OSError, match="File too large"):
        content(row)


def test_a_name_that_is_no_utf_8_has_an_id_and_is_read(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"caf\xe9.jpg"))
    source = opened(tmp_path)
    assert ids(source) == ["caf\\xe9.jpg"]
    assert contents(source) == [PICTURE]


def test_what_takes_long_to_count_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg")
    monkeypatch.setattr(folders, "COUNTING_S", -1)
    assert opened(tmp_path).total is None


class OneFolderLocked(LocalFiles):
    """As root, no folder is locked."""

    def names(self, folder: str) -> list[str]:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied", folder)
        if folder.endswith("lost"):
            raise OSError(116, "Stale file handle", folder)
        return super().names(folder)


def test_a_folder_that_may_not_be_read_is_a_row_with_an_error(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "locked/b.jpg", "z.jpg")
    rows = list(Folder(OneFolderLocked(), str(tmp_path)))
    assert ids(rows) == ["a.jpg", "locked/", "z.jpg"]
    assert contents(rows)[1] == "error:is a folder that this user may not read (permissions)"


def test_a_mount_that_has_vanished_stops_the_job(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "lost/b.jpg")
    rows = iter(Folder(OneFolderLocked(), str(tmp_path)))
    assert next(rows).id == "a.jpg"
    with pytest.raises(StartupError, match=r"lost can't be read: Stale file handle\.$"):
        next(rows)


def test_nothing_to_embed_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"has no files\.$"):
        opened(tmp_path)
    put(tmp_path, "a.txt", "b.txt", "sub/c.parquet", "README", data=b"no picture")
    with pytest.raises(StartupError, match=rf"^no pictures below {tmp_path} \(4 other files: 2 \.txt, 1 "):
        opened(tmp_path)
    with pytest.raises(StartupError, match="nowhere does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(StartupError, match="no file matches"):
        opened(tmp_path / "*.gif")
    with pytest.raises(StartupError, match="no pictures among the 2 files that match"):
        opened(tmp_path / "*.txt")
    with pytest.raises(StartupError, match="no input"):
        opened()


def test_what_has_no_columns_keeps_none(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    with pytest.raises(StartupError, match=r"has no columns, so none that is called 'label'\.$"):
        opened(tmp_path, keep=["label"])
    with pytest.raises(StartupError, match="has pictures, and the modality is text"):
        opened(tmp_path, modality="text")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg"]),
        ("sub/**", ["sub/c.jpg", "sub/deep/d.jpg"]),
        ("*/c.*", ["sub/c.jpg"]),
        ("[!b].jpg", ["a.jpg"]),
        ("[a-b].jp?", ["a.jpg", "b.jpg"]),
        ("{b,a}.jpg", ["b.jpg", "a.jpg"]),
        ("{b,*}.jpg", ["b.jpg", "a.jpg", "b.jpg"]),
    ],
)
def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: list[str]) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg")
    assert ids(opened(f"{tmp_path}/{pattern}")) == [f"{tmp_path}/{name}" for name in names]
    monkeypatch.chdir(tmp_path)
    assert ids(opened(pattern)) == names, "relative ones too"


def test_a_file_that_is_named_is_an_item_whatever_it_is(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt", data=b"no picture")
    put(tmp_path, "odd [1]{a,b}.jpg")
    source = opened(tmp_path / "odd [1]{a,b}.jpg", tmp_path / "notes.txt", "https://example.com/cat.jpg")
    assert ids(source) == [f"{tmp_path}/odd [1]{{a,b}}.jpg", f"{tmp_path}/notes.txt", "https://example.com/cat.jpg"]
    assert contents(source) == [PICTURE, b"no picture", "url:https://example.com/cat.jpg"]
    assert source.total == 3


class ManyFiles(LocalFiles):
    """A disk of 200 folders with 1,000 pictures each: making them would take longer than reading them."""

    def names(self, folder: str) -> list[str]:
        count, name = (200, "{:03d}/") if folder == "all" else (1000, "{:04d}.jpg")
        return [name.format(number) for number in range(count)]

    def identity(self, folder: str) -> Any:
        return folder


def test_names_are_held_a_folder_at_a_time() -> None:
    rows = iter(Folder(ManyFiles(), "all"))
    assert sum(1 for _ in islice(rows, 180_000)) == 180_000
    tracemalloc.start()
    assert sum(1 for _ in rows) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**19, "these names alone take three times that"
