from __future__ import annotations

import mmap
import os
import platform
from pathlib import Path

import pytest

from iei.machine import cores, forget_mapped, free_memory, give_back_freed, resident_bytes
from iei.settings import InputSettings
from tests.memory import resident_kib


@pytest.mark.parametrize(
    ("group", "limit", "expected"),
    [
        ("", "150000 100000", 2),
        ("", "50000 100000", 1),
        ("", "max 100000", 8),
        ("", "6400000 100000", 8),
        ("system.slice/iei.service", "300000 100000", 3),
        ("", None, 8),
    ],
)
def test_cores_are_those_that_the_container_is_granted(
    group: str, limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"0::/{group}\n")
    folder = tmp_path / "sys/fs/cgroup" / group
    folder.mkdir(parents=True)
    if limit:
        (folder / "cpu.max").write_text(limit + "\n")
    assert cores(tmp_path) == expected


GIB = 2**30


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 8),
        ({"": "max", "pod/a": "max"}, 8),
        ({"pod/a": str(4 * GIB)}, 4 - 3 + 1),
        ({"pod/a": "max", "pod": str(5 * GIB)}, 5 - 3 + 1),
        ({"pod/a": str(6 * GIB), "pod": str(5 * GIB), "": str(9 * GIB)}, 5 - 3 + 1),
        ({"pod/a": str(GIB)}, 0),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_is_that_of_the_machine_and_of_the_containers(
    limits: dict[str, str], expected: int, version: int, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {16 << 20} kB\nMemAvailable: {8 << 20} kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/a\n" if version == 2 else "5:cpu:/\n3:rdma,memory:/pod/a\n")
    limit, taken = (
        ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    for group, content in limits.items():
        folder = tmp_path / "sys/fs/cgroup" / ("" if version == 2 else "memory") / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(content + "\n")
        (folder / taken).write_text(f"{3 * GIB}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {GIB}\n")
    assert free_memory(tmp_path) == expected * GIB


def test_free_memory_is_all_of_the_machines_where_nobody_says(tmp_path: Path) -> None:
    assert free_memory(tmp_path) >= free_memory() > 0


def test_decode_threads_are_shared_out_of_the_cores_that_are_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    assert InputSettings().threads(workers=2) == 2
    assert InputSettings().threads(workers=8) == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries can't be asked to")
def test_what_was_freed_is_given_back() -> None:
    pieces = [bytes(64 * 1024) for _ in range(1024)]
    last = pieces.pop()  # the end of the heap stays in use: what lies before it is not given back without being asked
    taken = resident_bytes(os.getpid())
    pieces.clear()
    give_back_freed()
    assert taken - resident_bytes(os.getpid()) > 32 << 20
    assert len(last) == 64 * 1024


def test_a_mapped_file_is_forgotten_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(range(256)) * 4096)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:]) == 4096 * sum(range(256))
        assert resident_kib(file) == 1024
        forget_mapped(file)
        assert resident_kib(file) == 0
        assert mapped[255] == 255
        assert resident_kib(file) > 0
