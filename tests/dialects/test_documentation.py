"""The OpenAPI page shows every route, with examples that run."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.servers import Server

DOCUMENTED = {
    ("post", "/embed"),
    ("post", "/embed_all"),
    ("post", "/similarity"),
    ("post", "/tokenize"),
    ("post", "/decode"),
    ("post", "/"),
    ("post", "/invocations"),
    ("get", "/info"),
    ("get", "/health"),
    ("get", "/ping"),
    ("post", "/v1/embeddings"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
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
}


@pytest.fixture(scope="module")
def document(text_server: Server) -> dict[str, Any]:
    """Of a server whose model takes images and texts."""
    document: dict[str, Any] = httpx.get(f"{text_server.url}/openapi.json").json()
    return document


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes >= DOCUMENTED


def test_every_example_runs(text_server: Server, document: dict[str, Any]) -> None:
    model = httpx.get(f"{text_server.url}/v1/models").json()["data"][0]["id"]
    answers = {}
    for path, methods in document["paths"].items():
        url = text_server.url + path.format(model=model, version="1")
        for method, route in methods.items():
            examples = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
            assert examples or method == "get", f"{method} {path} has no example"
            for summary, example in examples.items():
                answers[f"{method} {path}: {summary}"] = httpx.request(method, url, json=example["value"], timeout=60)
            if method == "get":
                answers[f"{method} {path}"] = httpx.get(url, timeout=60)
    failed = {name: answer.text for name, answer in answers.items() if answer.status_code != 200}
    assert not failed
    assert len(answers) > len(DOCUMENTED)


def test_schemas_refer_to_what_is_there(document: dict[str, Any]) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    components = {f"#/components/schemas/{name}" for name in document.get("components", {}).get("schemas", {})}
    assert references(document) <= components


def test_pages_are_served(text_server: Server) -> None:
    for path in ("/docs", "/redoc"):
        assert httpx.get(text_server.url + path).status_code == 200
