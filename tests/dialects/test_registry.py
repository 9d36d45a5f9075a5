"""Which dialect a request belongs to, and that errors look as its clients read them, wherever they are raised."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import Scope

from iei.dialects.registry import Dialect, Dialects
from iei.engine.inprocess import InProcessEngine
from iei.errors import IEIError
from tests.apps import ERROR_FIELDS, app_around
from tests.engine.runtimes_for_tests import KnownRuntime


def _dialect(name: str, *paths: str, prefix: str | None = None, health: str | None = None) -> Dialect:
    def body(error: IEIError) -> bytes:
        return name.encode()

    def answer() -> None: ...

    router, health_router = APIRouter(), APIRouter()
    for path in paths:
        router.add_api_route(path, answer, methods=["POST"])
    if health:
        health_router.add_api_route(health, answer)
    return Dialect(name, body, router, health_router if health else None, prefix)


def _scope(path: str, method: str = "POST") -> Scope:
    return {"type": "http", "path": path, "method": method, "headers": [], "root_path": ""}


DIALECTS = Dialects(
    [
        _dialect("first", "/embed", health="/health"),
        _dialect("kserve", "/v2/models/{name:path}/infer", prefix="/v2", health="/v2/health/live"),
        _dialect("cohere", "/v2/embed"),
    ]
)


@pytest.mark.parametrize(
    ("path", "method", "owner"),
    [
        ("/embed", "POST", "first"),
        ("/v2/embed", "POST", "cohere"),
        ("/v2/embed", "GET", "cohere"),
        ("/v2/models/a/b/infer", "POST", "kserve"),
        ("/v2/nowhere", "POST", "kserve"),
        ("/nowhere", "GET", "first"),
    ],
)
def test_a_request_belongs_to_the_dialect_of_its_route_and_not_of_its_prefix(
    path: str, method: str, owner: str
) -> None:
    assert DIALECTS.owner(_scope(path, method)).name == owner


@pytest.mark.parametrize(
    ("path", "method", "health"),
    [("/health", "GET", True), ("/v2/health/live", "GET", True), ("/embed", "POST", False), ("/nowhere", "GET", False)],
)
def test_health_is_told_apart_so_that_a_guard_can_let_it_through(path: str, method: str, health: bool) -> None:
    assert DIALECTS.is_health(_scope(path, method)) is health


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app_around(InProcessEngine(KnownRuntime()), max_body_bytes=1000)) as client:
        yield client


@pytest.mark.parametrize("path", ERROR_FIELDS)
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"content": b"x" * 2000}, 413),
        ({"content": gzip.compress(b"x" * 2000), "headers": {"content-encoding": "gzip"}}, 413),
        ({"content": b"x", "headers": {"content-encoding": "gzip"}}, 400),
        ({"content": b"x", "headers": {"content-encoding": "br"}}, 415),
        ({"content": b"{"}, 400),
    ],
    ids=["too large", "too large, packed", "not packed", "packed otherwise", "not JSON"],
)
def test_errors_of_middleware_and_of_handlers_look_the_same(
    client: TestClient, path: str, request_: dict[str, Any], status: int
) -> None:
    headers = {"content-type": "application/json", **request_.get("headers", {})}
    response = client.post(path, content=request_["content"], headers=headers)
    assert (response.status_code, response.json().keys()) == (status, ERROR_FIELDS[path])
    assert response.headers["x-request-id"]
    assert (response.headers.get("connection") == "close") is (status == 413)


@pytest.mark.parametrize("path", ERROR_FIELDS)
def test_a_wrong_method_is_told_in_the_form_of_the_route(client: TestClient, path: str) -> None:
    response = client.delete(path)
    assert (response.status_code, response.json().keys()) == (405, ERROR_FIELDS[path])
    assert "POST" in response.headers["allow"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/", "GET, HEAD, POST"), ("/v1/models/a:predict", "GET, POST"), ("/embed", "POST"), ("/health", "GET, HEAD")],
)
def test_all_methods_of_a_path_are_named_whichever_routes_they_are_of(
    client: TestClient, path: str, methods: str
) -> None:
    response = client.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, methods)


def test_endpoints_may_answer_by_themselves_or_leave_it_to_fastapi() -> None:
    router = APIRouter()

    @router.get("/response")
    async def response(request: Request) -> Response:
        return PlainTextResponse(request.url.path)

    @router.get("/value")
    async def value(request: Request) -> dict[str, str]:
        return {"path": request.url.path}

    @router.get("/named/{name}")
    async def named(request: Request, name: str) -> Response:
        return PlainTextResponse(name)

    def guard() -> None:
        raise HTTPException(401)

    @router.get("/guarded", dependencies=[Depends(guard)])
    async def guarded(request: Request) -> Response:
        return PlainTextResponse("open")

    app = FastAPI()
    app.router.routes.extend(Dialect("mixed", lambda error: b"", router).routes)
    with TestClient(app) as client:
        assert client.get("/response").text == "/response"
        assert client.get("/value").json() == {"path": "/value"}
        assert client.get("/named/cat").text == "cat"
        assert client.get("/guarded").status_code == 401
