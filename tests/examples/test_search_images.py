"""The search as its users run it: a real script, a real server, a tiny CLIP that knows nothing."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pictures import jpeg, png
from tests.servers import Server

pytestmark = pytest.mark.server

SCRIPT = Path(__file__).parents[2] / "examples" / "search_images.py"


def search(server: str, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--url", server, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, input=stdin)


def found(output: str) -> dict[str, list[tuple[float, str]]]:
    """Query → its (cosine, name), best first."""
    _, *blocks = output.strip().split("\n\n")
    hits = re.compile(r"^ +(-?\d\.\d{3})  (.+)$", re.MULTILINE)
    return {block.partition("\n")[0]: [(float(score), name) for score, name in hits.findall(block)] for block in blocks}


def embedded(server: Server, inputs: list[str], modality: str) -> NDArray[np.float32]:
    body = {"inputs": inputs, "modality": modality, "normalize": True}
    return np.array(httpx.post(f"{server.url}/embed", json=body, timeout=60).raise_for_status().json(), np.float32)


def photos(folder: Path) -> Path:
    for name in ("rocket", "coffee", "chelsea", "china"):
        (folder / f"{name}.jpg").write_bytes(jpeg(120, 90, name))
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_its_own_drawings_are_searched(text_server: Server) -> None:
    result = search(text_server.url)
    assert result.returncode == 0, result.stderr
    assert re.match(r"index: float32 \(5, 24\); total [\d.]+ ms", result.stdout)
    results = found(result.stdout)
    assert len(results) == 4
    assert all(len(hits) == 3 and hits == sorted(hits, reverse=True) for hits in results.values())


def test_pictures_of_a_folder_are_ranked_by_their_cosine(text_server: Server, tmp_path: Path) -> None:
    folder = photos(tmp_path)
    queries = ["a rocket", "Ein Kätzchen", "word " * 100]
    arguments = [argument for query in queries for argument in ("--query", query)]
    result = search(text_server.url, folder, *arguments, "--top", "2", "--batch", "3")
    assert result.returncode == 0, result.stderr
    assert f"skipped {folder / 'notes.txt'}" in result.stderr

    files = sorted(folder.glob("*.jpg"))
    pictures = embedded(text_server, [base64.b64encode(file.read_bytes()).decode() for file in files], "image")
    for query in queries[:2]:
        scores = pictures @ embedded(text_server, [query], "text")[0]
        best = np.argsort(-scores)[:2]
        hits = found(result.stdout)[query]
        assert [name for _, name in hits] == [str(files[place]) for place in best]
        assert np.allclose([score for score, _ in hits], scores[best], atol=0.0015), "but for the rounding of the print"
    assert len(found(result.stdout)) == 3, "a query that is too long is cut"


def test_queries_are_read_from_the_terminal(text_server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    result = search(text_server.url, tmp_path, stdin="a cat\na dog\n\nnever read\n")
    assert result.returncode == 0, result.stderr
    assert list(found(result.stdout)) == ["a cat", "a dog"]
    assert "What do you look for?" in result.stderr


def test_a_model_without_texts_is_said_to_be_one(demo_server: Server) -> None:
    result = search(demo_server.url)
    assert result.returncode == 1
    assert result.stderr.startswith("The served model can't search pictures by words")
    assert "takes no texts" in result.stderr
    assert "start the server with a CLIP or a SigLIP" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_bad_file_is_named(text_server: Server, tmp_path: Path) -> None:
    bad = tmp_path / "torn.jpg"
    bad.write_bytes(jpeg()[:1000])
    result = search(text_server.url, bad, "--query", "a cat")
    assert result.returncode == 1
    assert result.stderr.startswith(f"{bad}: can't be decoded")


def test_no_server_is_one_sentence() -> None:
    result = search("http://127.0.0.1:9", "--retry", "0")
    assert result.returncode == 1
    assert result.stderr.startswith("No server answers at http://127.0.0.1:9")
    assert len(result.stderr.splitlines()) == 1
