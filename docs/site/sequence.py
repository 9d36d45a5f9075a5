"""Mermaid's sequence diagrams as SVG, without a browser: the part of the language that the pages use.

Lines are `participant W as worker`, `W->>E: text` (an arrow; `-->>`: a dashed one; `--x`: one that is lost) and
`Note over W: text`. Colours are the page's, so that a diagram follows its light and dark theme.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from html import escape

PARTICIPANT = re.compile(r"participant (?P<name>\w+) as (?P<text>.+)")
ARROW = re.compile(r"(?P<start>\w+)(?P<line>--?)(?P<head>>>|x)(?P<end>\w+): (?P<text>.+)")
NOTE = re.compile(r"Note over (?P<name>\w+): (?P<text>.+)")

# Pixels.
COLUMN = 150
MARGIN = 100
HEAD = 30
NOTE_WIDTH = 190
LINE = 16
GAP = 14
CHARACTER = 6.4
"""Of the mean character, in text of 12 pixels."""


def draw(source: str) -> str | None:
    """The diagram as an `<svg>` element. None: `source` is not a sequence diagram.

    Raises:
        ValueError: a line of a sequence diagram is none of the known ones; with the line.
    """
    first, *lines = (line.strip() for line in source.strip().splitlines())
    if first != "sequenceDiagram":
        return None
    columns: dict[str, float] = {}
    heads: list[str] = []
    steps: list[str] = []
    y = HEAD + GAP
    for line in lines:
        if found := PARTICIPANT.fullmatch(line):
            x = columns[found["name"]] = MARGIN + COLUMN * len(columns)
            heads += _box(x, 0, COLUMN - 20, HEAD, [found["text"]])
        elif found := NOTE.fullmatch(line):
            text = textwrap.wrap(found["text"], int(NOTE_WIDTH / CHARACTER) - 2)
            height = LINE * len(text) + 10
            steps += _box(columns[found["name"]], y, NOTE_WIDTH, height, text)
            y += height + GAP
        elif found := ARROW.fullmatch(line):
            start, end = columns[found["start"]], columns[found["end"]]
            text = textwrap.wrap(found["text"], int(abs(end - start) / CHARACTER) - 2)
            steps += _text((start + end) / 2, y, text)
            y += LINE * len(text) + 4
            steps += _arrow(start, end, y, dashed=found["line"] == "--", lost=found["head"] == "x")
            y += GAP
        else:
            raise ValueError(f"docs/site/sequence.py can't draw this line of a diagram: {line!r}")
    life = [f'<path d="M{x} {HEAD}V{y}" stroke-dasharray="2 4" opacity="0.5"/>' for x in columns.values()]
    width = 2 * MARGIN + COLUMN * (len(columns) - 1)
    return "\n".join(
        (
            '<div style="overflow-x: auto">',
            f'<svg class="sequence" role="img" width="{width}" height="{y}" viewBox="0 0 {width} {y}"',
            ' fill="none" stroke="currentColor" font-size="12" text-anchor="middle">',
            *life,
            *heads,
            *steps,
            "</svg></div>",
        )
    )


def _box(x: float, y: float, width: float, height: float, text: list[str]) -> Iterator[str]:
    yield (
        f'<rect x="{x - width / 2}" y="{y + 0.5}" width="{width}" height="{height}" rx="4"'
        ' fill="var(--color-background-secondary)"/>'
    )
    yield from _text(x, y + (height - LINE * len(text)) / 2, text)


def _text(x: float, y: float, lines: list[str]) -> Iterator[str]:
    """Lines of text below `y`, with a rim in the page's colour, so that no lifeline runs through the letters."""
    for number, line in enumerate(lines, 1):
        yield (
            f'<text x="{x}" y="{y + LINE * number - 4}" fill="currentColor" stroke="var(--color-background-primary)"'
            f' stroke-width="4" paint-order="stroke">{escape(line)}</text>'
        )


def _arrow(start: float, end: float, y: float, *, dashed: bool, lost: bool) -> Iterator[str]:
    back = -8 if end > start else 8
    dashes = ' stroke-dasharray="5 3"' if dashed else ""
    yield f'<path d="M{start} {y}H{end}"{dashes}/>'
    if lost:
        yield f'<path d="M{end + back} {y - 5}l{-back} 10m0 -10l{back} 10"/>'
    else:
        yield f'<path d="M{end} {y}l{back} -4v8z" fill="currentColor"/>'
