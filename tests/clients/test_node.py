"""JavaScript clients: OpenAI's, Hugging Face's, and Jina's provider for the AI SDK."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, jpeg, png
from tests.servers import ROOT, Server

NODE = ROOT / "tests" / "clients" / "node"
TEXTS = ["a cat on a mat", "stocks fell"]

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (NODE / "node_modules").is_dir(), reason="needs the JavaScript clients: npm ci --prefix tests/clients/node"
    ),
]


def call(client: str, server: Server, inputs: list[str], model: str = "clip", key: str = "") -> dict[str, Any]:
    done = subprocess.run(
        ["node", str(NODE / "clients.mjs"), client, server.url, model],
        input=json.dumps(inputs),
        env={**os.environ, **({"API_KEY": key} if key else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def expected(server: Server, inputs: list[str], model: str = "clip") -> list[list[float]]:
    body = {"inputs": inputs, "normalize": True}
    vectors: list[list[float]] = httpx.post(f"{server.url}/m/{model}/embed", json=body).json()
    return vectors


@pytest.mark.parametrize("model", ["clip", "minilm"])
@pytest.mark.parametrize("client", ["openai", "huggingface", "jina"])
def test_texts(text_server: Server, client: str, model: str) -> None:
    answer = call(client, text_server, TEXTS, model)
    np.testing.assert_allclose(answer["vectors"], expected(text_server, TEXTS, model), atol=1e-6)


def test_pictures_as_data_uris(text_server: Server) -> None:
    uris = [data_uri(jpeg()), data_uri(png(), "image/png")]
    answer = call("openai", text_server, uris)
    np.testing.assert_allclose(answer["vectors"], expected(text_server, uris), atol=1e-6)


def test_pictures_as_jina_sends_them(text_server: Server) -> None:
    uris = [data_uri(jpeg()), data_uri(png(), "image/png")]
    answer = call("jinaImages", text_server, [base64_of(jpeg()), uris[1]])
    np.testing.assert_allclose(answer["vectors"], expected(text_server, uris), atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "model", "status", "words"),
    [
        (TEXTS, "none", 404, "is not served here"),
        (["data:image/png;base64,AAAA"], "clip", 400, "is not an image"),
        (["cat " * 1000], "clip", 400, "over the model's limit"),
    ],
    ids=["unknown model", "bad picture", "too long"],
)
@pytest.mark.parametrize("client", ["openai", "huggingface", "jina"])
def test_errors(text_server: Server, client: str, inputs: list[str], model: str, status: int, words: str) -> None:
    answer = call(client, text_server, inputs, model)
    assert answer["status"] == status, answer
    assert words in json.dumps(answer), answer


@pytest.mark.parametrize("client", ["openai", "huggingface", "jina"])
def test_keys(keyed_server: Server, client: str) -> None:
    assert "vectors" in call(client, keyed_server, TEXTS[:1], key="secret")
    refused = call(client, keyed_server, TEXTS[:1], key="wrong")
    assert refused["status"] == 401, refused
    assert "the API key is not one of this server's" in json.dumps(refused), refused


@pytest.mark.parametrize("client", ["openai", "huggingface", "jina"])
def test_limits_of_keys(keyed_server: Server, client: str) -> None:
    answers = [call(client, keyed_server, TEXTS[:1], key="slow") for _ in range(2)]
    assert answers[1]["status"] == 429, answers
    assert "inputs a second" in json.dumps(answers[1]), answers
