"""Browsers: which pages may call the server, preflights, and errors that a page can read."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.errors import StartupError
from tests.apps import app_around
from tests.engine.runtimes_for_tests import KnownRuntime

PAGE = "https://app.example.com"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


def client(**settings: str) -> TestClient:
    return TestClient(app_around(InProcessEngine(KnownRuntime()), api_keys="secret", **settings))


def test_it_is_off_unless_set() -> None:
    with client() as closed:
        assert "access-control-allow-origin" not in closed.get("/health", headers={"origin": PAGE}).headers
        assert closed.options("/embed", headers=PREFLIGHT).status_code == 401


@pytest.mark.parametrize("origins", [PAGE, f"http://localhost:3000, {PAGE.upper()}", "*"])
def test_a_page_may_send_its_key_and_read_answers_and_errors(origins: str) -> None:
    with client(cors_origins=origins) as server:
        preflight = server.options("/embed", headers=PREFLIGHT)
        assert preflight.status_code == 200
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in preflight.headers
        for path, status in {"/health": 200, "/info": 401, "/nowhere": 401}.items():
            answer = server.get(path, headers={"origin": PAGE})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] in (PAGE, "*")
            assert "retry-after" in answer.headers["access-control-expose-headers"]


def test_even_a_bug_can_be_read_by_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("iei.dialects.tei.parsed", broken)
    with client(cors_origins=PAGE) as server:
        answer = server.post("/embed", json={}, headers={"origin": PAGE, "x-api-key": "secret"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (500, PAGE)


def test_other_pages_may_not() -> None:
    with client(cors_origins=PAGE) as server:
        other = {"origin": "https://elsewhere.example"}
        assert server.options("/embed", headers={**PREFLIGHT, **other}).status_code == 400
        assert "access-control-allow-origin" not in server.get("/health", headers=other).headers


@pytest.mark.parametrize(
    "origins", ["example.com", f"{PAGE}/", f"{PAGE},*", "https://*.example.com", "null", "https://"]
)
def test_what_is_no_origin_is_refused_at_the_start(origins: str) -> None:
    with pytest.raises(StartupError, match=r"IEI_CORS_ORIGINS: '.*' is not an origin: write scheme://host"):
        client(cors_origins=origins)
