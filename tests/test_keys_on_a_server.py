"""API keys and their limits on real servers: what only shows where there are processes and sockets."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.servers import Server

PATHS: dict[str, dict[str, Any]] = {
    "/embed": {"inputs": ["a cat"]},
    "/v1/embeddings": {"model": "clip", "input": ["a cat"]},
    "/v2/models/clip/infer": {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a cat"]}]},
}
"""A route of each dialect that takes texts, and a body for it."""


@pytest.mark.parametrize("path", PATHS)
def test_a_key_opens_every_dialect(keyed_server: Server, path: str) -> None:
    url = keyed_server.url + path
    refused = httpx.post(url, json=PATHS[path], headers={"authorization": "Bearer guessed"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.post(url, json=PATHS[path]).status_code == 401
    for headers in ({"authorization": "Bearer secret"}, {"x-api-key": "secret"}, {"api-key": "secret"}):
        answer = httpx.post(url, json=PATHS[path], headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text


def test_a_slow_key_is_told_when_to_come_again(keyed_server: Server) -> None:
    headers = {"authorization": "Bearer slow"}
    body = PATHS["/embed"]
    answers = [httpx.post(f"{keyed_server.url}/embed", json=body, headers=headers, timeout=60) for _ in range(2)]
    assert answers[1].status_code == 429
    assert 1 <= int(answers[1].headers["retry-after"]) <= 50
    assert "0.02 inputs a second (inputs_per_s)" in answers[1].json()["error"]
