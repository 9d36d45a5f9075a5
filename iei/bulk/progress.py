"""How far a job is: a line on a terminal, or lines of JSON."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TextIO

import orjson

from iei.bulk.tally import Tally

Kind = Literal["auto", "json", "none"]
Busy = Callable[[], Mapping[str, float]]
"""What may limit → seconds for which it was busy so far (`Computer.busy`)."""

IDLE = 0.5
"""If everything is busy for less than this share of the time, what limits is none of it: it waits for the input."""


class Progress(Protocol):
    """Shows a job's progress to somebody."""

    def show(self, tally: Tally) -> None:
        """Called after every row; shows something now and then."""

    def say(self, message: str) -> None:
        """Shows a sentence."""

    def end(self, summary: Mapping[str, Any]) -> None:
        """Shows what has been done."""


def progress_for(kind: Kind, busy: Busy, total: int | None, *, quiet: bool = False, out: TextIO) -> Progress:
    """What is shown.

    Args:
        kind: `auto`: a line on a terminal, else JSON.
        busy: of the computer.
        total: items of the job, if that is known.
        quiet: `auto` shows nothing where there is no terminal.
        out: usually stderr.
    """
    if kind == "auto" and out.isatty():
        return _Line(Meter(busy, total), out)
    if kind == "json" or (kind == "auto" and not quiet):
        return _Json(Meter(busy, total), out)
    return _Nothing(out)


class Meter:
    """Rates since it was last read."""

    def __init__(self, busy: Busy, total: int | None) -> None:
        self._busy = busy
        self._total = total
        self._at, self._items, self._were_busy = time.monotonic(), 0, dict(busy())
        self._rate = 0.0

    def due(self, every_s: float) -> bool:
        """Whether so many seconds have passed."""
        return time.monotonic() - self._at >= every_s

    def read(self, tally: Tally) -> dict[str, Any]:
        """Items a second, seconds that are left, what limits, and the counts."""
        now, done, busy = time.monotonic(), tally.rows + tally.duplicates, dict(self._busy())
        seconds = max(now - self._at, 1e-6)
        current = (done - self._items) / seconds
        self._rate = current if not self._rate else 0.7 * self._rate + 0.3 * current
        shares = {name: (value - self._were_busy.get(name, 0.0)) / seconds for name, value in busy.items()}
        self._at, self._items, self._were_busy = now, done, busy
        left = None if self._total is None else max(0, self._total - tally.items)
        return {
            "items": tally.items,
            "total": self._total,
            "errors": tally.errors + tally.passed_errors,
            "duplicates": tally.duplicates,
            "rate": round(self._rate, 1),
            "eta_s": round(left / self._rate) if left is not None and self._rate else None,
            "limited_by": limit(shares),
        }


def limit(shares: Mapping[str, float]) -> str | None:
    """What keeps a job from being faster, of what is busy for these shares of the time; None if nothing is known."""
    if not shares:
        return None
    busiest = max(shares, key=lambda name: shares[name])
    return busiest if shares[busiest] >= IDLE else "reading"


class _Nothing:
    """Says sentences only."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, tally: Tally) -> None:
        pass

    def say(self, message: str) -> None:
        print(f"iei: {message}", file=self._out)

    def end(self, summary: Mapping[str, Any]) -> None:
        pass


class _Line(_Nothing):
    """A line of a terminal, written again and again."""

    def __init__(self, meter: Meter, out: TextIO) -> None:
        super().__init__(out)
        self._meter = meter
        self._is_shown = False

    def show(self, tally: Tally) -> None:
        if not self._meter.due(0.5):
            return
        now = self._meter.read(tally)
        share = f" of {now['total']:,}" if now["total"] else ""
        parts = [
            f"{now['items']:,}{share}",
            f"{now['rate']:,.1f}/s",
            f"{_clock(now['eta_s'])} left" if now["eta_s"] is not None else "",
            f"{now['errors']:,} errors" if now["errors"] else "",
            f"limited by {now['limited_by']}" if now["limited_by"] else "",
        ]
        self._write(" · ".join(filter(None, parts)))

    def say(self, message: str) -> None:
        self._clear()
        super().say(message)

    def end(self, summary: Mapping[str, Any]) -> None:
        self._clear()
        print(in_words(summary), file=self._out)

    def _write(self, line: str) -> None:
        columns = shutil.get_terminal_size().columns
        self._out.write(f"\r\x1b[K{line[: columns - 1]}")
        self._out.flush()
        self._is_shown = True

    def _clear(self) -> None:
        if self._is_shown:
            self._out.write("\r\x1b[K")
            self._is_shown = False


class _Json(_Nothing):
    """An object in a line, at first often and then every ten seconds."""

    def __init__(self, meter: Meter, out: TextIO) -> None:
        super().__init__(out)
        self._meter = meter
        self._every_s = 1.0

    def show(self, tally: Tally) -> None:
        if self._meter.due(self._every_s):
            self._every_s = min(10.0, 2 * self._every_s)
            self._write({"event": "progress", **self._meter.read(tally)})

    def say(self, message: str) -> None:
        self._write({"event": "message", "message": message})

    def end(self, summary: Mapping[str, Any]) -> None:
        self._write({"event": "end", **summary})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._out.write(orjson.dumps(line).decode() + "\n")
        self._out.flush()


def in_words(summary: Mapping[str, Any]) -> str:
    """The end of a job for people, in a few lines."""
    first = f"{summary['rows']:,} rows in {summary['out']}" + (
        f", {summary['computed']:,} of them now" if summary["computed"] != summary["rows"] else ""
    )
    lines = [f"{first}: {_clock(round(summary['seconds']))}, {summary['rate']:,.1f} a second."]
    if summary["skipped"]:
        lines.append(f"{summary['skipped']:,} files are no pictures, and were passed over.")
    if summary["duplicates"]:
        lines.append(f"{summary['duplicates']:,} items have the content of another, and no row.")
    if summary["errors"]:
        lines.append(f"{summary['errors']:,} rows have an error instead of an embedding:")
        lines += [f"  {count:,} × {cause}" for cause, count in summary["causes"].items()]
    return "\n".join(lines)


def _clock(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def stderr() -> TextIO:
    """Where progress is shown."""
    return sys.stderr
