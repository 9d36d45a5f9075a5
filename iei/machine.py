"""What this machine gives to this process."""

from __future__ import annotations

import os
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: a container sees all of its machine's, and is allowed some of them."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(present, _quota(root) or present))


def _quota(root: Path) -> int | None:
    """Cores that the cgroup (version 2) of this process grants, rounded up; None where there is no limit."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        group = next(line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
        quota, period = (root / "sys/fs/cgroup" / group / "cpu.max").read_text().split()
    except (OSError, StopIteration):
        return None
    return None if quota == "max" else -(-int(quota) // int(period))
