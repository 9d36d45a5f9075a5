"""Ollama's embedding routes, with requests as its API and the products that call it send them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import data_uri, jpeg
from tests.servers import Server

URI = data_uri(jpeg(name="chelsea"))
TEXTS = ["a cat", "a cup of coffee"]


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/api/{path}", json=body, timeout=60)


def embedded(server: Server, inputs: object, **fields: object) -> np.ndarray:
    """What `/embed` answers, normalised."""
    body = {"inputs": inputs, "normalize": True, **fields}
    return np.array(httpx.post(f"{server.url}/embed", json=body, timeout=60).json())


def test_embed_has_ollamas_fields(text_server: Server) -> None:
    answer = post(text_server, "embed", model="clip", input=TEXTS, options={"num_ctx": 1}, keep_alive="5m").json()
    assert list(answer) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    assert answer["model"] == "clip"
    assert np.allclose(answer["embeddings"], embedded(text_server, TEXTS), atol=1e-5)
    tokens = httpx.post(f"{text_server.url}/tokenize", json={"inputs": TEXTS}).json()
    assert answer["prompt_eval_count"] == sum(map(len, tokens))
    assert 0 < answer["load_duration"] < answer["total_duration"] < 60e9


def test_one_text_a_short_vector_and_a_picture(text_server: Server) -> None:
    for given, inputs in ((TEXTS[0], [TEXTS[0]]), ([URI, TEXTS[0]], [URI, TEXTS[0]])):
        found = post(text_server, "embed", model="clip", input=given).json()["embeddings"]
        assert np.allclose(found, embedded(text_server, inputs), atol=1e-5)
    short = post(text_server, "embed", model="clip", input=TEXTS, dimensions=8).json()["embeddings"]
    assert np.allclose(short, embedded(text_server, TEXTS, dimensions=8), atol=1e-5)
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)
    for dimensions in (0, -1, None):
        body = {"model": "clip", "input": TEXTS, "dimensions": dimensions}
        assert np.shape(post(text_server, "embed", **body).json()["embeddings"]) == embedded(text_server, TEXTS).shape


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": None}], ids=str)
def test_nothing_to_embed_is_how_clients_load_a_model(text_server: Server, body: dict[str, Any]) -> None:
    assert post(text_server, "embed", model="clip", **body).json() == {"model": "clip", "embeddings": []}
    assert post(text_server, "embed", model="none", **body).status_code == 404


def test_embeddings_takes_one_prompt(text_server: Server) -> None:
    answer = post(text_server, "embeddings", model="clip", prompt=TEXTS[0]).json()
    assert list(answer) == ["embedding"]
    assert np.allclose(answer["embedding"], embedded(text_server, TEXTS[0])[0], atol=1e-5)
    assert post(text_server, "embeddings", model="clip").json() == {"embedding": []}
    assert post(text_server, "embeddings", model="clip", prompt="").json() == {"embedding": []}


def test_long_texts_are_cut_unless_the_request_says_no(text_server: Server) -> None:
    long = "word " * 500
    cut = embedded(text_server, [long], truncate=True)
    assert np.allclose(post(text_server, "embed", model="clip", input=long).json()["embeddings"], cut, atol=1e-5)
    assert np.allclose(post(text_server, "embeddings", model="clip", prompt=long).json()["embedding"], cut, atol=1e-5)
    refused = post(text_server, "embed", model="clip", input=long, truncate=False)
    assert refused.status_code == 400
    assert "input[0]: " in refused.json()["error"]
    assert "tokens" in refused.json()["error"]


@pytest.mark.parametrize("path", ["embed", "embeddings", "show"])
def test_names_may_have_the_tag_latest(text_server: Server, path: str) -> None:
    assert post(text_server, path, model="minilm:latest").status_code == 200
    refused = post(text_server, path, model="minilm:v2")
    assert refused.status_code == 404
    assert refused.json() == {"error": "model 'minilm:v2' not found; this server has clip, minilm"}


def test_the_model_may_be_in_the_path(text_server: Server) -> None:
    found = httpx.post(f"{text_server.url}/m/minilm/api/embed", json={"input": TEXTS}).json()
    assert found["model"] == "minilm"
    assert found["embeddings"] == post(text_server, "embed", model="minilm", input=TEXTS).json()["embeddings"]


def test_probes(text_server: Server) -> None:
    for path in ("tags", "version"):
        assert httpx.head(f"{text_server.url}/api/{path}").status_code == 200
    major, minor, _ = map(int, httpx.get(f"{text_server.url}/api/version").json()["version"].split("."))
    assert (major, minor) >= (0, 3), "clients ask for the version that brought /api/embed"
    models = httpx.get(f"{text_server.url}/api/tags").json()["models"]
    assert [model["name"] for model in models] == ["clip:latest", "minilm:latest"]
    assert models[0]["details"]["family"] == "clip"


def test_show_has_the_keys_that_pgai_reads(text_server: Server) -> None:
    """`projects/pgai/pgai/vectorizer/embedders/ollama.py`: the architecture, and under its name the length."""
    for model, field in (("clip", "model"), ("minilm", "model"), ("minilm", "name")):
        shown = post(text_server, "show", **{field: model}).json()
        architecture = shown["model_info"]["general.architecture"]
        vector = post(text_server, "embed", model=model, input="a").json()["embeddings"][0]
        assert shown["model_info"][f"{architecture}.context_length"] > 0
        assert shown["model_info"][f"{architecture}.embedding_length"] == len(vector)
        assert shown["capabilities"] == ["embedding"]


def test_requests_of_products(text_server: Server) -> None:
    """As their sources write them. Weaviate sends no Content-Type."""
    wanted = embedded(text_server, TEXTS)
    body = json.dumps({"model": "clip", "input": TEXTS})
    weaviate = httpx.post(f"{text_server.url}/api/embed", content=body)
    assert "content-type" not in weaviate.request.headers
    meilisearch = post(text_server, "embed", model="clip", input=TEXTS)
    for response in (weaviate, meilisearch):
        assert np.allclose(response.json()["embeddings"], wanted, atol=1e-5)
    probe = post(text_server, "embeddings", model="clip", prompt="test")
    assert np.shape(probe.json()["embedding"]) == wanted[0].shape
    assert post(text_server, "embed", model="nomic-embed-text", input=["test"]).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("embed", {"input": 7}, "input: must be a string or a list of strings"),
        ("embed", {"input": ["a", 7]}, "input[1]: Input should be a valid string"),
        ("embed", {"input": ["a", ""]}, "input[1]: "),
        ("embed", {"input": "data:image/png;base64,AAAA"}, "input[0]: is not an image"),
        ("embed", {"input": "a", "dimensions": 10**6}, "dimensions must be from 1 to"),
        ("embed", {"input": "a", "truncate": "END"}, "truncate: "),
        ("embeddings", {"prompt": ["a"]}, "prompt: Input should be a valid string"),
        ("embeddings", {"prompt": "data:image/png;base64,AAAA"}, "prompt: is not an image"),
        ("show", {"model": 7}, "model: Input should be a valid string"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_errors_are_400_with_an_error(text_server: Server, path: str, body: dict[str, Any], words: str) -> None:
    response = post(text_server, path, **{"model": "clip", **body})
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]


def test_what_is_not_served_says_so_in_ollamas_form(text_server: Server) -> None:
    """pgai pulls a model that is not there."""
    response = post(text_server, "pull", model="none")
    assert response.status_code == 404
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize("text", ["a cat", "cats", "http://example.com/cat.jpg"])
def test_a_model_of_pictures_takes_no_texts(demo_server: Server, text: str) -> None:
    """Not even those that are valid base64, or could be addresses."""
    for path, field in (("embed", "input"), ("embeddings", "prompt")):
        response = post(demo_server, path, model="demo", **{field: text})
        assert (response.status_code, response.json()) == (400, {"error": "model 'demo' takes no texts"})
    found = post(demo_server, "embed", model="demo", input=URI).json()
    assert np.allclose(found["embeddings"], embedded(demo_server, URI), atol=1e-5)
    assert "vit.context_length" not in post(demo_server, "show", model="demo").json()["model_info"]
