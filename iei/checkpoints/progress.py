"""How a download shows that it goes on."""

from __future__ import annotations

import sys
import time
from typing import Any

from huggingface_hub.utils.tqdm import tqdm as Bars

EVERY_S = 10.0


class Lines(Bars):
    """Where stderr is no terminal (a container's log): a line now and then, in place of bars that redraw themselves."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # huggingface_hub makes three bars for one download; this one counts the bytes that are there.
        self._counts = options.get("name") == "huggingface_hub.snapshot_download"
        self._next_s = time.monotonic() + 1.0
        super().__init__(*args, **{**options, "disable": False})  # type: ignore[no-untyped-call]

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + EVERY_S
            self._print()

    def close(self) -> None:
        if not self.disable:
            self._print()
        self.disable = True  # else tqdm ends each of its bars with an empty line
        super().close()

    def _print(self) -> None:
        if self._counts and self.total:
            print(f"downloaded {self.n / 1e6:.1f} of {self.total / 1e6:.1f} MB", file=sys.stderr, flush=True)


def progress() -> type[Bars]:
    """The class of bars for this process's stderr."""
    return Bars if sys.stderr.isatty() else Lines
