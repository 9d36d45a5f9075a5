"""`iei embed`, as the program that people run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from iei.commands.main import main
from tests import pictures

EMBED = [sys.executable, "-m", "iei", "embed", "--demo"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, something else, and a photo further down."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    (folder / "a.png").write_bytes(pictures.png())
    (folder / "b/cat.jpg").write_bytes(pictures.jpeg())
    (folder / "notes.txt").write_text("no picture")
    (folder / "z.png").write_bytes(pictures.png())
    return folder


def environment(demo_cache: str) -> dict[str, str]:
    """In which the demo model has been converted, once for all tests: importing torch would take seconds."""
    return {**os.environ, "IEI_RUNTIME": "auto", "IEI_CACHE_DIR": demo_cache}


def embed(demo_cache: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EMBED, *map(str, arguments)],
        env=environment(demo_cache),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_each_picture_becomes_a_line_and_what_is_none_is_passed_over(folder: Path, demo_cache: str) -> None:
    done = embed(demo_cache, folder)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["file"]).relative_to(folder).as_posix() for line in lines] == ["a.png", "b/cat.jpg", "z.png"]
    first, cat, last = (np.array(line["embedding"]) for line in lines)
    assert first.shape == (192,)
    np.testing.assert_allclose(first, last, atol=1e-5)
    assert np.abs(first - cat).max() > 0.01
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_of_parts_says_at_its_end_what_has_been_done(folder: Path, demo_cache: str, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "vectors"
    done = embed(demo_cache, folder, "-o", out, "--max-error-rate", 1, "--thumbnails", 32, "--errors", tmp_path / "e")
    end = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 3
    causes = {"is not an image in a known format": 1}
    assert {
        "event": "end",
        "rows": 4,
        "computed": 4,
        "errors": 1,
        "causes": causes,
        "skipped": 1,
    }.items() <= end.items()
    rows = pq.read_table(out / "part-00000.parquet").to_pylist()
    assert [(row["id"], row["width"], row["error"] is None) for row in rows] == [
        ("a.png", 64, True),
        ("b/cat.jpg", 500, True),
        ("bad.png", None, False),
        ("z.png", 64, True),
    ]
    assert json.loads((tmp_path / "e").read_text())["id"] == "bad.png"
    (folder / "bad.png").write_bytes(pictures.png())
    again = embed(demo_cache, folder, "-o", out, "--thumbnails", 32, "--retry-errors", "--progress", "none")
    assert (again.returncode, again.stderr) == (0, "")
    assert pq.read_table(out / "part-00000.parquet")["error"].null_count == 4


def test_one_file_takes_the_place_of_its_parts(folder: Path, demo_cache: str, tmp_path: Path) -> None:
    out = tmp_path / "vectors.parquet"
    done = embed(demo_cache, folder, "-o", out, "--part-size", 2, "--encoding", "float16")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "vectors.parquet"]
    table = pq.read_table(out)
    assert table["id"].to_pylist() == ["a.png", "b/cat.jpg", "z.png"]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: halffloat>[192]"
    assert embed(demo_cache, folder, "-o", out).stderr == (
        f"iei: {out} is there already: remove it, or write to another file.\n"
    )


def test_a_signal_ends_it_with_a_sentence_how_to_go_on(folder: Path, demo_cache: str, tmp_path: Path) -> None:
    png = pictures.png()
    for number in range(3000):  # more than it can finish before it gets the signal
        (folder / f"{number:04}.png").write_bytes(png)
    out = tmp_path / "vectors"
    with subprocess.Popen(
        [*EMBED, str(folder), "-o", str(out), "--part-size", "10"],
        env=environment(demo_cache),
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        deadline = time.monotonic() + 120
        while not (out / "part-00000.parquet").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        last = running.stderr.read().splitlines()[-1]
    assert running.returncode == 1
    assert last.startswith("iei: stopped by SIGTERM. ")
    assert last.endswith(" parts are finished: the same command goes on after them.")
    assert not list(out.glob(".part*"))


def test_a_reader_that_leaves_ends_it_quietly(folder: Path, demo_cache: str) -> None:
    many = [str(folder / "a.png")] * 300
    with subprocess.Popen(
        [*EMBED, *many],
        env={**environment(demo_cache), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert json.loads(running.stdout.readline())["file"] == many[0]
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none does not exist."),
        (["photos", "-o", "x.csv"], "x.csv can't be written: an output is a folder of parts, a file (.parquet"),
        (["photos", "--shards", "0/2"], "--shards makes parts for one folder: give a folder as the output."),
        (["photos", "-o", "v", "--shards", "0/2", "--dedup"], "--dedup can't know the contents of other shards"),
        (["photos", "-o", "v", "--retry-errors"], "--retry-errors: there are no parts in v."),
        (["photos", "--shards", "2/2"], "argument --shards: '2/2' is no I/N with I from 0 to N - 1"),
    ],
)
def test_what_can_not_be_is_said_before_a_model_is_loaded(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("iei.bulk.embedder.LocalModel", _not_to_be_loaded)
    with pytest.raises(SystemExit) as ended:
        main(["embed", "--demo", *arguments])
    assert message in f"{ended.value} {capsys.readouterr().err}"


def _not_to_be_loaded(*_: Any) -> None:
    raise AssertionError
