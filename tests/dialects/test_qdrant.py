"""Qdrant's server-side inference, with the bytes that Qdrant sends.

Qdrant is a Rust program that no package index carries, so these are replays of what its sources write
(src/common/inference, v1.19): serde's compact JSON with its nulls, and the headers of reqwest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from iei.engine.api import Result
from iei.engine.inprocess import InProcessEngine
from tests.apps import app_around, default_model
from tests.checkpoints.text_checkpoints import prompted_folder
from tests.engine.runtimes_for_tests import DIM, SPEC, KnownRuntime
from tests.pictures import base64_of, data_uri, jpeg, png
from tests.replay import Answer, Connection
from tests.servers import Server

PICTURE, OTHER = base64_of(jpeg()), base64_of(png(name="rocket"))


def text(data: object, model: str = "clip", options: Mapping[str, object] | None = None) -> dict[str, object]:
    """What Qdrant makes of a user's `{"text": …, "model": …}`."""
    return {"data": data, "data_type": "text", "model": model, "options": options}


def image(data: object, model: str = "clip", options: Mapping[str, object] | None = None) -> dict[str, object]:
    """What Qdrant makes of a user's `{"image": …, "model": …}`."""
    return {"data": data, "data_type": "image", "model": model, "options": options}


class Qdrant(Connection):
    """What Qdrant sends to `QDRANT__INFERENCE__ADDRESS`."""

    def infer(self, *inputs: object, inference: str = "update", token: str | None = None, **keys: str) -> Answer:
        """The answer to a call for `inputs`. `keys`: headers of the user's call that end in -api-key."""
        body = {"inputs": inputs, "inference": inference, "token": token}
        content = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        headers = {
            "content-type": "application/json",
            **{name.replace("_", "-"): key for name, key in keys.items()},
            "user-agent": "Qdrant/1.19.0",
            "accept": "*/*",
            "host": self.host,
            "content-length": str(len(content)),
        }
        return self.send("POST", "/qdrant", headers, content)


@pytest.fixture
def qdrant(text_server: Server) -> Iterator[Qdrant]:
    with Qdrant(text_server.url) as connection:
        yield connection


def embedded(server: Server, data: str, model: str = "clip", path: str = "/embed", **fields: object) -> NDArray[Any]:
    """As `/embed` has it, of length 1."""
    body = {"inputs": [data], "normalize": True, "truncate": True, **fields}
    return np.array(httpx.post(f"{server.url}/m/{model}{path}", json=body, timeout=60).json()[0], np.float32)


def assert_same(vector: Any, expected: NDArray[Any]) -> None:
    assert np.shape(vector) == expected.shape
    assert np.abs(np.asarray(vector) - expected).max() <= 1e-5
    assert np.allclose(np.linalg.norm(vector, axis=-1), 1, atol=1e-5)


def test_models_and_kinds_are_mixed_and_the_order_kept(qdrant: Qdrant, text_server: Server) -> None:
    answer = qdrant.infer(
        text("a cat, ±5 °C"), image(PICTURE), text("a dog", "minilm"), image(data_uri(png())), text("a cat", "minilm")
    )
    assert answer.status == 200, answer.body
    body = answer.json()
    assert list(body) == ["embeddings", "usage"]
    expected = [
        embedded(text_server, "a cat, ±5 °C"),
        embedded(text_server, PICTURE, modality="image"),
        embedded(text_server, "a dog", "minilm"),
        embedded(text_server, data_uri(png())),
        embedded(text_server, "a cat", "minilm"),
    ]
    for vector, other in zip(body["embeddings"], expected, strict=True):
        assert_same(vector, other)
    assert body["usage"]["models"].keys() == {"clip", "minilm"}
    assert body["usage"]["models"]["minilm"] == {"tokens": 2 * 4}, "[CLS] a cat [SEP], and as many of the other"
    assert float(answer.headers["x-inference-time"]) > 0


def test_a_search(qdrant: Qdrant, text_server: Server) -> None:
    answer = qdrant.infer(text("a cat"), inference="search", token="of the user's JWT")
    (vector,) = answer.json()["embeddings"]
    assert_same(vector, embedded(text_server, "a cat"))


def test_options_of_the_user(qdrant: Qdrant, text_server: Server) -> None:
    """`models.Image(image=…, model=…, options={…})`. Each input has its own; others are passed on to nobody."""
    answer = qdrant.infer(
        image(PICTURE, options={"dimensions": 8}),
        image(PICTURE, options={"lazy_load": True, "pooling": None}),
        text("a cat", "minilm", {"pooling": "CLS"}),
        text("a cat", "minilm", {}),
    )
    assert answer.status == 200, answer.body
    cut, whole, token, plain = answer.json()["embeddings"]
    assert_same(cut, embedded(text_server, PICTURE, modality="image", dimensions=8))
    assert_same(whole, embedded(text_server, PICTURE, modality="image"))
    assert_same(token, embedded(text_server, "a cat", "minilm", pooling="cls"))
    assert_same(plain, embedded(text_server, "a cat", "minilm"))


def test_multivectors(qdrant: Qdrant, text_server: Server) -> None:
    answer = qdrant.infer(
        text("a cat", "minilm", {"pooling": "tokens"}), image(PICTURE, options={"pooling": "patches"}), text("a cat")
    )
    tokens, patches, vector = answer.json()["embeddings"]
    assert_same(tokens, embedded(text_server, "a cat", "minilm", "/embed_all"))
    assert_same(patches, embedded(text_server, PICTURE, path="/embed_all", modality="image")[1:])
    assert_same(vector, embedded(text_server, "a cat"))


def test_long_texts_are_truncated_unless_the_user_wants_an_error(qdrant: Qdrant, text_server: Server) -> None:
    """As by fastembed, which embeds the same texts where Qdrant has no inference service."""
    long = "word " * 300
    answer = qdrant.infer(
        text(long, "minilm"), text(long, "minilm", {"truncate": True, "truncation_direction": "left"})
    )
    right, left = answer.json()["embeddings"]
    assert_same(right, embedded(text_server, long, "minilm"))
    assert_same(left, embedded(text_server, long, "minilm", truncation_direction="left"))
    refused = qdrant.infer(text("a cat"), text(long, "minilm", {"truncate": False}))
    assert refused.status == 400
    assert refused.json()["error"].startswith("inputs[1]: has 302 tokens, over the model's limit of 256")


def test_what_the_vectors_are_for_chooses_the_prompt(tmp_path: Path) -> None:
    folder = prompted_folder(tmp_path, query="a question: ", passage="an article: ")
    settings: dict[str, Any] = {"model": str(folder), "model_name": "prompted", "threads": 1}
    with TestClient(app_around(InProcessEngine(default_model(**settings)), **settings)) as client:
        for inference, prompt in (("search", "a question: "), ("update", "an article: "), (None, "")):
            body = {"inputs": [text("a cat", "prompted")], "inference": inference}
            vector = client.post("/qdrant", json=body).json()["embeddings"][0]
            expected = client.post("/embed", json={"inputs": f"{prompt}a cat", "normalize": True}).json()[0]
            assert np.allclose(vector, expected, atol=1e-5), inference


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], "inputs is empty"),
        ([text("a cat"), text("a cat", "none"), text("b", "no")], "inputs[1]: model 'none' is not served here; served"),
        ([text("a cat"), text("a cat", "none"), text("b", "no")], "; inputs[2]: model 'no' is not"),
        ([text("a", "minilm"), image(PICTURE), image("%")], "inputs[2]: is not base64"),
        ([text("a", "minilm"), image(PICTURE), image("%"), image("AAAA")], "; inputs[3]: is not an image"),
        ([text("a"), image(PICTURE, "minilm")], "inputs[1]: model 'minilm' takes no images"),
        ([image(PICTURE), image(PICTURE, options={"dimensions": 999})], "inputs[1]: dimensions must be from 1 to"),
        ([image(PICTURE), image(PICTURE, options={"dimensions": 0})], "inputs[1].options.dimensions: "),
        ([text("a"), text("a", options={"pooling": "patches"})], "inputs[1]: 'patches' is not offered by 'clip'"),
        ([text("a", "minilm", {"prompt_name": "x"})], "this model has no prompt 'x'"),
        ([text("a"), image({"url": "http://a/b.png"})], "inputs[1]: an input of type image must be a string"),
        ([text("a"), {**text({"a": 1}), "data_type": "object"}], "inputs[1]: objects are not offered"),
        ([text("a"), text("")], "inputs[1]: is empty"),
        ([text("a", options={"dimensions": number % 8 + 1}) for number in range(1025)], "IEI_MAX_INPUTS"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_errors_name_inputs_as_qdrant_numbered_them(qdrant: Qdrant, inputs: list[object], words: str) -> None:
    """All with 400: it is the only status whose message Qdrant shows alone."""
    answer = qdrant.infer(*inputs)
    assert answer.status == 400, answer.body
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


def test_users_pass_their_key_in_a_header_that_qdrant_forwards(keyed_server: Server) -> None:
    with Qdrant(keyed_server.url) as qdrant:
        assert qdrant.infer(text("a cat"), x_api_key="secret").status == 200
        refused = qdrant.infer(text("a cat"), token="secret", openai_api_key="secret")
        assert (refused.status, refused.json().keys()) == (401, {"error"})


def test_too_much_is_429_with_a_time_to_wait(keyed_server: Server) -> None:
    with Qdrant(keyed_server.url) as qdrant:
        answers = [qdrant.infer(text("a cat"), x_api_key="slow") for _ in range(2)]
    refused = answers[-1]
    assert refused.status == 429
    assert refused.json().keys() == {"error"}
    assert int(refused.headers["retry-after"]) >= 1


PIXELS = base64_of(png(8, 8))


def known(data: str, **options: object) -> dict[str, object]:
    return image(data, SPEC.name, options)


class Waits(InProcessEngine):
    """Computes nothing until so many inputs are in work."""

    def __init__(self, runtime: KnownRuntime, inputs: int) -> None:
        super().__init__(runtime)
        self._left = inputs
        self._runtime = runtime
        runtime.go.clear()

    async def run(self, *arguments: Any, **named: Any) -> Result:
        self._left -= 1
        if self._left == 0:
            self._runtime.go.set()
        return await super().run(*arguments, **named)


def test_groups_are_computed_at_the_same_time() -> None:
    """Inputs with different options are of different groups."""
    with TestClient(app_around(Waits(KnownRuntime(), DIM))) as client:
        inputs = [known(PIXELS, dimensions=number) for number in range(1, DIM + 1)]
        response = client.post("/qdrant", json={"inputs": inputs})
    assert [len(vector) for vector in response.json()["embeddings"]] == [1, 2, 3]


def test_the_failure_of_one_group_cancels_the_others() -> None:
    runtime = KnownRuntime()
    with TestClient(app_around(Waits(runtime, 2))) as client:  # for an input of the second group, which never comes
        inputs = [known(PIXELS, dimensions=1), known("%", dimensions=2)]
        response = client.post("/qdrant", json={"inputs": inputs})
        assert response.status_code == 400
        assert response.json()["error"].startswith("inputs[1]: is not base64")
        assert not runtime.go.is_set()
        runtime.go.set()  # so that the engine can stop
