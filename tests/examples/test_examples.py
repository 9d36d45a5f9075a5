"""The examples as their users run them: real scripts, a real server."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.client.stand_in import StandIn, refusal
from tests.servers import ROOT, Server

pytestmark = pytest.mark.server

EXAMPLES = ROOT / "examples"
SCRIPTS = ("request_example_batch.py", "request_example_concurrent.py")


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def cosines(output: str) -> list[list[float]]:
    """The rows of the printed table."""
    rows = [re.findall(r" (-?\d\.\d{3})(?!\d)", line) for line in output.partition("cosine")[2].splitlines()[1:]]
    return [[float(cell) for cell in row] for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Image.new("RGB", (30, 40), "red").save(tmp_path / "b.JPG", "JPEG")
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def full_server() -> Iterator[str]:
    """A server that answers everything as an overloaded one does."""
    with StandIn(lambda texts: refusal(429, "too much is waiting")).running() as server:
        yield server.url


def test_own_drawings_are_embedded_and_compared_alike_by_both(demo_server: Server) -> None:
    tables = []
    for script in SCRIPTS:
        result = run(script, "--url", demo_server.url)
        assert result.returncode == 0, result.stderr
        assert re.search(r"embeddings: float32 \(5, \d+\); total [\d.]+ ms", result.stdout)
        assert re.search(r"in [\d.]+ ms \(server: .*total [\d.]+", result.stdout), "the server's own times are shown"
        tables.append(cosines(result.stdout))
    assert np.allclose(tables[0], tables[1], atol=0.0015), "equal but for the rounding of the print"
    assert [len(row) for row in tables[0]] == [5] * 5
    assert [tables[0][n][n] for n in range(5)] == [1.0] * 5
    assert tables[0][0][1] > max(tables[0][0][2:]), "the moved disc is the one most like the disc"


def test_a_folder_gives_its_pictures_and_names_what_it_skips(demo_server: Server, folder: Path) -> None:
    result = run("request_example_batch.py", folder, "--url", f"{demo_server.url}/")
    assert result.returncode == 0, result.stderr
    assert len(cosines(result.stdout)) == 2
    assert f"skipped {folder / 'notes.txt'}" in result.stderr


def test_a_batch_is_split_into_requests(demo_server: Server) -> None:
    result = run("request_example_batch.py", "--url", demo_server.url, "--batch", "2")
    assert sorted(re.findall(r"^(\d) items →", result.stdout, re.MULTILINE)) == ["1", "2", "2"]
    assert len(cosines(result.stdout)) == 5


def test_a_bad_file_is_named_by_the_batch(demo_server: Server, folder: Path) -> None:
    result = run("request_example_batch.py", folder / "a.png", folder / "notes.txt", "--url", demo_server.url)
    assert result.returncode == 1
    assert result.stderr.startswith(f"{folder / 'notes.txt'}: is not an image")


def test_a_bad_file_fails_alone_among_concurrent_requests(demo_server: Server, folder: Path) -> None:
    files = [folder / name for name in ("a.png", "notes.txt", "b.JPG")]
    result = run("request_example_concurrent.py", *files, "--url", demo_server.url)
    assert result.returncode == 1
    assert "1 of 3 pictures failed." in result.stderr
    assert str(folder / "notes.txt") in result.stderr
    assert len(cosines(result.stdout)) == 2


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_server_is_one_sentence(script: str, free_port: int) -> None:
    result = run(script, "--url", f"http://127.0.0.1:{free_port}", "--retry", "0")
    assert result.returncode == 1
    assert result.stderr.startswith("No server answers at")
    assert "iei serve --demo" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_error_answer_is_told_in_the_words_of_the_server(script: str, full_server: str) -> None:
    result = run(script, "--url", full_server, "--retry", "0")
    assert result.returncode == 1
    assert "The server answers 429: too much is waiting" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        (SCRIPTS[0], ["no such file.jpg"], "no such file.jpg: No such file or directory."),
        (SCRIPTS[0], ["--url", "http://localhost:port"], "http://localhost:port is not the address of a server"),
        (SCRIPTS[1], ["--url", "nowhere"], "nowhere is not the address of a server"),
    ],
)
def test_a_wrong_argument_is_one_sentence(script: str, arguments: list[str], sentence: str) -> None:
    result = run(script, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    assert len(result.stderr.splitlines()) == 1


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    result = run("request_example_batch.py", tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"No picture in {tmp_path}.\n"


def test_what_they_import_comes_with_pip_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"\W", requirement.replace("-", "_"))[0] for requirement in project["dependencies"]}
    own = {file.stem for file in EXAMPLES.glob("*.py")} | sys.stdlib_module_names | {"iei"}
    files = [*EXAMPLES.glob("*.py"), *(ROOT / "iei" / "client").glob("*.py")]
    imported = {name for file in files for name in _imported(file)} - own
    assert imported - {"PIL"} | {"pillow"} <= required


def _imported(file: Path) -> Iterator[str]:
    """The top-level packages that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
