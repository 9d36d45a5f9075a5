"""What the machine gives: cores that this process may use, memory that processes use and share."""

from __future__ import annotations

import os
import tempfile
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
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        group = next(line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
        quota, period = (root / "sys/fs/cgroup" / group / "cpu.max").read_text().split()
    except (OSError, StopIteration):
        return None
    return None if quota == "max" else -(-int(quota) // int(period))
