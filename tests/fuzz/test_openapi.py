"""Schemathesis makes requests of /openapi.json and sends them to a real server: answers must be as the page says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.servers import Server, serve

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs the clients group: uv sync --group clients"),
]

EXCLUDED = (
    "negative_data_rejection",  # "true" and "3" are read as what they mean, null as a default
    "positive_data_acceptance",  # a schema can't say which strings are pictures, nor which numbers are a model's tokens
    "allow_header_conformance",  # at …/{model}:predict a GET may ask for a model of this name; tests/dialects tests it
)


@pytest.fixture(scope="module")
def server(text_models: dict[str, str]) -> Iterator[Server]:
    """A server that downloads nothing: no URL that it is sent reaches anything."""
    with serve({**text_models, "IEI_URL_INPUTS": "off"}, workers=1) as server:
        yield server


def test_answers_are_as_documented(server: Server, tmp_path: Path, seconds: float) -> None:
    """Never a 5xx; statuses, media types, headers and bodies of the page; methods that it does not have are a 405."""
    effort = (
        ("--phases", "examples,coverage,fuzzing,stateful", "--max-time", str(int(seconds)))
        if seconds
        else ("--phases", "examples,coverage", "--generation-deterministic")
    )
    done = subprocess.run(
        (
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--checks", "all", "--exclude-checks", ",".join(EXCLUDED), "--warnings", "off", "--no-color"),
            *effort,
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in server.log
