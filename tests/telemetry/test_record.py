"""What is known of a request once it has been answered, whoever served it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.errors import InvalidField, Unauthorized
from iei.telemetry import record as records
from iei.telemetry.record import Lap, Record, current
from tests import pictures
from tests.apps import app_around
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime

PICTURE = pictures.base64_of(pictures.png(8, 8))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The records of requests that have ended."""
    ended: list[Record] = []
    monkeypatch.setattr("iei.middleware.trace.finish", lambda record, _: records.finish(record, [ended.append]))
    return ended


@pytest.fixture
def client(seen: list[Record]) -> Iterator[TestClient]:
    app = app_around(InProcessEngine(KnownRuntime()), api_keys="alice=right")
    with TestClient(app, headers={"x-api-key": "right", "x-request-id": "mine"}) as client:
        yield client


def test_a_request_is_known_from_its_body_to_its_answer(client: TestClient, seen: list[Record]) -> None:
    response = client.post(f"/m/{SPEC.name}/embed", json={"inputs": [PICTURE] * 3})
    (record,) = seen
    assert (record.id, record.method, record.route, record.key) == ("mine", "POST", "/embed", "alice")
    assert (record.model, record.inputs, record.pixels) == (SPEC.name, {"image": 3}, 3 * 64)
    assert record.received_bytes == int(response.request.headers["content-length"])
    assert record.sent_bytes == len(response.content)
    assert (record.status, record.error) == (200, None)
    counts = {stage: stretch.count for stage, stretch in record.stages.items()}
    of_inputs = dict.fromkeys(("wait", "decode", "resize", "queue", "forward"), 3)
    assert counts == {"receive": 1, "parse": 1, **of_inputs, "serialise": 1}


def test_stages_follow_each_other_within_the_request(client: TestClient, seen: list[Record]) -> None:
    client.post("/embed", json={"inputs": PICTURE})
    (record,) = seen
    moments = [moment for stretch in record.stages.values() for moment in (stretch.start, stretch.end)]
    assert record.started <= min(moments)
    assert max(moments) <= record.ended
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    ("path", "body", "headers", "route", "status", "error"),
    [
        (f"/v2/models/{SPEC.name}/infer", {}, {}, "/v2/models/{model}/infer", 400, "InvalidInput"),
        ("/embed", {"inputs": PICTURE, "dimensions": -1}, {}, "/embed", 422, InvalidField.__name__),
        ("/embed", {}, {"x-api-key": "wrong"}, "", 401, Unauthorized.__name__),
        ("/a/path/of/a/stranger", {}, {}, "", 404, "RouteError"),
    ],
)
def test_a_refusal_is_known_by_its_class(
    client: TestClient,
    seen: list[Record],
    path: str,
    body: dict[str, object],
    headers: dict[str, str],
    route: str,
    status: int,
    error: str,
) -> None:
    client.post(path, json=body, headers=headers)
    (record,) = seen
    assert (record.route, record.status, type(record.error).__name__) == (route, status, error)
    assert "serialise" not in record.stages


def test_inputs_that_are_worked_on_side_by_side_make_one_stretch() -> None:
    record = Record()
    for start in (1.0, 2.0):
        record.add(Lap("decode", start, start + 3))
    stretch = record.stages["decode"]
    assert (stretch.start, stretch.end, stretch.seconds, stretch.count) == (1, 5, 6, 2)


def test_without_a_server_nobody_reads_what_is_added() -> None:
    current().add(Lap("decode", 0, 1))
    assert current().stages == {}
