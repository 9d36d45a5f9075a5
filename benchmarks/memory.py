"""What processes take of the machine's memory: PSS, in which a page shared by n processes counts 1/n for each."""

from __future__ import annotations

from pathlib import Path

import psutil

ROLES = {"iei.engine.process": "engine", "iei.engine.supervisor": "supervisor"}


def by_role(family: list[psutil.Process]) -> dict[str, list[float]]:
    """Role → MiB of PSS of each of its processes. The first of `family` is the master."""
    roles: dict[str, list[float]] = {}
    for process in family:
        roles.setdefault(_role(process, family[0]), []).append(pss_mib(process.pid))
    return roles


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss")


def _role(process: psutil.Process, master: psutil.Process) -> str:
    if process == master:
        return "master"
    command = process.cmdline()
    # A worker is a fork of the master, and keeps its command line.
    return (
        "worker" if command == master.cmdline() else next((ROLES[part] for part in command if part in ROLES), "other")
    )
