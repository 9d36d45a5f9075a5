"""The app as a whole, with an engine whose answers are known: what holds for every route."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.errors import Unhealthy
from iei.models.spec import ModelSpec
from tests.apps import ERROR_FIELDS, app_around
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """It raises what the app raises."""
    with TestClient(app_around(InProcessEngine(KnownRuntime()))) as client:
        yield client


@pytest.mark.parametrize("path", ERROR_FIELDS)
def test_a_bug_is_answered_in_shape_and_logged_under_the_name_of_its_request(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("starlette.requests.Request.body", broken)  # which every handler begins with
    with caplog.at_level(logging.ERROR):
        response = client.post(path, json={}, headers={"x-request-id": "request-7"})
    assert response.status_code == 500
    assert response.json().keys() == ERROR_FIELDS[path]
    assert "a bug" not in response.text
    assert response.headers["x-request-id"] == "request-7"
    assert float(response.headers["x-total-time"]) >= 0
    (record,) = caplog.records
    assert "request-7" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_balancers_may_ask_with_head(client: TestClient) -> None:
    for path in ("/health", "/ping"):
        assert client.head(path).status_code == 200


@pytest.mark.parametrize("path", ["/embed/", "/v1/embeddings/", "/predict/"])
def test_a_slash_too_many_is_not_found_rather_than_sent_elsewhere(client: TestClient, path: str) -> None:
    response = client.post(path, json={}, follow_redirects=False)
    assert response.status_code == 404
    assert "the routes are listed at /docs" in response.text


def test_a_demo_is_called_a_demo_whatever_its_name(caplog: pytest.LogCaptureFixture) -> None:
    app_around(InProcessEngine(KnownRuntime()), models="known=org/vit,mine=demo")
    (record,) = caplog.records
    assert record.getMessage().startswith("mine is the built-in demo model: small, trained on drawings")


class HalfLoaded(InProcessEngine):
    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        if model == "broken":
            raise Unhealthy("it can't be loaded")
        return await super().describe(model, deadline=deadline)


def test_a_model_is_ready_when_it_can_be_served() -> None:
    """tritonclient takes any 200 for yes."""
    app = app_around(HalfLoaded(KnownRuntime()), models=f"{SPEC.name}=org/vit,broken=org/other")
    with TestClient(app) as client:
        assert client.get(f"/v2/models/{SPEC.name}/ready").json() == {"name": SPEC.name, "ready": True}
        for path in ("/v2/models/broken/ready", "/v2/models/broken/versions/1/ready"):
            assert client.get(path).status_code == 503
