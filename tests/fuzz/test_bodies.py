"""Requests to every route, which differ from the documented examples in a few places.

The whole application answers them, around a model that computes nothing: whatever is sent, it is an answer or an error
that says what is wrong with it, and never a bug of ours (a 500).
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.models.spec import Contrast, Modality, TextTower
from iei.runtimes.api import Input, Outputs
from tests.apps import app_around
from tests.checkpoints.fake_tokenizers import write_tokenizer
from tests.engine.runtimes_for_tests import DIM, SPEC, KnownRuntime
from tests.fuzz.bodies import changed_json
from tests.fuzz.damage import damaged
from tests.fuzz.effort import examples
from tests.pictures import png

# Starlette does not close the file of a part that never ends. It is in memory, which is freed with it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

JSON = "application/json"
PICTURE = png(8, 8)
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="entries"\r\n\r\n{"clip": {"visual": {"modelName": "known"}}}\r\n'
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + PICTURE + b"\r\n--x--\r\n"
)
QUERY = (
    "modality=text",
    "normalize=maybe",
    "dimensions=0",
    "dimensions=2",
    "pooling=tokens",
    "truncate=true",
    "%ff=%00",
)
ACCEPT = (
    "*/*",
    JSON,
    "application/x-npy",
    "application/vnd.apache.arrow.stream",
    "application/octet-stream",
    "image/png;q=0",
    ";q=",
    "a/b;q=x,*/*;q=nan",
)


class TwoTowers(KnownRuntime):
    """Pictures and texts, both without any computing."""

    def __init__(self, tokenizer: str) -> None:
        super().__init__()
        text = TextTower(
            tokenizer, {"mean": DIM, "tokens": DIM}, max_tokens=32, pooling="mean", prompts={"query": "a "}
        )
        self.spec = dataclasses.replace(SPEC, text=text, contrast=Contrast("softmax", 10.0))

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        if modality == "image":
            return super().run(modality, batch, outputs)
        ones = (np.ones((len(ids), DIM), np.float32) for ids in batch)
        return [{name: rows if name == "tokens" else rows[0] for name in outputs} for rows in ones]


class Route(NamedTuple):
    method: str
    path: str
    examples: Sequence[Any]
    """Bodies that are sound."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    tokenizer = write_tokenizer("wordpiece", tmp_path_factory.mktemp("tokenizer"))
    engine = InProcessEngine(TwoTowers(str(tokenizer)))
    settings = {"url_inputs": "off", "max_inputs": 16, "max_body_bytes": 2**20, "max_image_pixels": 10_000}
    with TestClient(app_around(engine, **settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def routes(app: TestClient) -> Sequence[Route]:
    """All that the OpenAPI page has."""
    paths: Mapping[str, Any] = app.get("/openapi.json").json()["paths"]
    return [
        Route(method, path, [example["value"] for example in _json_body(described).get("examples", {}).values()])
        for path, methods in paths.items()
        for method, described in methods.items()
    ]


def _json_body(described: Mapping[str, Any]) -> Mapping[str, Any]:
    body: Mapping[str, Any] = described.get("requestBody", {}).get("content", {}).get(JSON, {})
    return body


@st.composite
def requests(draw: st.DrawFn, routes: Sequence[Route]) -> dict[str, Any]:
    """Arguments of `httpx.Client.request`."""
    route = draw(st.sampled_from(routes))
    sound = draw(st.sampled_from(route.examples or [{}]))
    document = json.dumps(draw(st.just(sound) | changed_json(sound))).encode()
    kinds = [(JSON, st.just(document))] * 6 + [
        (JSON, damaged(document)),
        ("", st.just(document)),
        ("application/octet-stream", st.just(document) | damaged(PICTURE)),
        ("image/png", st.just(PICTURE) | damaged(PICTURE)),
        ("multipart/form-data; boundary=x", st.just(FORM) | damaged(FORM)),
        ("text/plain", st.binary(max_size=20)),
    ]
    content_type, contents = draw(st.sampled_from(kinds))
    content = draw(contents)
    headers = {"content-type": content_type, "accept": draw(st.sampled_from(ACCEPT))}
    if draw(st.integers(0, 9)) == 0:
        packed = gzip.compress(content)
        headers["content-encoding"], content = "gzip", draw(st.just(packed) | damaged(packed))
    path = route.path.format(model=draw(st.sampled_from((SPEC.name, SPEC.name, "other"))), version="1")
    query = "&".join(draw(st.lists(st.sampled_from(QUERY), max_size=2)))
    return {"method": route.method, "url": f"{path}?{query}", "content": content, "headers": headers}


@examples(400)
@given(data=st.data())
def test_any_request_is_answered_or_refused(app: TestClient, routes: Sequence[Route], data: st.DataObject) -> None:
    request = data.draw(requests(routes))
    response = app.request(**request)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        # JSON with a message, which may repeat a little of what was sent.
        assert isinstance(response.json(), dict), response.text
        assert len(response.content) < 4000
