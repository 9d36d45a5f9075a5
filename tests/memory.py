"""What of a file is in this process's memory."""

from __future__ import annotations

from pathlib import Path


def resident_kib(file: Path) -> int:
    """KiB of a file that this process has mapped and touched."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            inside = bool(rest) and rest[-1] == str(file.resolve())
        elif inside and first == "Rss:":
            total += int(rest[0])
    return total
