"""`iei embed`, as the program that people run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import pictures

EMBED = [sys.executable, "-m", "iei", "embed", "--demo"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, something else, and a photo further down."""
    (tmp_path / "b").mkdir()
    (tmp_path / "a.png").write_bytes(pictures.png())
    (tmp_path / "b/cat.jpg").write_bytes(pictures.jpeg())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "z.png").write_bytes(pictures.png())
    return tmp_path


def test_each_picture_becomes_a_line_and_what_is_none_is_named(folder: Path, demo_cache: str) -> None:
    done = subprocess.run(
        [*EMBED, str(folder)],
        env={**os.environ, "IEI_CACHE_DIR": demo_cache},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["file"]).relative_to(folder).as_posix() for line in lines] == ["a.png", "b/cat.jpg", "z.png"]
    first, cat, last = (np.array(line["embedding"]) for line in lines)
    assert first.shape == (192,)
    np.testing.assert_allclose(first, last, atol=1e-5)
    assert np.abs(first - cat).max() > 0.01
    assert f"iei: {folder / 'notes.txt'}: is not an image in a known format" in done.stderr
    assert done.stderr.splitlines()[-1] == "iei: 1 files could not be embedded, see above."
    assert done.returncode == 1


def test_a_reader_that_leaves_ends_it_quietly(folder: Path, demo_cache: str) -> None:
    many = [str(folder / "a.png")] * 300
    with subprocess.Popen(
        [*EMBED, *many],
        env={**os.environ, "IEI_CACHE_DIR": demo_cache, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert json.loads(running.stdout.readline())["file"] == many[0]
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


def test_a_path_that_is_not_there_is_named_before_a_model_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run([*EMBED, str(tmp_path / "none")], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (1, f"iei: {tmp_path / 'none'} does not exist.\n")
