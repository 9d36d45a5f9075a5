"""Lines from stdin and from files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from iei.bulk.items import Source
from iei.errors import StartupError
from tests.bulk.sources.reading import contents, ids, opened
from tests.pictures import base64_of, png

PICTURE = png()


def given(monkeypatch: pytest.MonkeyPatch, *lines: str | dict[str, object]) -> None:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def read(source: Source) -> list[tuple[str, object]]:
    items = list(source)
    return list(zip(ids(items), contents(items), strict=True))


def test_paths_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b.png").write_bytes(PICTURE)
    monkeypatch.chdir(tmp_path)
    given(monkeypatch, "a b.png", "", f"{tmp_path}/a b.png", "https://example.com/x")
    source = opened("-")
    assert read(source) == [
        ("a b.png", PICTURE),
        (f"{tmp_path}/a b.png", PICTURE),
        ("https://example.com/x", "url:https://example.com/x"),
    ]
    with pytest.raises(StartupError, match="stdin can be read only once"):
        list(source)


def test_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    given(
        monkeypatch,
        {"id": 1, "path": f"{tmp_path}/a.png", "label": "x"},
        {"url": "http://example.com/b"},
        {"image": base64_of(PICTURE), "id": "c"},
        {"text": "a cat", "label": None},
        {"id": "e", "image": "no base64!"},
        {"id": "f"},
        "{no json",
        {"id": "h", "path": 5},
    )
    items = list(opened("-", keep=["label"]))
    rows = list(zip(ids(items), contents(items), strict=True))
    assert rows[:4] == [
        ("1", PICTURE),
        ("http://example.com/b", "url:http://example.com/b"),
        ("c", PICTURE),
        ("4", "a cat"),
    ]
    assert [item.kept for item in items[:2]] == [{"label": "x"}, {"label": None}]
    assert [id_ for id_, _ in rows[4:]] == ["e", "f", "7", "h"]
    expected = [
        "error:is not base64",
        "error:line 6 of stdin has none of",
        "error:line 7 of stdin is not JSON",
        "error:is a int",
    ]
    assert all(str(row[1]).startswith(start) for row, start in zip(rows[4:], expected, strict=True))


def test_lines_are_texts_if_the_job_is_for_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "a cat", "photo.jpg")
    assert read(opened("-", modality="text")) == [("1", "a cat"), ("2", "photo.jpg")]


def test_files_of_lines_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "x.ndjson"
    file.write_text('{"key": "a", "text": "one"}\n{"key": "b", "text": "two"}\n')
    source = opened(file, id_column="key")
    assert read(source) == read(source) == [("a", "one"), ("b", "two")]
