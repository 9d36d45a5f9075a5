"""Databases that call IEI over protocols that others have defined, with the settings of docs/vector-databases.md.

None of them can be had from a package index. Each row makes the request that its product makes of the setting, by the
product's sources, and finds the vectors where the product does.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, jpeg, png
from tests.servers import ROOT, Server

PAGE = (ROOT / "docs" / "vector-databases.md").read_text()
TEXTS = ['A <cat> & a "dog", ±5 °C', "two\nlines"]
PICTURES = [data_uri(jpeg()), data_uri(png(name="rocket"), "image/png")]

Answer = Any
Vectors = list[list[float]]


class Call(NamedTuple):
    url: str
    body: str


def settings(product: str, number: int = 0) -> Any:
    """A JSON block under the product's heading."""
    section = PAGE.split(f"\n## {product}\n")[1].split("\n## ")[0]
    return json.loads(re.findall(r"^```json\n(.*?)^```", section, re.M | re.S)[number])


def meilisearch(items: list[str]) -> Call:
    """crates/milli/src/vector/embedder/rest.rs: the list repeats its first element where it has `{{..}}`."""
    embedder = settings("Meilisearch")["embedders"]["iei"]
    request = {**embedder["request"]}
    assert request["input"] == ["{{fragment}}", "{{..}}"]
    assert embedder["response"] == {"data": [{"embedding": "{{embedding}}"}, "{{..}}"]}
    return Call(embedder["url"], json.dumps({**request, "input": items}, separators=(",", ":"), ensure_ascii=False))


def _connector(number: int, **parameters: str) -> Call:
    """ml-commons: the text of each parameter in the place of its name."""
    connector = settings("OpenSearch", number)
    (action,) = connector["actions"]
    body: str = action["request_body"]
    for name, text in {**connector.get("parameters", {}), **parameters}.items():
        body = body.replace(f"${{parameters.{name}}}", text)
    assert "${" not in body
    return Call(action["url"], body)


def opensearch(items: list[str]) -> Call:
    return _connector(0, input=json.dumps(items))


def opensearch_base64(items: list[str]) -> Call:
    (item,) = items
    return _connector(1, inputImage=item.rpartition(",")[2])


def opensearch_tei(items: list[str]) -> Call:
    return _connector(2, input=json.dumps(items))


def elasticsearch_openai(items: list[str]) -> Call:
    """OpenAiEmbeddingsRequestEntity: `input`, then `model`."""
    service = settings("Elasticsearch", 0)["service_settings"]
    return Call(service["url"], json.dumps({"input": items, "model": service["model_id"]}))


def elasticsearch_openai_base64(items: list[str]) -> Call:
    """Newer versions ask for base64, too."""
    url, body = elasticsearch_openai(items)
    return Call(url, json.dumps({**json.loads(body), "encoding_format": "base64"}))


def elasticsearch_hugging_face(items: list[str]) -> Call:
    """HuggingFaceEmbeddingsRequestEntity."""
    return Call(settings("Elasticsearch", 1)["service_settings"]["url"], json.dumps({"inputs": items}))


def elasticsearch_custom(items: list[str]) -> Call:
    service = settings("Elasticsearch", 2)["service_settings"]
    assert service["response"]["json_parser"]["text_embeddings"] == "$.data[*].embedding[*]"
    return Call(service["url"], service["request"].replace("${input}", json.dumps(items)))


def milvus(items: list[str]) -> Call:
    """internal/util/function/models/tei/tei.go: the path is replaced."""
    (endpoint,) = re.findall(r'"endpoint": "(.*?)"', PAGE)
    body = {"inputs": items, "truncate": True, "truncation_direction": "Right"}
    return Call(f"{endpoint}/embed", json.dumps(body, separators=(",", ":"), ensure_ascii=False))


def typesense(items: list[str]) -> Call:
    """src/text_embedder_remote.cpp: the name without `openai/`."""
    config = settings("Typesense")["embed"]["model_config"]
    body = {"input": items, "model": config["model_name"].removeprefix("openai/")}
    return Call(f"{config['url']}/v1/embeddings", json.dumps(body))


def of_openai(answer: Answer) -> Vectors:
    """`$.data[*].embedding`."""
    return [item["embedding"] for item in answer["data"]]


def of_openai_base64(answer: Answer) -> Vectors:
    return [np.frombuffer(base64.b64decode(vector), "<f4").tolist() for vector in of_openai(answer)]  # type: ignore[arg-type]


def of_tei(answer: Answer) -> Vectors:
    """`$[*]`."""
    vectors: Vectors = answer
    return vectors


PRODUCTS: dict[str, tuple[Callable[[list[str]], Call], Callable[[Answer], Vectors], list[str]]] = {
    "Meilisearch": (meilisearch, of_openai, TEXTS + PICTURES),
    "OpenSearch": (opensearch, of_openai, TEXTS + PICTURES),
    "OpenSearch, images as base64": (opensearch_base64, of_openai, PICTURES[:1]),
    "OpenSearch, PNG as base64": (opensearch_base64, of_openai, PICTURES[1:]),
    "OpenSearch, as TEI": (opensearch_tei, of_tei, TEXTS + PICTURES),
    "Elasticsearch, openai": (elasticsearch_openai, of_openai, TEXTS + PICTURES),
    "Elasticsearch, openai with base64": (elasticsearch_openai_base64, of_openai_base64, TEXTS + PICTURES),
    "Elasticsearch, hugging_face": (elasticsearch_hugging_face, of_tei, TEXTS + PICTURES),
    "Elasticsearch, custom": (elasticsearch_custom, of_openai, TEXTS + PICTURES),
    "Milvus": (milvus, of_tei, TEXTS + PICTURES),
    "Typesense": (typesense, of_openai, TEXTS),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_setting_gives_the_vectors_of_the_model(text_server: Server, product: str) -> None:
    call, vectors, items = PRODUCTS[product]
    url, body = call(items)
    headers = {"content-type": "application/json", "authorization": "Bearer none"}
    assert urlsplit(url).netloc == "iei:8000"
    response = httpx.post(text_server.url + urlsplit(url).path, content=body.encode(), headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    unnormalized = vectors is of_tei
    expected = httpx.post(
        f"{text_server.url}/m/clip/embed", json={"inputs": items, "normalize": not unnormalized}, timeout=60
    ).json()
    assert np.shape(vectors(response.json())) == np.shape(expected)
    assert np.abs(np.array(vectors(response.json())) - expected).max() <= 1e-5


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_bad_document_is_named_and_is_not_to_be_tried_again(text_server: Server, product: str) -> None:
    """400: Meilisearch, Elasticsearch and OpenSearch try again at 429 and 5xx only."""
    call, _, _ = PRODUCTS[product]
    bad = data_uri(b"no picture")
    url, body = call([bad] if call is opensearch_base64 else ["a cat", bad])
    response = httpx.post(
        text_server.url + urlsplit(url).path, content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert f"[{0 if call is opensearch_base64 else 1}]: is not an image" in response.text


def test_pictures_as_urls_are_for_models_of_images_only(demo_server: Server) -> None:
    """Milvus has no room for more: such a model takes bare base64 and URLs, which this server does not fetch."""
    url, body = milvus([base64_of(png()), "https://example.com/cat.jpg"])
    response = httpx.post(demo_server.url + urlsplit(url).path, content=body, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"].startswith("inputs[1]: ")
    assert "IEI_URL_INPUTS" in response.json()["error"]


def test_typesense_finds_the_model_in_the_list(text_server: Server) -> None:
    """It asks for the list before it makes the field."""
    config = settings("Typesense")["embed"]["model_config"]
    listed = httpx.get(f"{text_server.url}/v1/models").json()["data"]
    assert config["model_name"].removeprefix("openai/") in [model["id"] for model in listed]
