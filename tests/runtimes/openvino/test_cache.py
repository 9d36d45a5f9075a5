"""A converted model is made once, whoever asks, and made again when it is not what was written."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iei.runtimes.openvino.cache import kept, key
from iei.runtimes.openvino.converted import DESCRIPTION, Converted, read_converted, sha256


class Maker:
    """Makes a model of one file, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, folder: Path) -> None:
        self.made += 1
        (folder / "image.bin").write_bytes(b"weights")
        Converted({}, files={"image.bin": sha256(folder / "image.bin")}).write(folder)


def test_made_once(tmp_path: Path) -> None:
    make = Maker()
    folder = kept(tmp_path / "cache" / "key", make)
    assert kept(folder, make) == folder
    assert make.made == 1
    assert [file.name for file in folder.parent.iterdir() if file.is_dir()] == ["key"], "a draft is left"


def test_several_at_once_make_one(tmp_path: Path) -> None:
    make, together = Maker(), threading.Barrier(4)

    def start(_: int) -> Path:
        together.wait()
        return kept(tmp_path / "key", make)

    with ThreadPoolExecutor(4) as starts:
        assert set(starts.map(start, range(4))) == {tmp_path / "key"}
    assert make.made == 1


@pytest.mark.parametrize(
    ("file", "content"), [("image.bin", b"weightz"), ("image.bin", None), (DESCRIPTION, b"{}"), (DESCRIPTION, None)]
)
def test_what_is_damaged_is_made_again(
    file: str, content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    folder = kept(tmp_path / "key", make)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with caplog.at_level(logging.WARNING, "iei.engine"):
        kept(folder, make)
    assert make.made == 2
    assert read_converted(folder).files
    was_found = (file, content) != (DESCRIPTION, None)
    assert ("converted again" in caplog.text) is was_found


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        kept(tmp_path / "key", fail)
    assert [file.name for file in tmp_path.iterdir()] == ["key.lock"]
    assert kept(tmp_path / "key", Maker())


def test_key_changes_with_what_decides_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written(folder: str, **files: str) -> Path:
        for name, content in {"config.json": "{}", "model.safetensors": "1", **files}.items():
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(content)
        return tmp_path / folder

    same = key(written("a"))
    assert key(written("b", **{"README.md": "new"})) == same
    assert key(written("c", **{"model.safetensors": "2"})) != same
    assert key(written("d", **{"2_Dense/model.safetensors": "1"})) != same
    monkeypatch.setattr("iei.runtimes.openvino.cache.versions", lambda: {"openvino": "1"})
    assert key(written("e")) != same
