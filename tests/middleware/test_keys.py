"""Who is let through, before a byte of the body is read, and what the app learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from iei.access.keys import read_keyring
from iei.access.quotas import SENDER, Quotas
from iei.engine.inprocess import InProcessEngine
from iei.errors import Unauthorized
from iei.middleware.keys import RequireKey
from iei.settings import AccessSettings
from iei.telemetry.record import RECORD, Record, current
from tests import pictures
from tests.apps import ERROR_FIELDS, app_around
from tests.engine.runtimes_for_tests import KnownRuntime

KEYS = "alice=right, limited=slow inputs_per_s=0.01, pair=two inputs_at_once=2"
BODY = {"inputs": [pictures.base64_of(pictures.png(8, 8))]}


class App:
    """Remembers the requests that reach it, and what a handler would know of their key."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.are_limited: list[bool] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.names.append(current().key)
        self.are_limited.append(SENDER.get() is not None)


async def never() -> Message:
    raise AssertionError("the body was read")


async def nothing(message: Message) -> None:
    raise AssertionError("something was sent")


def passes(app: App, headers: dict[str, str], kind: str = "http", path: str = "/embed") -> None:
    keyring = read_keyring(AccessSettings(api_keys=SecretStr(KEYS)))
    assert keyring
    guard = RequireKey(app, keyring, Quotas(), is_open=lambda scope: scope["path"] == "/health")
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    before = RECORD.set(Record())
    try:
        asyncio.run(guard({"type": kind, "path": path, "headers": raw}, never, nothing))
    finally:
        RECORD.reset(before)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer right"},
        {"authorization": "bearer  right "},
        {"x-api-key": "right"},
        {"api-key": "right"},
        {"authorization": "Bearer theirs", "x-api-key": "right"},
        {"authorization": "Basic cmlnaHQ=", "api-key": "right"},
    ],
)
def test_a_key_may_be_in_any_of_three_headers(headers: dict[str, str]) -> None:
    app = App()
    passes(app, headers)
    assert (app.names, app.are_limited) == (["alice"], [False])


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({}, "needs an API key: send it as 'Authorization: Bearer KEY'"),
        ({"authorization": "right"}, "needs an API key"),
        ({"authorization": "Bearer "}, "needs an API key"),
        ({"authorization": "Basic right"}, "needs an API key"),
        ({"cookie": "api-key=right"}, "needs an API key"),
        ({"authorization": "Bearer wrong"}, "is not one of this server's"),
        ({"authorization": "Bearer alice"}, "is not one of this server's"),
        ({"authorization": "Bearer right,slow"}, "is not one of this server's"),
        ({"x-api-key": "Right"}, "is not one of this server's"),
        ({"x-api-key": "\xff\xfe"}, "is not one of this server's"),
    ],
)
def test_without_a_key_nothing_reaches_the_app(headers: dict[str, str], sentence: str) -> None:
    app = App()
    with pytest.raises(Unauthorized, match=sentence) as refused:
        passes(app, headers)
    assert app.names == []
    sent = {value.split()[-1] for value in headers.values()} - {"Bearer"}
    assert not [value for value in sent if value in refused.value.message]


def test_a_key_with_limits_brings_them_along_for_its_request_only() -> None:
    app = App()
    passes(app, {"x-api-key": "slow"})
    assert (app.names, app.are_limited) == (["limited"], [True])
    assert SENDER.get() is None


def test_open_routes_and_the_lifespan_need_no_key_and_anything_unknown_does() -> None:
    app = App()
    passes(app, {}, path="/health")
    passes(app, {}, kind="lifespan")
    assert app.names == ["", ""]
    with pytest.raises(Unauthorized):
        passes(app, {}, kind="websocket")


# in the app


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """Only one test may use the key `slow`."""
    with TestClient(app_around(InProcessEngine(KnownRuntime()), api_keys=KEYS)) as client:
        yield client


@pytest.mark.parametrize("path", ERROR_FIELDS)
def test_a_refusal_looks_as_its_dialect_says_and_comes_before_other_faults(client: TestClient, path: str) -> None:
    for headers in ({}, {"x-api-key": "wrong"}, {"content-encoding": "br", "content-length": "99999999999"}):
        answer = client.post(path, content=b"{", headers=headers)
        assert (answer.status_code, answer.json().keys()) == (401, ERROR_FIELDS[path])
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]
    assert client.post(path, content=b"{", headers={"x-api-key": "right"}).status_code == 400


def test_openais_clients_are_told_its_code(client: TestClient) -> None:
    assert client.post("/v1/embeddings").json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("GET", "/ping", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("POST", "/health", 401),
        ("GET", "/info", 401),
        ("GET", "/v1/models", 401),
        ("GET", "/v2", 401),
        ("POST", "/", 401),
        ("OPTIONS", "/embed", 401),
        ("GET", "/nowhere", 401),
        ("GET", "/docs", 200),  # without what it shows
        ("GET", "/docs/docs.js", 200),
        ("POST", "/docs", 401),
        ("GET", "/openapi.json", 401),
        ("GET", "http://testserver//health", 401),
        ("GET", "/", 200),
        ("GET", "/health/../info", 401),
        ("GET", "/embed?x=/health", 401),
    ],
)
def test_only_health_is_open(client: TestClient, method: str, path: str, status: int) -> None:
    assert client.request(method, path).status_code == status


def test_documentation_is_open_if_it_is_set_so_and_has_a_field_for_the_key() -> None:
    app = app_around(InProcessEngine(KnownRuntime()), api_keys=KEYS, public_docs=True)
    with TestClient(app) as client:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert client.get(path).status_code == 200
        document = client.get("/openapi.json").json()
        assert document["components"]["securitySchemes"]["API key"]["scheme"] == "bearer"
        assert document["paths"]["/embed"]["post"]["security"] == [{"API key": []}]
        assert "security" not in document["paths"]["/health"]["get"]


def test_without_keys_everything_is_open() -> None:
    with TestClient(app_around(InProcessEngine(KnownRuntime()))) as client:
        for path in ("/docs", "/openapi.json", "/info"):
            assert client.get(path).status_code == 200
        assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_without_keys_documentation_can_be_shown_to_nobody() -> None:
    with TestClient(app_around(InProcessEngine(KnownRuntime()), public_docs=False)) as client:
        for path in ("/docs", "/docs/docs.js", "/redoc", "/openapi.json"):
            assert client.get(path).status_code == 404
        assert client.get("/info").status_code == 200


def test_limits_are_answered_in_the_form_of_the_dialect(client: TestClient) -> None:
    slow = {"authorization": "Bearer slow"}
    assert client.post("/embed", json=BODY, headers=slow).status_code == 200
    for path, body in {
        "/embed": BODY,
        "/v1/embeddings": {"model": "known", "input": BODY["inputs"]},
        "/predict": {"image_data": BODY["inputs"][0]},
    }.items():
        answer = client.post(path, json=body, headers=slow)
        assert (answer.status_code, answer.json().keys()) == (429, ERROR_FIELDS[path]), answer.text
        assert 99 <= int(answer.headers["retry-after"]) <= 100
        assert "0.01 inputs a second (inputs_per_s)" in answer.text
    assert client.post("/embed", json=BODY, headers={"authorization": "Bearer right"}).status_code == 200


def test_a_request_that_is_larger_than_its_keys_limit_is_told_so(client: TestClient) -> None:
    two = {"authorization": "Bearer two"}
    answer = client.post("/embed", json={"inputs": BODY["inputs"] * 3}, headers=two)
    assert (answer.status_code, "retry-after" in answer.headers) == (422, False)
    assert "may send 2 in one request (inputs_at_once): send fewer" in answer.json()["error"]
    for _ in range(3):
        assert client.post("/embed", json={"inputs": BODY["inputs"] * 2}, headers=two).status_code == 200


def test_a_bad_request_gives_its_inputs_back(client: TestClient) -> None:
    two = {"authorization": "Bearer two"}
    for _ in range(3):
        assert client.post("/embed", json={"inputs": ["%", "%"]}, headers=two).status_code == 400
    assert client.post("/embed", json={"inputs": BODY["inputs"] * 2}, headers=two).status_code == 200
