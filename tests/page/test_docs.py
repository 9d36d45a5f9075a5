"""How /docs is served: whole, from this server alone, and to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from tests.apps import app_around
from tests.engine.runtimes_for_tests import KnownRuntime
from tests.page.documents import Document
from tests.servers import ROOT

OURS, THEIRS = (
    sorted(path.name for path in (ROOT / "iei" / "page" / name).iterdir()) for name in ("docs", "swagger_ui")
)
SERVED = [*OURS, "swagger-ui-bundle.js", "swagger-ui.css"]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app_around(InProcessEngine(KnownRuntime()))) as client:
        yield client


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    document = client.get("/docs").text
    parsed = Document(document)
    addresses = [*parsed.loaded, *parsed.links]
    assert not parsed.inline
    assert not re.search(r"https?://", document)
    assert {address.removeprefix("docs/") for address in addresses} >= {"swagger-ui-bundle.js", "docs.js"}
    for address in addresses:
        for base in ("/", "/m/known/"):
            assert client.get(base + address).status_code == 200, address


@pytest.mark.parametrize("name", SERVED)
def test_its_files_allow_nothing_from_elsewhere(client: TestClient, name: str) -> None:
    answer = client.get(f"/docs/{name}")
    assert answer.status_code == 200
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"https?:|\*|unsafe-eval", answer.headers["content-security-policy"])
    again = client.get(f"/docs/{name}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "none.js", "..%2Fsite.py"])
def test_there_are_no_other_files(client: TestClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


def test_what_was_written_by_others_has_its_licence() -> None:
    assert {"LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} <= set(THEIRS)


def test_the_other_viewer_s_address_leads_here(client: TestClient) -> None:
    for path in ("/redoc", "/m/known/redoc"):
        answer = client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, "docs")
        assert client.get(path).text == client.get("/docs").text


def test_with_keys_the_page_is_open_and_what_it_shows_is_not() -> None:
    with TestClient(app_around(InProcessEngine(KnownRuntime()), api_keys="secret")) as client:
        for path in ("/docs", "/redoc", *(f"/docs/{name}" for name in SERVED)):
            assert client.get(path).status_code == 200
        assert client.get("/openapi.json").status_code == 401
        assert "needs an API key" not in client.get("/docs").text.split("<form")[0]
        document = client.get("/openapi.json", headers={"authorization": "Bearer secret"}).json()
        assert "Authorization: Bearer KEY" in document["info"]["description"]


def test_the_introduction_names_the_model_and_every_group(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    text = document["info"]["description"]
    assert "with the model `known`" in text
    for group in document["tags"]:
        assert f"| {group['name']} | {group['description']} |" in text
