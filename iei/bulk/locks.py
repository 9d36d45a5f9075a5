"""Two runs in one folder of parts at a time are refused, unless they are different shards of one division."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from iei.bulk.manifest import Shard
from iei.errors import StartupError


@contextmanager
def locked(folder: Path, shard: Shard) -> Iterator[None]:
    """Locks a folder for a shard while the block runs. The kernel unlocks it when the process ends, however it does.

    A shard holds a lock of its own, and shares that of its division with the other shards. Divisions into different
    numbers would make the same parts, so a lock of another division is tried, too: of two that start together, both
    see the other.

    Args:
        folder: where the locks are.
        shard: who works there.

    Raises:
        StartupError: another run works there.
        OSError: the folder can't be written.
    """
    with ExitStack() as held:
        division = folder / f"of-{shard.count}.lock"
        _take(held, division, fcntl.LOCK_SH, folder)
        _take(held, folder / f"{shard}.lock", fcntl.LOCK_EX, folder)
        for other in folder.glob("of-*.lock"):
            if other != division:
                with ExitStack() as tried:
                    _take(tried, other, fcntl.LOCK_EX, folder)
        yield


def _take(held: ExitStack, file: Path, kind: int, folder: Path) -> None:
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    held.callback(os.close, fd)
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(
            f"another run works in {folder.parent} ({file.stem}): wait for its end, or divide the work by "
            "--shards 0/2 and --shards 1/2."
        ) from None
