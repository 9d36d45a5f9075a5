"""What the machine gives: cores that this process may use, memory that processes use and share, devices, packages."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Number of CPU cores that this process may use; at least 1.

    The smaller of the CPU affinity and the cgroup quota: a container sees all cores of its host, but its quota may
    allow it fewer.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(present, _quota(root) or present))


def resident_bytes(pid: int) -> int:
    """Memory that a process has in use, as Linux counts it; 0 if it has ended, or elsewhere."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still take; where there is no /proc, all of the machine's.

    The least of what the machine has left, and what each of the cgroups around this process may still take. Files that
    are only cached count as free. A container may not see the groups around its own.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    try:
        free = 1024 * _fields(root / "proc" / "meminfo")["MemAvailable:"]
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder, limit, taken in _memory_groups(root):
        try:
            least = int((folder / limit).read_text())  # ValueError: "max"
            cached = _fields(folder / "memory.stat")["inactive_file"]
            free = min(free, max(0, least - int((folder / taken).read_text()) + cached))
        except (OSError, ValueError, KeyError):
            continue
    return free


def forget_mapped(file: Path) -> None:
    """Drops the pages of a file that this process has mapped. Whoever touches them again gets them read again.

    For weights that a library keeps mapped although it has copied them. Does nothing where there is no /proc.
    """
    try:
        maps = Path("/proc/self/maps").read_bytes().split(b"\n")
    except OSError:
        return
    wanted = os.fsencode(file.resolve())
    for line in maps:
        fields = line.split(maxsplit=5)  # bounds, mode, offset, device, inode, path
        if fields[5:] == [wanted] and b"w" not in fields[1]:
            start, end = (int(bound, 16) for bound in fields[0].split(b"-"))
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def give_back_freed() -> None:
    """Gives memory that this process has freed back to the system, which malloc does by itself for large pieces only.

    For when something that took a lot has been done. Does nothing where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def anonymous_memory(name: str, nbytes: int) -> int:
    """The descriptor of new memory, filled with zeros, for processes that share it.

    It has no name in any file system, and so nothing to clean up: `name` is for those who look at /proc.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:  # macOS: an unlinked temporary file does the same work
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, nbytes)
    return fd


def _quota(root: Path) -> int | None:
    """CPU quota of this process's cgroup (version 2) in cores, rounded up; None if there is no limit."""
    try:
        quota, period = (root / "sys/fs/cgroup" / _cgroups(root)[""] / "cpu.max").read_text().split()
    except (OSError, KeyError):
        return None
    return None if quota == "max" else -(-int(quota) // int(period))


def _cgroups(root: Path) -> dict[str, str]:
    """Controllers → the path of this process's cgroup that has them. Version 2 has one group, "", for all of them.

    Raises:
        OSError: the system has no cgroups.
    """
    lines = (root / "proc/self/cgroup").read_text().splitlines()
    return {controllers: path.removeprefix("/") for _, controllers, path in (line.split(":", 2) for line in lines)}


def _memory_groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders of the cgroups around this process, and what their limit and what they have taken is called there.

    In a container of version 1, the path is the host's, but its group is mounted at the top.
    """
    try:
        groups = _cgroups(root)
    except OSError:
        return
    for controllers, path in groups.items():
        if controllers == "":
            top, limit, taken = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, taken = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = top / path
        for folder in (own, *own.parents):
            yield folder, limit, taken
            if folder == top:
                break


def _fields(file: Path) -> dict[str, int]:
    """What a file of the kernel's has as lines of a name and a number."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1}


def cpu_has(*flags: str, root: Path = Path("/")) -> bool:
    """Whether Linux says that the CPU has one of these flags, such as `avx512_bf16`.

    Args:
        *flags: as /proc/cpuinfo names them.
        root: where `proc` is mounted.
    """
    try:
        words = (root / "proc" / "cpuinfo").read_text().split()
    except OSError:
        return False
    return not set(flags).isdisjoint(words)


def has_gpu(root: Path = Path("/")) -> bool:
    """Whether a driver of a GPU that torch may compute on is here: NVIDIA's, AMD's, or that of Windows under Linux.

    Args:
        root: where `dev` is mounted.
    """
    return any((root / "dev" / name).exists() for name in ("nvidiactl", "kfd", "dxg"))


def is_cpu(device: str) -> bool:
    """Whether a device, as `IEI_DEVICE` names it, is the CPU: `auto` is where there is no GPU."""
    return device == "cpu" or (device == "auto" and not has_gpu())


def not_installed(*packages: str) -> list[str]:
    """Those of the packages that can't be imported here. Imports none."""
    return [package for package in packages if find_spec(package) is None]


def cache_folder(chosen: Path | None) -> Path:
    """Where IEI keeps what it can make again: `chosen` (`IEI_CACHE_DIR`), or else `~/.cache/iei`."""
    return (chosen or Path("~/.cache/iei")).expanduser()
