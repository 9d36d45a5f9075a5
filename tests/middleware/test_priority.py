"""What priority requests have by the time they reach the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from iei.priority import PRIORITY, Priority
from tests import pictures
from tests.apps import ERROR_FIELDS, app_around
from tests.engine.runtimes_for_tests import SPEC
from tests.engine.watching import WatchingEngine

INTERACTIVE, BULK = Priority
PHOTO = pictures.base64_of(pictures.png(8, 8))
BODY = {"inputs": [PHOTO, PHOTO]}


ENGINE = WatchingEngine()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """Of a server with keys, of which one is for bulk, and with routes of bulk."""
    settings = {"api_keys": "any=any, nightly=nightly priority=bulk", "bulk_routes": "/v1,/embed_all"}
    with TestClient(app_around(ENGINE, **settings)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "key", "header", "priority"),
    [
        ("/embed", "any", None, INTERACTIVE),
        ("/embed", "any", "bulk", BULK),
        ("/embed", "nightly", None, BULK),
        ("/embed", "nightly", "interactive", BULK),
        ("/embed_all", "any", None, BULK),
        ("/embed_all", "any", "interactive", INTERACTIVE),
        (f"/m/{SPEC.name}/embed", "any", None, INTERACTIVE),
        (f"/m/{SPEC.name}/embed_all", "any", None, BULK),
    ],
)
def test_header_route_and_key_decide(
    client: TestClient, path: str, key: str, header: str | None, priority: Priority
) -> None:
    ENGINE.seen.clear()
    ENGINE.recorded.clear()
    headers = {"x-api-key": key} | ({"X-IEI-Priority": header} if header else {})
    assert client.post(path, json=BODY, headers=headers).status_code == 200
    assert ENGINE.seen == [priority] * 2
    assert ENGINE.recorded == [priority] * 2
    assert PRIORITY.get() is INTERACTIVE


@pytest.mark.parametrize("path", ERROR_FIELDS)
def test_a_priority_that_is_none_is_refused_in_the_form_of_the_dialect(client: TestClient, path: str) -> None:
    answer = client.post(path, content=b"{", headers={"x-api-key": "any", "x-iei-priority": "urgent"})
    assert (answer.status_code, answer.json().keys()) == (422, ERROR_FIELDS[path])
    assert "X-IEI-Priority must be interactive or bulk" in answer.text
