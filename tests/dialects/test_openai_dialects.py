"""Requests to `/v1/embeddings` and its aliases as other people's clients write them, and what they read of the answer.

Clients that can be installed are in tests/clients. Those here are written in Go or Rust, or hard to install: what they
send is written down byte for byte.
"""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from iei import __version__
from tests.pictures import base64_of, data_uri, jpeg
from tests.servers import Server

FIRST, SECOND = jpeg(name="chelsea"), jpeg(name="coffee")
URIS = [data_uri(FIRST), data_uri(SECOND)]
TEXTS = ["a cat on a mat", "a cup of coffee"]


def post(server: Server, body: object, path: str = "/v1/embeddings") -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def vectors(server: Server, body: object, path: str = "/v1/embeddings") -> NDArray[np.float32]:
    response = post(server, body, path)
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return np.array([item["embedding"] for item in data], np.float32)


def embedded(server: Server, *inputs: str, **fields: Any) -> NDArray[np.float32]:
    body = {"inputs": inputs, "normalize": True, **fields}
    return np.array(httpx.post(f"{server.url}/embed", json=body, timeout=60).json(), np.float32)


@pytest.fixture(scope="module")
def both(text_server: Server) -> NDArray[np.float32]:
    """Vectors of length 1 of the two texts, then of the two images."""
    return embedded(text_server, *TEXTS, *URIS)


class Bytes:
    """A request as a client in Go writes it: `encoding/json` without spaces, fields in the order of the struct."""

    def __init__(self, server: Server, path: str, body: str) -> None:
        self.response = httpx.post(
            server.url + path,
            content=body.encode(),
            headers={"Authorization": "Bearer any", "Content-Type": "application/json"},
            timeout=60,
        )

    @property
    def vectors(self) -> NDArray[np.float32]:
        assert self.response.status_code == 200, self.response.text
        return np.array([item["embedding"] for item in self.response.json()["data"]], np.float32)


def test_weaviate_multi2vec_jinaai(text_server: Server, both: NDArray[np.float32]) -> None:
    """An object's texts and images in one request, in this order; queries as strings, with a task for `clip` models."""
    objects = Bytes(
        text_server,
        "/v1/embeddings",
        f'{{"input":[{{"text":"{TEXTS[0]}"}},{{"text":"{TEXTS[1]}"}},{{"image":"{base64_of(FIRST)}"}},'
        f'{{"image":"{base64_of(SECOND)}"}}],"model":"clip","embedding_type":"float","normalized":true}}',
    )
    assert np.allclose(objects.vectors, both, atol=1e-5)
    query = Bytes(
        text_server,
        "/v1/embeddings",
        f'{{"input":["{TEXTS[0]}"],"model":"clip","embedding_type":"float","normalized":true,'
        '"task":"retrieval.query"}',
    )
    assert np.allclose(query.vectors, both[:1], atol=1e-5)
    bad = Bytes(text_server, "/v1/embeddings", '{"input":[{"image":"AAAA"}],"model":"clip","embedding_type":"float"}')
    assert bad.response.status_code == 400
    assert isinstance(bad.response.json()["detail"], str)  # the Go struct has a string
    assert bad.response.json()["detail"].startswith("input[0]: ")


def test_weaviate_multi2vec_nvidia(text_server: Server, both: NDArray[np.float32]) -> None:
    """Texts and images in requests of their own. It shows the `message` of a 400, which must be a string."""
    images = Bytes(
        text_server,
        "/v1/embeddings",
        f'{{"input":["data:image/png;base64,{base64_of(FIRST)}","data:image/png;base64,{base64_of(SECOND)}"],'
        '"model":"clip","encoding_format":"float"}',
    )
    assert np.allclose(images.vectors, both[2:], atol=1e-5)
    texts = Bytes(
        text_server,
        "/v1/embeddings",
        f'{{"input":["{TEXTS[0]}","{TEXTS[1]}"],"model":"clip","encoding_format":"float","input_type":"passage",'
        '"truncate":"END"}',
    )
    assert np.allclose(texts.vectors, both[:2], atol=1e-5)
    bad = Bytes(text_server, "/v1/embeddings", '{"input":["data:image/png;base64,AAAA"],"model":"clip"}')
    assert bad.response.status_code == 400
    assert bad.response.json()["message"].startswith("input[0]: ")


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_langchain_infinity(text_server: Server, prefix: str) -> None:
    """`langchain_community.embeddings.InfinityEmbeddings`, whose URL is the bare host in some of its examples."""
    body = {"input": TEXTS, "model": "minilm"}
    assert np.allclose(
        vectors(text_server, body, f"{prefix}/embeddings"),
        vectors(text_server, {"model": "minilm", "input": TEXTS}),
        atol=1e-5,
    )


def test_infinity(text_server: Server, both: NDArray[np.float32]) -> None:
    """Its client sends all fields, with placeholders for those that are not set."""
    unset = {"model": "default/not-specified", "encoding_format": "float", "user": None, "dimensions": 0}
    texts = {**unset, "input": TEXTS, "modality": "text"}
    images = {**unset, "input": [base64_of(FIRST), URIS[1]], "modality": "image"}
    assert np.allclose(vectors(text_server, texts, "/embeddings"), both[:2], atol=1e-5)
    assert np.allclose(vectors(text_server, images, "/embeddings"), both[2:], atol=1e-5)
    del images["modality"]
    assert np.allclose(vectors(text_server, images, "/embeddings_image"), both[2:], atol=1e-5)
    for bad in ({**texts, "dimensions": "x"}, {**texts, "modality": "audio"}, {"model": "clip"}):
        assert post(text_server, bad, "/embeddings").status_code == 400  # it can't read our 422


def test_conversations_of_vllm(text_server: Server, both: NDArray[np.float32]) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URIS[0]}}]}
    text = {"role": "user", "content": TEXTS[0]}
    one = vectors(text_server, {"model": "clip", "messages": [image], "encoding_format": "float"})
    batch = vectors(text_server, {"messages": [[text], [image]]})
    assert np.allclose(one, both[2:3], atol=1e-5)
    assert np.allclose(batch, both[[0, 2]], atol=1e-5)
    mixed = post(text_server, {"messages": [[text], [{**image, "content": [*image["content"], *[TEXTS[0]]]}]]})
    assert mixed.status_code == 400
    assert mixed.json()["error"]["param"] == "messages"
    assert mixed.json()["error"]["message"].startswith("messages[1]: has 1 images and 1 texts")


def test_formats_of_vectors_have_the_values_of_floats(text_server: Server, both: NDArray[np.float32]) -> None:
    def raw(**fields: Any) -> list[Any]:
        answer = post(text_server, {"model": "clip", "input": [*TEXTS, *URIS], **fields}).json()
        return [item["embedding"] for item in answer["data"]]

    def decoded(dtype: str, **fields: Any) -> NDArray[Any]:
        return np.array([np.frombuffer(base64.b64decode(each), dtype) for each in raw(**fields)])

    def cosines(levels: NDArray[Any]) -> NDArray[np.float32]:
        levels = levels.astype(np.float32)
        cosines: NDArray[np.float32] = (levels / np.linalg.norm(levels, axis=1, keepdims=True) * both).sum(axis=1)
        return cosines

    bits = both >= 0
    assert np.array_equal(np.unpackbits(np.array(raw(embedding_type="ubinary"), np.uint8), axis=1), bits)
    signed = np.array(raw(encoding_type=["binary"]), np.int16)
    assert np.array_equal(np.unpackbits((signed + 128).astype(np.uint8), axis=1), bits)  # as LlamaIndex undoes it
    int8 = np.array(raw(output_dtype="int8"))
    assert (int8.dtype.kind, np.abs(int8).max()) == ("i", 127)
    assert np.allclose(cosines(int8), 1, atol=1e-3)
    assert np.array_equal(np.array(raw(output_dtype="uint8")) - 128, int8)
    assert np.array_equal(decoded("<i1", output_dtype="int8", encoding_format="base64"), int8)
    assert np.allclose(decoded("<f4", embedding_type="base64"), both, atol=1e-5)
    assert np.allclose(decoded("<f2", embed_dtype="float16", encoding_format="base64"), both, atol=1e-3)
    assert np.allclose(raw(dimensions=0), both, atol=1e-5)
    cut = embedded(text_server, *TEXTS, *URIS, dimensions=8)
    assert np.allclose(raw(output_dimension=8), cut, atol=1e-5)
    odd = post(text_server, {"input": TEXTS, "dimensions": 12, "embedding_type": "binary"})
    assert odd.status_code == 400
    assert "multiple of 8" in odd.json()["detail"]


def test_vectors_keep_their_length_if_asked(text_server: Server) -> None:
    raw = embedded(text_server, URIS[0], normalize=False)
    assert np.linalg.norm(raw) != pytest.approx(1, abs=0.01)
    assert np.allclose(vectors(text_server, {"input": URIS[:1], "normalized": False}), raw, atol=1e-5)


def test_truncation_in_the_words_of_all(text_server: Server) -> None:
    long = "fox " * 300 + "cat"
    ends = {end: embedded(text_server, long, truncate=True, truncation_direction=end) for end in ("left", "right")}
    assert np.abs(ends["left"] - ends["right"]).max() > 1e-3
    cut: list[tuple[dict[str, Any], str]] = [
        ({"truncate": "START"}, "left"),
        ({"truncate": "END"}, "right"),
        ({"truncation": True}, "right"),
        ({"truncate_prompt_tokens": -1, "truncation_side": "left"}, "left"),
    ]
    for fields, end in cut:
        assert np.allclose(vectors(text_server, {"input": long, **fields}), ends[end], atol=1e-5), fields
    for refusing in ({}, {"truncate": "NONE"}, {"truncate": False}, {"truncation": False}):
        response = post(text_server, {"input": long, **refusing})
        assert response.status_code == 400
        assert "over the model's limit" in response.json()["detail"]


def test_hints_for_prompts_are_never_refused(text_server: Server, both: NDArray[np.float32]) -> None:
    for fields in ({"input_type": "query"}, {"task": "retrieval.passage"}, {"input_type": "anything"}):
        assert np.allclose(vectors(text_server, {"input": TEXTS, **fields}), both[:2], atol=1e-5)


def test_models_by_prefix(text_server: Server) -> None:
    body = {"input": TEXTS}
    expected = vectors(text_server, {"model": "minilm", **body})
    for path in ("/m/minilm/v1/embeddings", "/m/minilm/embeddings"):
        assert np.allclose(vectors(text_server, body, path), expected, atol=1e-5)


@pytest.mark.parametrize(("path", "owner"), [("/v1/models", "iei"), ("/models", "infinity")])
def test_models_are_listed_for_everybody(text_server: Server, path: str, owner: str) -> None:
    listed = httpx.get(text_server.url + path).json()
    clip, minilm = listed["data"]
    assert (listed["object"], listed["models"]) == ("list", ["clip", "minilm"])
    for model, name in ((clip, "clip"), (minilm, "minilm")):
        assert {"id": name, "object": "model", "owned_by": owner, "root": None, "stats": {}}.items() <= model.items()
        assert isinstance(model["created"], int)
        assert model["aliases"] == []  # folders are not published
    assert clip["capabilities"] == ["image_embed", "embed"]
    assert clip["architecture"] == {"input_modalities": ["image", "text"]}
    assert isinstance(clip["backend"], str)


def test_one_model(text_server: Server) -> None:
    for path in ("/v1/models/minilm", "/models/minilm"):
        model = httpx.get(text_server.url + path).json()
        assert {"id": "minilm", "object": "model", "name": "minilm", "ready": True}.items() <= model.items()
    assert httpx.get(f"{text_server.url}/v1/models/other").status_code == 404


def test_health_of_a_nim(text_server: Server) -> None:
    ready, live, metadata = (
        httpx.get(f"{text_server.url}/v1/{path}").json() for path in ("health/ready", "health/live", "metadata")
    )
    assert ready == {"object": "health.response", "message": "Service is ready."}
    assert live == {"object": "health.response", "message": "Service is live."}
    assert metadata["version"] == __version__
    assert [model["shortName"] for model in metadata["modelInfo"]] == ["clip", "minilm"]
