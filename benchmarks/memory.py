"""What a server's processes take of the machine's memory: PSS, in which a page shared by n counts 1/n for each."""

from __future__ import annotations

from pathlib import Path

import psutil

ROLES = {"iei.engine.process": "engine", "iei.engine.supervisor": "supervisor"}


def by_role(master_pid: int, processes: list[psutil.Process]) -> dict[str, list[float]]:
    """Role → MiB of PSS of each of its processes."""
    roles: dict[str, list[float]] = {}
    for process in processes:
        roles.setdefault(role(process, master_pid), []).append(pss_mib(process.pid))
    return roles


def pss_mib(pid: int) -> float:
    """PSS of one process in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss")


def own_mib(pid: int) -> float:
    """MiB that no other process has mapped: unlike PSS, it does not change when a process that shares pages ends."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def role(process: psutil.Process, master_pid: int) -> str:
    """What a process of a server is: `master`, `worker`, or one of `ROLES`."""
    if process.pid == master_pid:
        return "master"
    # A worker is a fork of the master, and has no command line of its own.
    return next((ROLES[word] for word in process.cmdline() if word in ROLES), "worker")
