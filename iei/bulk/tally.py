"""What a job has done so far, and whether too much of it went wrong."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from iei.bulk.manifest import Finished
from iei.bulk.row import Row

FEWEST = 100
"""Rows before a rate of errors means anything; and rows that fail one after the other when something is gone."""
_CAUSES = 50
"""Most causes of errors that are told apart: messages of bad files may be anything."""


@dataclass(slots=True)
class Tally:
    """Counts of a run. Parts that were there before count as `passed`."""

    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    errors: int = 0
    duplicates: int = 0
    passed: int = 0
    """Items of parts that were there."""
    passed_errors: int = 0
    """Rows with errors in those parts, which were not tried again."""
    in_a_row: int = 0
    """Errors since the last embedding."""
    causes: Counter[str] = field(default_factory=Counter)
    """Error, without what is particular to one item → how often."""

    def add(self, row: Row) -> None:
        """Counts a row."""
        if row.is_duplicate:
            self.duplicates += 1
            return
        self.rows += 1
        if row.error is None:
            self.in_a_row = 0
            return
        self.errors += 1
        self.in_a_row += 1
        cause = _cause(row.error)
        self.causes[cause if cause in self.causes or len(self.causes) < _CAUSES else "others"] += 1

    def passed_over(self, part: Finished, again: int) -> None:
        """Counts a part that is there, of which `again` items are computed once more."""
        self.passed += part.items - again
        self.passed_errors += part.errors - again

    @property
    def items(self) -> int:
        """Items of the input that are done, by this run and others."""
        return self.rows + self.duplicates + self.passed

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started

    def too_many_errors(self, max_rate: float) -> str | None:
        """What is wrong, if more than `max_rate` of the rows have errors (1: never)."""
        if max_rate >= 1 or self.rows < FEWEST:
            return None
        if self.in_a_row >= FEWEST:
            return f"the last {self.in_a_row} rows are all errors: is their storage still there?"
        if self.errors > max_rate * self.rows:
            return f"{self.errors} of {self.rows} rows are errors, over the limit of {max_rate:g} (--max-error-rate)."
        return None


def _cause(error: str) -> str:
    """The beginning of a sentence, up to what is particular."""
    return error.split(":")[0].split(" (")[0][:100]
