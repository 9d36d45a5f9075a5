"""Figures as a table, and the section of a page that they belong into."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"


def progress(text: str) -> None:
    """A line on stderr."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def write_down(name: str, plan: Any, rounds: Sequence[Mapping[str, Any]], text: str, page: Path = PAGE) -> None:
    """Writes all rounds to the results' NAME.json, and `text` into the section NAME of a page.

    Args:
        name: of the benchmark.
        plan: a dataclass: what was measured, and how long.
        rounds: what was measured in each: name → a dataclass.
        text: the tables, and what they were measured on.
        page: docs/benchmarks.md, unless another one has the section.
    """
    results = {
        "machine": machine.describe(),
        "plan": asdict(plan),
        "rounds": [{name: asdict(each) for name, each in this.items()} for this in rounds],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    replace_section(page, name, text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also readable as plain text: first column left, the others right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in (header, rule, *rows)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in aligned)


def replace_section(page: Path, name: str, text: str) -> None:
    """Puts `text` between the page's `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ValueError: the page has no such place.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{page} has no section between {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
