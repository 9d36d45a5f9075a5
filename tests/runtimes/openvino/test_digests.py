"""A file that has not changed is not read again; whatever is in the record, a digest is that of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from iei.runtimes.openvino import digests
from iei.runtimes.openvino.digests import Digests

OLD_S = 1e9
"""A time long ago, in seconds since 1970."""
WEIGHTS = b"weights"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "digests"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Written long ago, by the clock of those who look: nothing sets a file's `ctime`."""
    monkeypatch.setattr(digests, "COARSEST_CLOCK_NS", -(10**15))
    file = tmp_path / "model.safetensors"
    file.write_bytes(WEIGHTS)
    return file


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that have been read to compute their digests."""
    reads: list[Path] = []

    def reading(file: Path) -> str:
        reads.append(file)
        return sha256(file.read_bytes()).hexdigest()

    monkeypatch.setattr(digests, "sha256", reading)
    return reads


def digest(record: Path, file: Path) -> str:
    """As one start computes it."""
    remembered = Digests(record)
    found = remembered.of(file)
    remembered.save()
    return found


def test_an_unchanged_file_is_read_once(record: Path, file: Path, reads: list[Path]) -> None:
    assert [digest(record, file) for _ in range(3)] == [sha256(WEIGHTS).hexdigest()] * 3
    assert reads == [file]


def test_a_link_is_the_file_that_it_leads_to(record: Path, file: Path, reads: list[Path], tmp_path: Path) -> None:
    digest(record, file)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert digest(record, link) == sha256(WEIGHTS).hexdigest()
    assert reads == [file]


def _rewritten(file: Path) -> None:
    before = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == before:  # until the file system's clock has gone on
        file.write_bytes(b"WEIGHTS")
        os.utime(file, (OLD_S, OLD_S))


def _replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, (OLD_S, OLD_S))
    other.replace(file)


def _longer(file: Path) -> None:
    file.write_bytes(b"more weights")


@pytest.mark.parametrize("change", [_rewritten, _replaced, _longer])
def test_a_changed_file_is_read_again_though_its_time_is_the_same(
    change: Callable[[Path], None], record: Path, file: Path, reads: list[Path]
) -> None:
    os.utime(file, (OLD_S, OLD_S))
    digest(record, file)
    change(file)
    assert digest(record, file) == sha256(file.read_bytes()).hexdigest()
    assert reads == [file, file]


def test_a_file_that_was_just_written_is_not_remembered(
    record: Path, file: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "COARSEST_CLOCK_NS", 10**15)
    digest(record, file)
    digest(record, file)
    assert reads == [file, file]
    assert not record.exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    record: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path) -> str:
        found = sha256(path.read_bytes()).hexdigest()
        path.write_bytes(b"longer than before")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(digests, "sha256", changing)
        digest(record, file)
    assert digest(record, file) == sha256(b"longer than before").hexdigest()


def _sealed(entries: object) -> bytes:
    content = json.dumps(entries).encode()
    return sha256(content).hexdigest().encode() + b"\n" + content


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\0" * 100, b"\xff\n{}", _sealed([]), _sealed({"a": 1}), _sealed({"a": [[1, 2, 3, 4], 5]})],
    ids=["empty", "line", "zeros", "no text", "list", "number", "no digest"],
)
def test_what_is_no_record_is_replaced(content: bytes, record: Path, file: Path, reads: list[Path]) -> None:
    record.parent.mkdir()
    record.write_bytes(content)
    for _ in range(2):
        assert digest(record, file) == sha256(WEIGHTS).hexdigest()
    assert reads == [file]


def test_every_damaged_letter_is_noticed(record: Path, file: Path) -> None:
    right = digest(record, file)
    whole = record.read_bytes()
    for place in range(len(whole)):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert Digests(record).of(file) == right


def _written_by_the_group(record: Path) -> None:
    record.chmod(0o664)


def _a_link(record: Path) -> None:
    record.rename(record.with_name("elsewhere"))
    record.symlink_to("elsewhere")


def _a_pipe(record: Path) -> None:
    record.unlink()
    os.mkfifo(record)


def _a_folder(record: Path) -> None:
    record.unlink()
    record.mkdir()


def _of_another_user(record: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(record, 12345, -1)


@pytest.mark.parametrize("change", [_written_by_the_group, _a_link, _a_pipe, _a_folder, _of_another_user])
def test_a_record_that_others_may_have_written_is_not_believed(
    change: Callable[[Path], None], record: Path, file: Path, reads: list[Path]
) -> None:
    digest(record, file)
    entry = json.loads(record.read_bytes().partition(b"\n")[2])
    entry[str(file.resolve())][1] = "0" * 64
    record.write_bytes(_sealed(entry))
    assert Digests(record).of(file) == "0" * 64, "the forged record is as IEI writes it"
    change(record)
    assert digest(record, file) == sha256(WEIGHTS).hexdigest()
    assert reads == [file, file]


def test_only_the_files_that_were_read_last_are_kept(
    record: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOST_FILES", 2)
    others = [tmp_path / "one", tmp_path / "two"]
    for each in [file, *others]:
        each.write_bytes(b"content")
        digest(record, each)
    assert str(file) not in record.read_text()
    assert all(str(other) in record.read_text() for other in others)


def test_files_whose_folder_may_not_be_looked_into_are_no_fault(
    record: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest(record, file)
    other = tmp_path / "other"
    other.write_bytes(b"others")
    look = Path.stat

    def forbidden(path: Path, **options: Any) -> Any:
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", forbidden)
    assert digest(record, other) == sha256(b"others").hexdigest()
    assert str(other) in record.read_text()


def test_files_of_an_image_that_gives_all_one_time_are_not_remembered(
    record: Path, file: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_state", lambda path: digests.State(7, 10**18, 10**18, 1))
    digest(record, file)
    digest(record, file)
    assert reads == [file, file]


def test_where_there_is_no_place_for_a_record_files_are_read(file: Path) -> None:
    remembered = Digests(None)
    assert remembered.of(file) == sha256(WEIGHTS).hexdigest()
    remembered.save()


def test_where_nothing_can_be_written_files_are_read(tmp_path: Path, file: Path, reads: list[Path]) -> None:
    (tmp_path / "cache").write_text("no folder")
    for _ in range(2):
        assert digest(tmp_path / "cache" / "digests", file) == sha256(WEIGHTS).hexdigest()
    assert reads == [file, file]


def test_a_record_is_written_whole_or_not_at_all(record: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", fails)
        digest(record, file)
    assert list(record.parent.iterdir()) == []


def test_starts_do_not_write_what_is_known(record: Path, file: Path) -> None:
    digest(record, file)
    before = record.stat().st_ino
    digest(record, file)
    assert record.stat().st_ino == before
