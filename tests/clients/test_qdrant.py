"""qdrant-client with `cloud_inference=True`: its objects, through a stand-in for Qdrant, to `/qdrant`.

The stand-in turns what users send into inference inputs as Qdrant's sources do, and hands errors on as they do.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, jpeg
from tests.servers import Server

CAT, ROCKET = base64_of(jpeg()), base64_of(jpeg(name="rocket"))
_KINDS = {"text", "image", "object"}


class StandIn(ThreadingHTTPServer):
    """Keeps one collection in memory and embeds nothing itself."""

    def __init__(self, inference: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.inference = inference
        self.points: dict[int, list[float]] = {}

    def infer(self, found: list[dict[str, Any]], inference: str, headers: Mapping[str, str]) -> httpx.Response:
        inputs = [
            {"data": item[kind], "data_type": kind, "model": item["model"], "options": item.get("options")}
            for item in found
            for kind in _KINDS & item.keys()
        ]
        keys = {name: value for name, value in headers.items() if name.lower().endswith("-api-key")}
        body = {"inputs": inputs, "inference": inference, "token": None}
        return httpx.post(self.inference, json=body, headers=keys, timeout=60)


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_PUT(self) -> None:
        points = self._body()["points"]
        answer = self.server.infer([point["vector"] for point in points], "update", dict(self.headers))
        if answer.status_code != 200:
            return self._fail(answer)
        for point, vector in zip(points, answer.json()["embeddings"], strict=True):
            self.server.points[point["id"]] = vector
        self._answer(200, {"result": {"operation_id": 0, "status": "completed"}, "status": "ok", "time": 0.0})

    def do_POST(self) -> None:
        query = self._body()["query"]
        answer = self.server.infer([query.get("nearest", query)], "search", dict(self.headers))
        if answer.status_code != 200:
            return self._fail(answer)
        (found,) = answer.json()["embeddings"]
        scores = {id: float(np.dot(found, vector)) for id, vector in self.server.points.items()}
        ranked = sorted(scores, key=lambda id: -scores[id])
        points = [{"id": id, "version": 0, "score": scores[id]} for id in ranked]
        self._answer(200, {"result": {"points": points}, "status": "ok", "time": 0.0})

    def _fail(self, answer: httpx.Response) -> None:
        """As `handle_inference_response` of Qdrant's src/common/inference/service.rs."""
        message = f"Inference service error ({answer.status_code}): {answer.text}"
        status, headers = 500, {}
        if answer.status_code == 400:
            status, message = 400, f"Inference request validation failed: {answer.json()['error']}"
        elif answer.status_code == 429:
            status, headers = 429, {"Retry-After": answer.headers["retry-after"]}
        self._answer(status, {"status": {"error": message}, "time": 0.0}, headers)

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return body

    def _answer(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def models() -> Any:
    pytest.importorskip("qdrant_client", reason="needs the clients group: uv sync --group clients")
    from qdrant_client import models

    return models


def _stand_in(server: Server) -> Iterator[str]:
    with StandIn(f"{server.url}/qdrant") as qdrant:
        threading.Thread(target=qdrant.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{qdrant.server_port}"
        qdrant.shutdown()


@pytest.fixture
def qdrant(text_server: Server) -> Iterator[str]:
    yield from _stand_in(text_server)


@pytest.fixture
def keyed_qdrant(keyed_server: Server) -> Iterator[str]:
    yield from _stand_in(keyed_server)


def client_of(url: str, **options: Any) -> Any:
    from qdrant_client import QdrantClient

    return QdrantClient(url, cloud_inference=True, check_compatibility=False, **options)


def test_pictures_are_stored_and_found(models: Any, qdrant: str) -> None:
    client = client_of(qdrant)
    points = [
        models.PointStruct(id=id, vector=models.Image(image=data, model="clip"), payload={"name": id})
        for id, data in ((1, CAT), (2, ROCKET))
    ]
    assert client.upsert("pictures", points).status == models.UpdateStatus.COMPLETED
    for number, picture in ((1, CAT), (2, ROCKET)):
        best = client.query_points("pictures", query=models.Image(image=picture, model="clip")).points[0]
        assert (best.id, best.score) == (number, pytest.approx(1, abs=1e-4))
    by_text = client.query_points("pictures", query=models.Document(text="a cat", model="clip")).points
    assert {point.id for point in by_text} == {1, 2}


def test_texts_with_options(models: Any, qdrant: str) -> None:
    client = client_of(qdrant)
    options = {"dimensions": 64}
    document = models.Document(text="A man is eating food.", model="minilm", options=options)
    client.upsert("texts", [models.PointStruct(id=1, vector=document)])
    query = models.Document(text="Somebody has a meal.", model="minilm", options=options)
    (point,) = client.query_points("texts", query=query).points
    assert 0.3 < point.score < 1


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ({"image": "AAAA", "model": "clip"}, "inputs[0]: is not an image"),
        ({"image": CAT, "model": "none"}, "inputs[0]: model 'none' is not served here; served: clip, minilm"),
        ({"image": CAT, "model": "clip", "options": {"dimensions": 999}}, "inputs[0]: dimensions must be from 1"),
    ],
)
def test_errors_are_the_clients_own(models: Any, qdrant: str, vector: dict[str, Any], words: str) -> None:
    from qdrant_client.http.exceptions import UnexpectedResponse

    with pytest.raises(UnexpectedResponse) as raised:
        client_of(qdrant).upsert("pictures", [models.PointStruct(id=1, vector=models.Image(**vector))])
    assert raised.value.status_code == 400
    assert f"Inference request validation failed: {words}" in raised.value.structured()["status"]["error"]


def test_keys_and_quotas(models: Any, keyed_qdrant: str) -> None:
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import UnexpectedResponse

    query = models.Document(text="a cat", model="clip")
    with pytest.raises(UnexpectedResponse, match="401"):
        client_of(keyed_qdrant).query_points("pictures", query=query)
    keyed = client_of(keyed_qdrant, headers={"X-API-Key": "secret"})
    assert keyed.query_points("pictures", query=query).points == []
    slow = client_of(keyed_qdrant, headers={"X-API-Key": "slow"})
    with pytest.raises(ResourceExhaustedResponse) as raised:
        deque(slow.query_points("pictures", query=query) for _ in range(2))
    assert raised.value.retry_after_s >= 1
