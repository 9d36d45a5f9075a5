"""Whatever a client sends, it is told what is wrong with it: never a 5xx, always JSON in the dialect's shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.pictures import base64_of, png
from tests.servers import Server

IMAGE = base64_of(png())


def _tensor(data: Any, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data, **fields}]}


BODIES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "/embed": lambda value: {"inputs": value},
    "/embed_all": lambda value: {"inputs": value},
    "/similarity": lambda value: {"inputs": {"source_sentence": "a", "sentences": value}},
    "/tokenize": lambda value: {"inputs": value},
    "/decode": lambda value: {"ids": value},
    "/invocations": lambda value: {"inputs": value},
    "/v1/embeddings": lambda value: {"model": "demo", "input": value},
    "/v2/models/demo/infer": lambda value: _tensor(value),
    "/predict": lambda value: {"image_data": value},
    "/vectors": lambda value: {"id": "0", "image": value},
    "/vectorize": lambda value: {"images": [value]},
    "/qdrant": lambda value: {"inputs": [{"data": value, "data_type": "image", "model": "demo"}]},
    "/v1/embed": lambda value: {"images": value},
    "/v2/embed": lambda value: {"inputs": [{"content": value}]},
    "/v1/multimodalembeddings": lambda value: {"inputs": value},
    "/v1/models/demo:predict": lambda value: {"instances": [value]},
    "/vertex": lambda value: {"instances": [{"inputs": value}]},
    "/api/embed": lambda value: {"model": "demo", "input": [value]},
    "/api/embeddings": lambda value: {"model": "demo", "prompt": [value]},
}
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "number": 1e400,
    "huge": 10**400,
    "object": {"a": {"b": [1]}},
    "nested": [[[["a"]]]],
    "deep": json.loads("[" * 100 + "]" * 100),
    "mixture": ["a", 1, None, {"image_url": 7}],
    "empty strings": ["", ""],
    "zero byte": "\0",
    "surrogates": "\ud800",
    "not ASCII": "ü" * 10,
    "spaces": "   ",
    "prefix": "data:",
    "data URI without data": "data:image/png;base64,",
    "data URI of text": "data:text/html;base64,AAAA",
    "URL without a host": "http://",
    "URL of a loopback host": "http://127.0.0.1:1/a.png",
    "file URL": "file:///etc/passwd",
    "not padded": IMAGE.rstrip("=")[:-1],
    "cut": base64_of(png()[:500]),
}
SHAPES: dict[str, set[str]] = {
    "/v1/embed/": {"id", "message"},
    "/v2/embed/": {"id", "message"},
    "/v1/multimodalembeddings/": {"detail"},
    "/v1/models/demo:predict": {"error"},
    "/vertex": {"error"},
    "/api/": {"error"},
    "/v1/": {"error", "message", "detail"},
    "/v2/": {"error"},
    "/predict": {"detail"},
    "/vector": {"error"},
    "/qdrant": {"error"},
    "/": {"error", "error_type", "detail"},
}


def _is_refused_in_shape(path: str, response: httpx.Response) -> bool:
    shape = next(shape for prefix, shape in SHAPES.items() if f"{path}/".startswith(prefix))
    return 400 <= response.status_code < 500 and response.json().keys() == shape


@pytest.mark.parametrize("path", BODIES)
def test_bad_values_are_refused(demo_server: Server, path: str) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as client:
        for name, value in VALUES.items():
            response = client.post(path, content=json.dumps(BODIES[path](value)), headers=JSON)
            assert _is_refused_in_shape(path, response), f"{name}: {response.status_code} {response.text[:200]}"


@pytest.mark.parametrize("shape", [[10] * 5000, [10**100] * 50, [9] * 500_000], ids=["long", "large", "very long"])
def test_a_shape_beyond_all_numbers_is_refused(demo_server: Server, shape: list[int]) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": shape, "data": ["a"]}
    response = httpx.post(f"{demo_server.url}/v2/models/demo/infer", json={"inputs": [tensor]}, timeout=60)
    assert response.status_code == 400
    assert "shape" in response.json()["error"]
    assert len(response.text) < 1000


def test_an_output_that_is_named_a_thousand_times_is_one(demo_server: Server) -> None:
    body = {"image_data": base64_of(png()), "embedding_types": ["cls_token"] * 1000}
    response = httpx.post(f"{demo_server.url}/predict", json=body, timeout=60)
    assert (response.status_code, list(response.json())) == (200, ["cls_token"])


JSON = {"content-type": "application/json"}
RAW: dict[str, tuple[bytes, dict[str, str]]] = {
    "nothing": (b"", JSON),
    "no JSON": (b"{", JSON),
    "not UTF-8": (b'{"inputs": "\xff"}', JSON),
    "NaN": (b"NaN", JSON),
    "a bomb of brackets": (b"[" * 100_000, JSON),
    "keys twice": (b'{"inputs": "a", "inputs": "b", "image_data": "a", "input": "b", "prompt": "a"}', JSON),
    "another type": (b"inputs=a", {"content-type": "application/x-www-form-urlencoded"}),
    "a type that is none": (b"[]", {"content-type": "\xfc/\xff"}),
    "compressed": (b"\x1f\x8b\x08\0\0\0\0\0", {**JSON, "content-encoding": "gzip"}),
    "another alphabet": (
        json.dumps({"inputs": "a"}).encode("utf-16"),
        {"content-type": "application/json; charset=utf-16"},
    ),
}


@pytest.mark.parametrize("path", BODIES)
def test_bad_bodies_are_refused(demo_server: Server, path: str) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as client:
        for name, (content, headers) in RAW.items():
            encoded = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
            response = client.post(path, content=content, headers=encoded)
            assert _is_refused_in_shape(path, response), f"{name}: {response.status_code} {response.text[:200]}"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/%00",
        "/v2/models/%ff%fe/ready",
        "/v2/models/demo/versions/%2e%2e",
        "/v2/models/..%2f..%2fetc/passwd/ready",
        "/v1/models/%ff",
        "/v1/models/" + "a" * 5000,
        "/%ff",
        "/embed/../v1/nothing",
    ],
)
def test_bad_paths_are_refused(demo_server: Server, path: str) -> None:
    response = httpx.get(demo_server.url + path)
    assert response.status_code == 404
    assert len(response.text) < 2000


def test_none_of_this_was_news_to_the_server(demo_server: Server) -> None:
    assert "Traceback" not in demo_server.log
