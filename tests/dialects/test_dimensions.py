"""Vectors that are cut shorter than the model was trained for, in whatever dialect they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.models.spec import Matryoshka
from tests.apps import app_around
from tests.engine.runtimes_for_tests import DIM, SPEC, KnownRuntime
from tests.pictures import base64_of, data_uri, png
from tests.servers import Server

PHOTO = base64_of(png(8, 8))
IN_DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "IEI": ("/embed", {"inputs": PHOTO}),
    "all tokens": ("/embed_all", {"inputs": PHOTO}),
    "SageMaker": ("/invocations", {"inputs": PHOTO}),
    "OpenAI": ("/v1/embeddings", {"model": SPEC.name, "input": PHOTO}),
}
"""Dialect → a route of it that takes `dimensions`, and a body without them."""


@contextmanager
def client(matryoshka: Matryoshka = None, name: str = SPEC.name, **settings: Any) -> Iterator[TestClient]:
    runtime = KnownRuntime()
    runtime.spec = replace(SPEC, matryoshka=matryoshka, name=name)
    with TestClient(app_around(InProcessEngine(runtime), **settings)) as client:
        yield client


@pytest.mark.parametrize(("path", "body"), IN_DIALECTS.values(), ids=IN_DIALECTS)
class TestEveryDialect:
    def test_warns_in_a_header(self, path: str, body: dict[str, Any]) -> None:
        with client() as app:
            answer = app.post(path, json={**body, "dimensions": DIM - 1})
            assert answer.status_code == 200, answer.text
            assert "'known' is not known to be trained for shorter vectors" in answer.headers["x-iei-warning"]
            assert float(answer.headers["x-inference-time"]) > 0
            assert "x-iei-warning" not in app.post(path, json=body).headers
            assert "x-iei-warning" not in app.post(path, json={**body, "dimensions": DIM}).headers

    def test_does_not_where_the_model_was_trained_for_them(self, path: str, body: dict[str, Any]) -> None:
        with client((1, 2, 3), dimensions="trained") as app:
            answer = app.post(path, json={**body, "dimensions": 2})
            assert answer.status_code == 200, answer.text
            assert "x-iei-warning" not in answer.headers

    def test_refuses_others_where_the_server_is_set_to(self, path: str, body: dict[str, Any]) -> None:
        with client(dimensions="trained") as app:
            answer = app.post(path, json={**body, "dimensions": DIM - 1})
            assert answer.status_code == (400 if path.startswith("/v1") else 422)
            assert "IEI_DIMENSIONS=trained" in answer.json()["detail"]


def test_pictures_as_imbeddings_sends_them(demo_server: Server) -> None:
    item = {"type": "image", "image_base64": data_uri(png(), "image/png")}
    body = {"model": "demo", "input": [item], "dimensions": 8}
    answer = httpx.post(f"{demo_server.url}/v1/embeddings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "'demo' is not known to be trained" in answer.headers["x-iei-warning"]


def test_any_name_fits_into_a_header() -> None:
    with client(name="模型\n2") as app:
        answer = app.post("/embed", json={"inputs": PHOTO, "dimensions": 1})
        assert answer.status_code == 200
        assert r"'\u6a21\u578b\n2'" in answer.headers["x-iei-warning"]


@pytest.mark.parametrize("trained", [None, True, False, [64, 128]])
def test_info_says_what_is_known(trained: list[int] | bool | None) -> None:
    with client(tuple(trained) if isinstance(trained, list) else trained) as app:
        assert app.get("/info").json()["matryoshka"] == trained
