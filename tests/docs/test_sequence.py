"""Diagrams of the site are drawn whole, or the build fails."""

from __future__ import annotations

import runpy
from xml.etree import ElementTree

import pytest

from tests.servers import ROOT

draw = runpy.run_path(str(ROOT / "docs" / "site" / "sequence.py"))["draw"]

DIAGRAM = """sequenceDiagram
    participant W as worker
    participant E as engine <1>
    W->>E: SUBMIT
    Note over E: a note that is too long for one line of its box
    E-->>W: reply
    E--xW: EOF
"""


def test_each_line_is_drawn() -> None:
    drawing = ElementTree.fromstring(draw(DIAGRAM))
    assert len(list(drawing.iter("rect"))) == 3, "two participants and a note"
    texts = [text.text for text in drawing.iter("text")]
    assert texts[:2] == ["worker", "engine <1>"]
    assert {"SUBMIT", "reply", "EOF"} < set(texts)
    assert " ".join(str(text) for text in texts[3:-2]) == "a note that is too long for one line of its box"
    dashed = [path for path in drawing.iter("path") if path.get("stroke-dasharray") == "5 3"]
    assert len(dashed) == 2


def test_other_diagrams_stay_as_they_are() -> None:
    assert draw("flowchart LR\n    A --> B") is None


def test_an_unknown_line_is_named() -> None:
    with pytest.raises(ValueError, match="loop every second"):
        draw(DIAGRAM + "    loop every second\n")
