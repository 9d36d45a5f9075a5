"""The OpenAPI page shows every route, with examples that run and answers that look as they should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from iei.dialects.cohere import EmbedByTypeResponse, EmbedFloatsResponse
from iei.dialects.instances import PredictResponse
from iei.dialects.kserve_message import InferResponse
from iei.dialects.labels import Label
from iei.dialects.litserve import Prediction
from iei.dialects.ollama import EmbeddingsResponse as OllamaEmbeddingsResponse
from iei.dialects.ollama import EmbedResponse
from iei.dialects.openai_answers import EmbeddingsResponse, IndexedVectors
from iei.dialects.qdrant import InferenceResponse
from iei.dialects.voyage import MultimodalResponse
from iei.dialects.weaviate import ImageVector, TextVector, VectorizeResponse
from iei.dialects.zero_shot import Rank
from iei.engine.inprocess import InProcessEngine
from tests.apps import app_around, default_model
from tests.checkpoints.text_checkpoints import trained_folder
from tests.servers import Server

DOCUMENTED = {
    ("post", "/embed"),
    ("post", "/embed_all"),
    ("post", "/similarity"),
    ("post", "/tokenize"),
    ("post", "/decode"),
    ("get", "/"),
    ("post", "/"),
    ("post", "/invocations"),
    ("get", "/info"),
    ("get", "/health"),
    ("get", "/ping"),
    ("post", "/v1/embeddings"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("get", "/v1/health/ready"),
    ("get", "/v1/health/live"),
    ("get", "/v1/metadata"),
    ("post", "/embedding"),
    ("get", "/props"),
    ("get", "/v2"),
    ("get", "/v2/health/live"),
    ("get", "/v2/health/ready"),
    ("get", "/v2/models"),
    ("get", "/v2/models/{model}"),
    ("get", "/v2/models/{model}/ready"),
    ("post", "/v2/models/{model}/infer"),
    ("get", "/v2/models/{model}/versions/{version}"),
    ("get", "/v2/models/{model}/versions/{version}/ready"),
    ("post", "/v2/models/{model}/versions/{version}/infer"),
    ("post", "/predict"),
    ("post", "/classify"),
    ("post", "/rank"),
    ("post", "/vectors"),
    ("post", "/vectorize"),
    ("get", "/meta"),
    ("get", "/.well-known/live"),
    ("get", "/.well-known/ready"),
    ("post", "/qdrant"),
    ("post", "/v1/embed"),
    ("post", "/v2/embed"),
    ("post", "/v1/multimodalembeddings"),
    ("post", "/v1/models/{model}:predict"),
    ("post", "/v1/models/{model}/versions/{version}:predict"),
    ("post", "/vertex"),
    ("post", "/api/embed"),
    ("post", "/api/embeddings"),
    ("post", "/api/show"),
    ("get", "/api/tags"),
    ("get", "/api/version"),
}


@pytest.fixture(scope="module")
def document(text_server: Server) -> dict[str, Any]:
    """Of a server whose model takes images and texts."""
    document: dict[str, Any] = httpx.get(f"{text_server.url}/openapi.json").json()
    return document


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes >= DOCUMENTED


ANSWERS: dict[str, Any] = {
    "/embed": list[list[float]],
    "/embed_all": list[list[list[float]]],
    "/similarity": list[float],
    "/v1/embeddings": EmbeddingsResponse | list[IndexedVectors],
    "/embedding": list[IndexedVectors],
    "/v2/models/{model}/infer": InferResponse,
    "/predict": Prediction | list[Prediction],
    "/classify": list[Label] | list[list[Label]],
    "/rank": list[Rank],
    "/vectors": ImageVector | TextVector,
    "/vectorize": VectorizeResponse,
    "/qdrant": InferenceResponse,
    "/v1/embed": EmbedFloatsResponse | EmbedByTypeResponse,
    "/v2/embed": EmbedByTypeResponse,
    "/v1/multimodalembeddings": MultimodalResponse,
    "/v1/models/{model}:predict": PredictResponse,
    "/v1/models/{model}/versions/{version}:predict": PredictResponse,
    "/vertex": PredictResponse,
    "/api/embed": EmbedResponse,
    "/api/embeddings": OllamaEmbeddingsResponse,
}
"""Routes with examples → what the page says of their answers."""

SERVERS = {"image": "demo_server", "image of any size": "zoo_server", "text and image": "text_server"}
"""What a server's default model takes → fixture of that server."""


@pytest.fixture(params=[*SERVERS, "text"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client | TestClient]:
    """Of servers whose default model takes this."""
    if request.param == "text":
        settings = {"model": str(trained_folder()), "model_name": "minilm", "threads": 1}
        with TestClient(app_around(InProcessEngine(default_model(**settings)), **settings)) as client:
            yield client
    else:
        with httpx.Client(base_url=request.getfixturevalue(SERVERS[request.param]).url, timeout=60) as client:
            yield client


@pytest.mark.server
def test_every_example_runs_and_its_answer_is_as_documented(client: httpx.Client | TestClient) -> None:
    model = client.get("/v1/models").json()["data"][0]["id"]
    document = client.get("/openapi.json").json()
    answered = set()
    for path, methods in document["paths"].items():
        url = path.format(model=model, version="1")
        for method, route in methods.items():
            if method == "get":
                assert str(client.get(url).status_code) in route["responses"], path
                continue
            examples = route["requestBody"]["content"]["application/json"]["examples"]
            assert examples, f"{path} has no example"
            for summary, example in examples.items():
                response = client.request(method, url, json=example["value"])
                assert response.status_code == 200, f"{path}, {summary}: {response.text}"
                if path in ANSWERS:
                    answered.add(path)
                    adapter = TypeAdapter(ANSWERS[path])
                    answer = response.json()
                    assert adapter.dump_python(adapter.validate_python(answer), exclude_unset=True) == answer, path
    assert answered >= ANSWERS.keys() - {"/predict", "/classify"}


def test_what_a_model_can_never_answer_is_not_shown(demo_server: Server, document: dict[str, Any]) -> None:
    shown = httpx.get(f"{demo_server.url}/openapi.json").json()["paths"].keys()
    assert document["paths"].keys() - shown == {"/tokenize", "/decode", "/classify"}


def test_errors_are_documented_in_the_shape_of_their_dialect(text_server: Server, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for path, methods in document["paths"].items():
        for route in methods.values():
            schema = route["responses"]["default"]["content"]["application/json"]["schema"]
            fields = schemas[schema["$ref"].rpartition("/")[2]]["properties"].keys()
            if "post" in methods:
                response = httpx.post(text_server.url + path.format(model="none", version="1"), content=b"{")
                assert response.json().keys() == fields, path


def test_bodies_that_are_no_json_are_documented(document: dict[str, Any]) -> None:
    content = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/octet-stream", "image/*"}


def test_schemas_refer_to_what_is_there(document: dict[str, Any]) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    components = {f"#/components/schemas/{name}" for name in document.get("components", {}).get("schemas", {})}
    assert references(document) <= components


def test_every_route_says_what_it_is_for(document: dict[str, Any]) -> None:
    routes = [(path, route) for path, methods in document["paths"].items() for route in methods.values()]
    for path, route in routes:
        made_of_a_name = route["operationId"].partition("_")[0].replace("_", " ").title()
        assert route["summary"] != made_of_a_name, path
        assert len(route["summary"].split()) > 2, path


def test_parameters_in_paths_have_a_value_that_is_served(document: dict[str, Any]) -> None:
    parameters = {
        (each["name"], tuple(each.get("examples", ())))
        for methods in document["paths"].values()
        for route in methods.values()
        for each in route.get("parameters", [])
        if each["in"] == "path"
    }
    assert parameters == {("model", ("clip",)), ("version", ("1",))}


def test_routes_are_grouped_and_every_group_says_for_whom_it_is(document: dict[str, Any]) -> None:
    used = {tag for methods in document["paths"].values() for route in methods.values() for tag in route["tags"]}
    groups = {group["name"]: group["description"] for group in document["tags"]}
    assert groups.keys() == used
    assert all(groups.values())
    assert next(iter(groups)) == "IEI and text-embeddings-inference"
