"""kserve's own client, protocol V1, against a real server.

Its requirements contradict the project's, so it is run by the interpreter of an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, jpeg
from tests.servers import Server

PYTHON = os.environ.get("TEST_KSERVE_PYTHON")
PROGRAM = Path(__file__).with_name("kserve_v1_program.py")
CAT = jpeg(name="chelsea")

pytestmark = pytest.mark.skipif(
    not PYTHON,
    reason="needs kserve in an environment of its own: UV_PROJECT_ENVIRONMENT=FOLDER uv sync --only-group "
    "clients-kserve, then TEST_KSERVE_PYTHON=FOLDER/bin/python",
)


def call(server: Server, *calls: tuple[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The client's answers, or the exceptions that it raised."""
    assert PYTHON
    command = [PYTHON, str(PROGRAM), server.url, json.dumps(calls)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def infer(*instances: object, model: str = "clip", **others: object) -> tuple[str, Mapping[str, Any]]:
    return "infer", {"model_name": model, "data": {"instances": instances, **others}}


def test_images_and_texts(text_server: Server) -> None:
    answers = call(
        text_server,
        infer({"b64": base64_of(CAT)}, "a cat"),
        infer("a cat", parameters={"normalize": True, "dimensions": 8}),
        infer("a cat", model="minilm"),
    )
    mixed, short, minilm = (answer["answer"]["predictions"] for answer in answers)
    embed = httpx.post(f"{text_server.url}/embed", json={"inputs": [data_uri(CAT), "a cat"]}).json()
    assert np.allclose(mixed, embed, atol=1e-5)
    body = {"inputs": "a cat", "normalize": True, "dimensions": 8}
    assert np.allclose(short, httpx.post(f"{text_server.url}/embed", json=body).json(), atol=1e-5)
    assert np.shape(minilm) == (1, 384)


def test_errors_are_exceptions_with_the_servers_words(text_server: Server) -> None:
    unknown, bad, long, unready = call(
        text_server,
        infer("a cat", model="none"),
        infer("a cat", {"b64": "AAAA"}),
        infer("word " * 500),
        ("is_model_ready", {"model_name": "none"}),
    )
    assert unknown["status"] == 404
    assert unknown["message"].startswith("model 'none' is not served here; served: clip, minilm, '404 Not Found'")
    assert bad["status"] == 400
    assert bad["message"].startswith("instances[1]: is not an image")
    assert long["status"] == 400
    assert "tokens" in long["message"]
    assert unready["status"] == 404


def test_keys_and_their_limits(keyed_server: Server) -> None:
    def with_key(key: str) -> tuple[str, Mapping[str, Any]]:
        method, arguments = infer("a cat")
        return method, {**arguments, "headers": {"authorization": f"Bearer {key}"}}

    right, missing, *slow = call(keyed_server, with_key("secret"), infer("a cat"), with_key("slow"), with_key("slow"))
    assert len(right["answer"]["predictions"]) == 1
    assert missing["status"] == 401
    assert "needs an API key" in missing["message"]
    assert slow[-1]["status"] == 429
