"""How the page is served: to whom, with what policy, and what stays at `/` for others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.page.files import MEDIA_TYPES
from tests.apps import app_around
from tests.engine.runtimes_for_tests import KnownRuntime
from tests.page.documents import Document
from tests.servers import ROOT

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
FILES = sorted(path.name for path in (ROOT / "iei" / "page" / "static").iterdir())
MOST_BYTES = 100_000


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app_around(InProcessEngine(KnownRuntime()))) as client:
        yield client


def app_client(**settings: object) -> TestClient:
    return TestClient(app_around(InProcessEngine(KnownRuntime()), **settings))


def test_browsers_get_the_page_and_clients_what_they_look_for(client: TestClient) -> None:
    page = client.get("/", headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["vary"] == "accept"
    for accept in ("*/*", "application/json", ""):
        answer = client.get("/", headers={"accept": accept})
        assert answer.status_code == 200
        assert answer.json().items() >= {"status": "alive", "info": "/info", "routes": "/docs"}.items()
    assert client.head("/", headers=BROWSER).headers["etag"] == page.headers["etag"]
    assert client.post("/", json={"inputs": "x"}).status_code != 405


def test_nothing_but_the_page_s_own_files_is_allowed_in_it(client: TestClient) -> None:
    for path in ("/", *(f"/page/{name}" for name in FILES)):
        headers = client.get(path, headers=BROWSER).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "worker-src")} == {"'self'"}
        assert "unsafe" not in headers["content-security-policy"]
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["permissions-policy"].startswith("camera=(self)")


def test_it_is_whole_relative_and_light(client: TestClient) -> None:
    document = Document(client.get("/", headers=BROWSER).text)
    assert not document.inline
    assert document.loaded
    for address in document.loaded:
        assert client.get(f"/{address}").status_code == 200
        assert client.get(f"/m/known/{address}").status_code == 200
    contents = {name: client.get(f"/page/{name}").content for name in FILES}
    assert sum(map(len, contents.values())) <= MOST_BYTES
    for name, content in contents.items():
        for imported in re.findall(rb'from "\./([\w.-]+)"', content):
            assert imported.decode() in FILES, name


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_asked_for_again_and_sent_once(client: TestClient, name: str) -> None:
    first = client.get(f"/page/{name}")
    assert first.headers["content-type"].startswith(MEDIA_TYPES[Path(name).suffix])
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(f"/page/{name}", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(f"/page/{name}", headers={"if-none-match": '"another"'})
    assert other.content == first.content


@pytest.mark.parametrize("name", ["none.js", "..%2Fsite.py", "site.py", ""])
def test_there_are_no_other_files(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert (answer.status_code, "error" in answer.json()) == (404, True)


def test_a_setting_turns_it_off() -> None:
    with app_client(page=False) as client:
        answer = client.get("/", headers=BROWSER)
        assert (answer.status_code, answer.json()["routes"]) == (200, "/docs")
        assert client.get("/page/app.js").status_code == 404


def test_with_keys_the_page_is_open_and_what_it_shows_is_not() -> None:
    with app_client(api_keys="secret") as client:
        for path in ("/", *(f"/page/{name}" for name in FILES)):
            assert client.get(path, headers=BROWSER).status_code == 200
        for path in ("/info", "/v1/models", "/m/known/info"):
            assert client.get(path, headers=BROWSER).status_code == 401
        assert client.post("/", headers=BROWSER, json={"inputs": "x"}).status_code == 401
        assert client.get("/", headers={"accept": "*/*"}).json()["status"] == "alive"


def test_info_says_what_the_page_needs(client: TestClient) -> None:
    info = client.get("/info").json()
    assert info["demo"] is False
    assert info["text"] is None
    assert info["image"]["pooling"] == info["pooling"]
    assert info["image"]["poolings"] == info["poolings"]
