"""Progress of downloads on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from huggingface_hub.utils.tqdm import tqdm as Bars

EVERY_S = 10.0


class Lines(Bars):
    """A line every 10 s instead of a bar, where stderr is not a terminal (a container's log)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # huggingface_hub makes three bars for one download; this one counts the bytes that are there.
        self._counts = options.get("name") == "huggingface_hub.snapshot_download"
        self._next_s = time.monotonic() + 1.0
        super().__init__(*args, **{**options, "disable": False})  # type: ignore[no-untyped-call]

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Prints a line if it is time for one. tqdm calls this after each update; both arguments are ignored."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + EVERY_S
            self._print()

    def close(self) -> None:
        """Prints the last line."""
        if not self.disable:
            self._print()
        self.disable = True  # else tqdm ends each of its bars with an empty line
        super().close()

    def _print(self) -> None:
        if self._counts and self.total:
            print(f"downloaded {self.n / 1e6:.1f} of {self.total / 1e6:.1f} MB", file=sys.stderr, flush=True)


def progress() -> type[Bars]:
    """Returns the class of progress bars that suits this process's stderr."""
    return Bars if sys.stderr.isatty() else Lines
