"""What the processes of a real server write: each line for people, or each line as JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import orjson
import pytest

from iei.errors import InvalidInput
from iei.settings import LogSettings
from iei.telemetry.logs import FORMATTERS
from iei.telemetry.record import Lap, Record
from iei.telemetry.request_log import RequestLine, log_requests
from tests import pictures
from tests.servers import Server, serve

PICTURE = pictures.base64_of(pictures.png(8, 8))


@pytest.fixture(scope="module")
def server(demo_cache: str) -> Iterator[Server]:
    settings = {
        "IEI_CACHE_DIR": demo_cache,
        "IEI_LOG_FORMAT": "json",
        "IEI_LOG_LEVEL": "debug",
        "IEI_LOG_REQUESTS": "all",
    }
    keys = {"IEI_API_KEYS": "alice=very-secret-key", "IMAGE_EMBEDDING_MODEL": "demo"}
    command = ["python", "-m", "iei", "serve", "--workers", "1"]
    with serve({**settings, **keys}, command=command) as server:
        yield server


@pytest.mark.server
def test_every_line_of_every_process_is_json(server: Server) -> None:
    said = [orjson.loads(line) for line in server.log.splitlines()]
    assert {"iei", "iei.engine", "gunicorn.error", "uvicorn.error"} <= {line["logger"] for line in said}
    assert len({line["pid"] for line in said}) >= 3  # master, worker, engine
    for line in said:
        assert datetime.fromisoformat(line["time"]).tzinfo


@pytest.mark.server
def test_a_request_is_one_line_with_its_stages(server: Server) -> None:
    headers = {"x-api-key": "very-secret-key", "x-request-id": "mine"}
    assert httpx.post(f"{server.url}/embed", json={"inputs": [PICTURE] * 2}, headers=headers).status_code == 200
    deadline = time.monotonic() + 30
    while not (lines := [line for line in map(orjson.loads, server.log.splitlines()) if line.get("id") == "mine"]):
        assert time.monotonic() < deadline, "the line is written after the answer, but soon"
    (line,) = lines
    assert (
        line.items()
        >= {
            "logger": "iei.requests",
            "method": "POST",
            "route": "/embed",
            "status": 200,
            "key": "alice",
            "inputs": {"image": 2},
        }.items()
    )
    assert {"receive", "decode", "queue", "forward", "serialise"} <= line["stages_ms"].keys()
    assert max(line["stages_ms"].values()) <= line["ms"]


SECRETS = {
    "a key": ({"x-api-key": "wrong-secret-key"}, {"inputs": PICTURE}, 401),
    "a picture": ({}, {"inputs": PICTURE[:-20]}, 400),
    "a text": ({}, {"inputs": "secret-text that is no picture"}, 400),
    "a URL's query": ({}, {"inputs": "http://127.0.0.1/a.png?token=secret-query"}, 400),
    "a field": ({}, {"inputs": PICTURE, "secret-field": 1, "dimensions": "secret-value"}, 422),
    "a model": ({}, {"inputs": PICTURE, "model": "secret-model"}, 404),
}


@pytest.mark.server
def test_nothing_of_what_clients_send_is_logged(server: Server) -> None:
    key = {"x-api-key": "very-secret-key"}
    for headers, body, status in SECRETS.values():
        answer = httpx.post(f"{server.url}/embed?q=secret-q", json=body, headers={**key, **headers})
        assert answer.status_code in (status, 200), answer.text
    httpx.get(f"{server.url}/secret-path?token=secret-q", headers=key)
    assert "secret" not in server.log
    assert PICTURE[:30] not in server.log


@pytest.mark.server
def test_health_checks_get_no_line(server: Server) -> None:
    for path in ("/health", "/ping", "/v2/health/ready"):
        assert httpx.get(f"{server.url}{path}").status_code == 200
    routes = {orjson.loads(line).get("route") for line in server.log.splitlines()}
    assert not routes & {"/health", "/ping", "/v2/health/ready"}


def ended(status: int = 200, **known: Any) -> Record:
    record = Record(id="mine", method="POST", route="/embed", status=status, **known)
    record.add(Lap("decode", record.started + 0.001, record.started + 0.004))
    record.ended = record.started + 0.0104
    return record


def test_a_line_for_people() -> None:
    record = ended(model="demo", key="alice", inputs={"image": 3, "text": 1})
    assert str(RequestLine(record)) == (
        "POST /embed 200, 3 images, 1 text, 10.4 ms (decode 3) id=mine model=demo key=alice"
    )
    refused = Record(id="mine", method="GET", status=400, error=InvalidInput("secret"))
    refused.ended = refused.started
    assert str(RequestLine(refused)) == "GET (no route) 400, 0 ms error=InvalidInput id=mine"


@pytest.mark.parametrize(("which", "logged"), [("off", 0), ("failed", 2), ("all", 3)])
def test_which_requests_are_logged(which: Any, logged: int, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("iei").propagate = True  # a server in this process may have turned it off
    caplog.set_level("INFO", "iei.requests")
    observers = log_requests(LogSettings(log_requests=which), quiet={("GET", "/health")})
    health = Record(method="GET", route="/health", status=503)
    for record in (ended(200), ended(422), ended(0), health):
        for observe in observers:
            observe(record)
    assert len(caplog.records) == logged


def test_a_traceback_and_line_breaks_stay_on_one_line_of_json() -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError as error:
        record = logging.LogRecord("iei", logging.ERROR, "", 0, "three\n%s", ("four",), (ValueError, error, None))
    line = FORMATTERS["json"]().format(record)
    assert "\n" not in line
    said = orjson.loads(line)
    assert (said["level"], said["message"], said["exception"]) == ("error", "three\nfour", "ValueError: one\ntwo")
