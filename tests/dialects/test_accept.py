"""Formats of answers: each, read by its own library, holds the numbers that JSON has."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from starlette.requests import Request

from iei.dialects.accept import accepted
from tests.pictures import base64_of, png
from tests.servers import Server

NPY, ARROW, FLOAT32 = "application/x-npy", "application/vnd.apache.arrow.stream", "application/octet-stream"
PICTURES = [base64_of(png(name=name)) for name in ("chelsea", "coffee")]


def post(server: Server, path: str, body: object, accepts: str | None = None) -> httpx.Response:
    headers = {"accept": accepts} if accepts else {}
    return httpx.post(server.url + path, json=body, headers=headers, timeout=60)


def embedded(server: Server, path: str, accepts: str) -> tuple[httpx.Response, np.ndarray[Any, Any]]:
    """The answer in a format, and in JSON."""
    body = {"inputs": PICTURES}
    response = post(server, path, body, accepts)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == accepts
    assert "x-inference-time" in response.headers
    return response, np.array(post(server, path, body).json())


@pytest.mark.parametrize(("path", "shape"), [("/embed", (2, 192)), ("/embed_all", (2, 197, 192))])
def test_npy(demo_server: Server, path: str, shape: tuple[int, ...]) -> None:
    response, expected = embedded(demo_server, path, NPY)
    vectors = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert (vectors.dtype, vectors.shape) == (np.float32, shape)
    assert np.allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize(("path", "shape"), [("/embed", "2,192"), ("/embed_all", "2,197,192")])
def test_float32(demo_server: Server, path: str, shape: str) -> None:
    response, expected = embedded(demo_server, path, FLOAT32)
    assert response.headers["x-iei-shape"] == shape
    vectors = np.frombuffer(response.content, "<f4").reshape([int(size) for size in shape.split(",")])
    assert np.allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("path", ["/embed", "/embed_all"])
def test_arrow(demo_server: Server, path: str) -> None:
    response, expected = embedded(demo_server, path, ARROW)
    table = pa.ipc.open_stream(response.content).read_all()
    vector = pa.list_(pa.float32(), 192)
    assert table.schema == pa.schema({"embedding": vector if path == "/embed" else pa.list_(vector)})
    assert np.allclose(np.array(table["embedding"].to_pylist()), expected, atol=1e-5)


def test_arrow_holds_texts_of_different_lengths_and_one_array_does_not(text_server: Server) -> None:
    body = {"inputs": ["a cat", "a cat that sits on a mat"]}
    response = post(text_server, "/embed_all", body, NPY)
    assert response.status_code == 406
    assert "different numbers of tokens" in response.json()["error"]
    rows = pa.ipc.open_stream(post(text_server, "/embed_all", body, ARROW).content).read_all()["embedding"].to_pylist()
    for row, expected in zip(rows, post(text_server, "/embed_all", body).json(), strict=True):
        assert np.allclose(row, expected, atol=1e-5)


def test_image_files_are_answered_in_these_formats_too(demo_server: Server) -> None:
    expected = post(demo_server, "/embed", {"inputs": base64_of(png())}).json()
    bodies: list[dict[str, Any]] = [
        {"content": png(), "headers": {"content-type": "image/png"}},
        {"files": [("a", png())]},
    ]
    for request_ in bodies:
        headers = {**request_.pop("headers", {}), "accept": NPY}
        response = httpx.post(f"{demo_server.url}/embed", headers=headers, **request_)
        assert np.allclose(np.load(io.BytesIO(response.content)), expected, atol=1e-5)


def _asking(header: str | None) -> Request:
    headers = [] if header is None else [(b"accept", header.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/x-npy", NPY),
        ("Application/X-NPY; v=1", NPY),
        ("text/html, application/x-npy", NPY),
        ("application/json;q=0.5, application/x-npy", NPY),
        ("application/x-npy;q=0.1, application/json", "application/json"),
        ("application/x-npy;q=0", "application/json"),
        ("application/x-npy;q=very", "application/json"),
        (",;,q=;=", "application/json"),
    ],
)
def test_the_most_wanted_format_that_is_known_is_used(header: str | None, media_type: str) -> None:
    assert accepted(_asking(header)).media_type == media_type
