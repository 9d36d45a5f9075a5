"""infinity's own client, which is generated from its OpenAPI document and takes nothing that is not in there."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.clients.calls import TEXTS, URIS, expected
from tests.servers import Server

PYTHON = os.environ.get("TEST_INFINITY_PYTHON")


@pytest.mark.skipif(
    not PYTHON,
    reason="infinity_client needs an environment of its own: UV_PROJECT_ENVIRONMENT=.venv-infinity uv sync "
    "--only-group clients-infinity, then TEST_INFINITY_PYTHON=$PWD/.venv-infinity/bin/python",
)
def test_infinity_client(text_server: Server) -> None:
    """Its defaults are `model: default/not-specified` and `dimensions: 0`; its list of models must be parsed, too."""
    assert PYTHON
    program = Path(__file__).with_name("infinity_program.py")
    done = subprocess.run(
        [PYTHON, str(program), text_server.url, URIS[0], TEXTS[0]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    of_text, of_image = expected(text_server, TEXTS[:1]), expected(text_server, URIS[:1])
    np.testing.assert_allclose(found["text"], of_text, atol=1e-5)
    np.testing.assert_allclose(found["named"], of_text, atol=1e-5)
    np.testing.assert_allclose(found["image"], of_image, atol=1e-5)
    assert (found["refused"], found["unknown"]) == (400, 404)
    assert found["models"] == ["clip", "minilm"]
    assert found["health"]["unix"] == pytest.approx(time.time(), abs=60)
