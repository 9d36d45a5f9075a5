"""Cohere's embed API, with requests byte by byte as other products send them, and with what is wrong with a request."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, jpeg, png
from tests.servers import Server

TEXTS = ["A cat sits on a mat", "Shares fell sharply on Monday"]
IMAGE = png()


def embedded(server: Server, model: str, *inputs: str, **fields: Any) -> np.ndarray:
    """Vectors of `/embed`."""
    url = f"{server.url}/m/{model}/embed"
    return np.array(httpx.post(url, json={"inputs": inputs, "normalize": True, **fields}, timeout=60).json())


def sent(server: Server, path: str, body: str, **headers: str) -> Any:
    """The answer to a request of exactly this body."""
    headers = {"authorization": "Bearer none", "content-type": "application/json", **headers}
    response = httpx.post(server.url + path, content=body.encode(), headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_weaviate(text_server: Server) -> None:
    """multi2vec-cohere sends texts in one request, and each image in one of its own."""
    headers = {"accept": "application/json", "request-source": "unspecified:weaviate", "accept-encoding": "gzip"}
    texts = sent(
        text_server,
        "/v2/embed",
        '{"texts":["A cat sits on a mat","Shares fell sharply on Monday"],"model":"clip",'
        '"input_type":"search_document","embedding_types":["float"],"truncate":"END"}',
        **headers,
    )
    np.testing.assert_allclose(texts["embeddings"]["float"], embedded(text_server, "clip", *TEXTS), atol=1e-5)
    image = sent(
        text_server,
        "/v2/embed",
        '{"images":["data:image/png;base64,' + base64_of(jpeg()) + '"],"model":"clip","input_type":"image",'
        '"embedding_types":["float"],"output_dimension":16}',
        **headers,
    )
    expected = embedded(text_server, "clip", data_uri(jpeg()), dimensions=16)
    np.testing.assert_allclose(image["embeddings"]["float"], expected, atol=1e-5)
    assert image["embeddings"].keys() == {"float"}
    assert all(isinstance(count, int) for count in image["meta"]["billed_units"].values())
    left = sent(text_server, "/v2/embed", '{"texts":["a cat"],"model":"clip","truncate":"LEFT"}', **headers)
    assert left["texts"] == ["a cat"]


def test_opensearch(text_server: Server) -> None:
    """Its connectors' templates, whose vectors are at `$.embeddings` or at `$.embeddings.float`."""
    image = sent(
        text_server,
        "/v1/embed",
        '{ "images": ["' + data_uri(IMAGE, "image/png") + '"], "truncate": "END", "model": "clip", '
        '"input_type": "image" }',
        **{"request-source": "unspecified:opensearch"},
    )
    np.testing.assert_allclose(
        image["embeddings"], embedded(text_server, "clip", data_uri(IMAGE, "image/png")), atol=1e-5
    )
    text = sent(
        text_server,
        "/v2/embed",
        '{ "texts": ["A cat sits on a mat"], "truncate": "END", "model": "minilm", '
        '"input_type": "search_document", "embedding_types": ["float"] }',
    )
    np.testing.assert_allclose(text["embeddings"]["float"], embedded(text_server, "minilm", TEXTS[0]), atol=1e-5)
    quoted = sent(text_server, "/v1/embed", '{"images": "' + base64_of(IMAGE) + '", "model": "clip"}')
    assert quoted["embeddings"] == image["embeddings"]


def test_langchain(text_server: Server) -> None:
    """`CohereEmbeddings` always sends the types, and null for what is not set; it reads them one after another."""
    answer = sent(
        text_server,
        "/v1/embed",
        '{"texts": ["A cat sits on a mat", "Shares fell sharply on Monday"], "model": "minilm", '
        '"input_type": "search_document", "embedding_types": ["float"], "truncate": null}',
        **{"x-client-name": "langchain:partner"},
    )
    assert answer["response_type"] == "embeddings_by_type"
    np.testing.assert_allclose(answer["embeddings"]["float"], embedded(text_server, "minilm", *TEXTS), atol=1e-5)


def test_answers_have_no_nulls_and_ids_of_their_own(text_server: Server) -> None:
    """Clients of other languages are stricter than Python's."""
    first, second = (sent(text_server, "/v1/embed", '{"texts": ["a", "b"]}') for _ in range(2))
    assert uuid.UUID(first["id"]) != uuid.UUID(second["id"])
    assert first.keys() == {"id", "response_type", "embeddings", "texts", "meta"}
    assert first["meta"].keys() == {"api_version", "billed_units"}
    assert first["meta"]["api_version"] == {"version": "1"}
    assert first["meta"]["billed_units"].keys() == {"input_tokens"}
    image = sent(text_server, "/v1/embed", json.dumps({"images": [base64_of(IMAGE)]}))
    assert image["images"] == [{"width": 64, "height": 48}]
    assert image["meta"]["billed_units"] == {"images": 1}


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "exactly one of texts, images"),
        ({"texts": []}, 400, "these have: none"),
        ({"texts": ["a"], "images": [base64_of(IMAGE)]}, 400, "these have: texts and images"),
        ({"texts": [""]}, 400, "texts[0]: is empty"),
        ({"texts": ["a", 7]}, 400, "texts[1]: Input should be a valid string"),
        ({"texts": {"a": "b"}}, 400, "texts: must be a string or a list of strings"),
        ({"images": ["####", base64_of(IMAGE), ""]}, 400, "images[0]: is not base64"),
        ({"texts": ["a"], "embedding_types": ["float", "int4"]}, 400, "embedding_types[1]"),
        ({"texts": ["a"], "truncate": "MIDDLE"}, 400, "truncate"),
        ({"texts": ["a"], "model": "embed-v4.0"}, 404, "served: clip, minilm"),
        ({"texts": ["a"] * 1025}, 400, "IEI_MAX_INPUTS"),
        ([], 400, "body"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_errors_have_an_id_and_a_message(text_server: Server, path: str, body: object, status: int, words: str) -> None:
    response = httpx.post(text_server.url + path, json=body, timeout=60)
    assert (response.status_code, response.json().keys()) == (status, {"id", "message"})
    assert words in response.json()["message"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"inputs": [{"content": []}]}, "inputs[0].content: List should have at least 1 item"),
        ({"inputs": [{}]}, "inputs[0].content: Field required"),
        ({"inputs": [{"content": [{"type": "audio"}]}]}, "inputs[0].content[0]: must be an object whose type is"),
        ({"inputs": [{"content": [{"type": "image_url", "image_url": {"url": "####"}}]}]}, "inputs[0]: is not base64"),
        ({"texts": ["a"], "inputs": [{"content": [{"type": "text", "text": "a"}]}]}, "have: texts and inputs"),
        ({"texts": ["a"], "output_dimension": 0}, "output_dimension"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_errors_of_version_2_alone(text_server: Server, fields: dict[str, Any], words: str) -> None:
    response = httpx.post(f"{text_server.url}/v2/embed", json={"model": "clip", **fields}, timeout=60)
    assert (response.status_code, response.json().keys()) == (400, {"id", "message"})
    assert words in response.json()["message"]


def test_a_text_that_is_no_unicode_is_refused(text_server: Server) -> None:
    """Answers repeat texts, and this one could not be written."""
    response = httpx.post(f"{text_server.url}/v2/embed", content=b'{"texts": ["\\ud800"]}', timeout=60)
    assert response.status_code == 400


def test_bits_need_a_length_that_fills_bytes(text_server: Server) -> None:
    body = {"texts": ["a"], "model": "minilm", "output_dimension": 12, "embedding_types": ["ubinary"]}
    response = httpx.post(f"{text_server.url}/v2/embed", json=body, timeout=60)
    assert response.status_code == 400
    assert "multiple of 8" in response.json()["message"]


def test_the_path_may_name_the_model(text_server: Server) -> None:
    answer = sent(text_server, "/m/minilm/v1/embed", json.dumps({"texts": TEXTS}))
    np.testing.assert_allclose(answer["embeddings"], embedded(text_server, "minilm", *TEXTS), atol=1e-5)


def test_paths_around_it_are_kserves_and_openais(text_server: Server) -> None:
    assert httpx.get(f"{text_server.url}/v2/embed").json().keys() == {"id", "message"}
    assert httpx.post(f"{text_server.url}/v2/embeds").json().keys() == {"error"}
    assert httpx.post(f"{text_server.url}/v1/embeds").json().keys() == {"error", "message", "detail"}
