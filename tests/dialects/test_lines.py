"""Answers line by line, over real sockets, with an engine that computes when the test lets it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from iei.engine.inprocess import InProcessEngine
from iei.runtimes.api import Input
from tests.apps import app_around
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime
from tests.pictures import base64_of, png
from tests.servers import Server

LINES = {"accept": "application/x-ndjson"}
PHOTO, BAD = base64_of(png(8, 8)), base64_of(b"not a picture")
DEADLINE_S = 30.0


class Steps:
    """Lets forwards of a runtime begin one by one."""

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)
        self.runtime = KnownRuntime(self._wait)

    def allow(self, batches: int) -> None:
        self._allowed.release(batches)

    def _wait(self, batch: Sequence[Input]) -> None:
        assert self._allowed.acquire(timeout=DEADLINE_S)

    @property
    def computed(self) -> int:
        """Inputs whose forward has begun."""
        return sum(self.runtime.batches)


@contextmanager
def listening(runtime: KnownRuntime, **settings: Any) -> Iterator[str]:
    """The address of an app on a socket of its own."""
    app = app_around(InProcessEngine(runtime), **settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as port:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [port]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def lines_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["x-accel-buffering"] == "no"
    return [json.loads(line) for line in response.text.splitlines()]


def stream(url: str, count: int) -> Any:
    return httpx.stream("POST", f"{url}/embed", json={"inputs": [PHOTO] * count}, headers=LINES, timeout=DEADLINE_S)


def test_the_first_line_comes_before_the_last_input_is_computed() -> None:
    steps = Steps()
    with listening(steps.runtime) as url:
        steps.allow(1)
        with stream(url, 40) as response:
            lines = response.iter_lines()
            first = json.loads(next(lines))
            assert first.keys() == {"index", "embedding"}
            assert steps.computed <= 2 * SPEC.max_batch, "the second batch is being computed at most"
            steps.allow(40)
            indices = {first["index"], *(json.loads(line)["index"] for line in lines)}
        assert indices == set(range(40))


def _waiting(url: str) -> float:
    """Inputs in the queue; those of the forward that runs now are among them, as this engine has no meter."""
    found = re.search(r"^te_queue_size (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def test_a_client_that_leaves_frees_the_queue() -> None:
    def whole() -> httpx.Response:
        return httpx.post(f"{url}/embed", json={"inputs": [PHOTO] * 40}, timeout=DEADLINE_S)

    steps = Steps()
    with listening(steps.runtime, max_queue=40) as url:
        steps.allow(1)
        with stream(url, 40) as response:
            lines = response.iter_lines()  # kept: it leaves when it is forgotten
            next(lines)
            refused = whole()
            assert refused.status_code == 429
        left, computed = time.monotonic(), steps.computed
        while _waiting(url) > SPEC.max_batch:
            assert time.monotonic() < left + DEADLINE_S, _waiting(url)
        steps.allow(100)
        assert whole().status_code == 200
        assert steps.computed <= computed + SPEC.max_batch + 40, "what nobody waits for was not computed"


def test_a_reader_that_does_not_read_stops_the_work_and_gives_its_place_back_at_the_deadline() -> None:
    """As ASGI has it: a `send` that does not return is a socket whose buffers are full."""

    async def scenario() -> None:
        runtime = KnownRuntime()
        app = app_around(InProcessEngine(runtime), request_timeout_s=4, max_queue=200)
        body = json.dumps({"inputs": [PHOTO] * 200}).encode()
        request: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
        stuck = asyncio.Event()
        read: list[bytes] = []

        async def receive() -> dict[str, Any]:
            if request:
                return request.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            read.append(message.get("body", b""))
            if len(read) == 2 and not stuck.is_set():  # its start, and the first line
                stuck.set()
                await asyncio.Event().wait()

        headers = [(b"accept", b"application/x-ndjson"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/embed", "query_string": b"", "headers": headers}
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://iei") as client,
        ):
            answering = asyncio.create_task(app(scope, receive, send))
            await stuck.wait()
            assert (await client.post("/embed", json={"inputs": [PHOTO] * 200})).status_code == 429
            await asyncio.wait_for(answering, DEADLINE_S)
            window = 4 * SPEC.max_batch
            assert sum(runtime.batches) <= 2 * window, "the others were never begun"
            assert "read in time" in json.loads(read[-1])["error"]
            assert (await client.post("/embed", json={"inputs": [PHOTO] * 200})).status_code == 200

    asyncio.run(scenario())


def test_a_failure_before_the_first_line_is_an_ordinary_error_and_after_it_the_last_line() -> None:
    steps = Steps()
    with listening(steps.runtime, max_output_values=3 * 4 * 8, concurrency_level=1) as url:
        for body, status in (
            ({"inputs": []}, 400),
            ({"inputs": [PHOTO] * 2000}, 422),
            ({"inputs": [PHOTO], "pooling": "pooler"}, 422),
        ):
            refused = httpx.post(f"{url}/embed", json=body, headers=LINES)
            assert refused.status_code == status
            assert refused.json()["error_type"] in ("Empty", "Validation")
        steps.allow(100)
        *done, last = lines_of(httpx.post(f"{url}/embed_all", json={"inputs": [PHOTO] * 20}, headers=LINES))
        assert [line["index"] for line in done] == list(range(8))
        assert last.keys() == {"error", "error_type", "detail"}
        assert "IEI_MAX_OUTPUT_VALUES" in last["error"]


ITEMS = [PHOTO, BAD, PHOTO]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/embed", {"inputs": ITEMS}, "error"),
        ("/embed", {"inputs": ITEMS, "on_error": "fail"}, "error"),
        ("/embed_all", {"inputs": ITEMS}, "error"),
        ("/invocations", {"inputs": ITEMS}, "error"),
        ("/v1/embeddings", {"input": ITEMS, "encoding_format": "base64"}, "message"),
        ("/v1/embeddings", {"input": [{"type": "image", "image_base64": item} for item in ITEMS]}, "message"),
        ("/embedding", {"content": ITEMS}, "message"),
    ],
)
def test_lines_are_what_the_whole_answer_has(
    demo_server: Server, path: str, body: dict[str, Any], message: str
) -> None:
    lines = lines_of(httpx.post(demo_server.url + path, json=body, headers=LINES))
    answer = httpx.post(demo_server.url + path, json={**body, "on_error": "null"}).json()
    whole = answer["data"] if isinstance(answer, dict) else answer
    assert sorted(line["index"] for line in lines) == [0, 1, 2]
    for line in lines:
        expected = whole[line["index"]]
        if not isinstance(expected, dict):
            expected = {"embedding": expected}
        (vector,) = line.keys() & {"embedding", "embeddings"}
        if line["index"] == 1:
            assert line[vector] is None
            assert "[1]: is not an image" in line[message]
        else:
            np.testing.assert_equal(line, {"index": line["index"], **expected})


def test_files_are_answered_in_lines_too(demo_server: Server) -> None:
    files = [("image", ("a.png", png())), ("image", ("b.png", b"no"))]
    lines = lines_of(httpx.post(f"{demo_server.url}/embed", files=files, headers=LINES))
    bad, good = sorted(lines, key=lambda line: line["embedding"] is not None)
    assert good["index"] == 0
    assert bad["error"].startswith("image[1] (b.png): ")
    (line,) = lines_of(
        httpx.post(f"{demo_server.url}/embed", content=png(), headers={**LINES, "content-type": "image/png"})
    )
    np.testing.assert_allclose(line["embedding"], good["embedding"], atol=1e-5)


def test_errors_of_openais_dialect_keep_their_status(demo_server: Server) -> None:
    refused = httpx.post(f"{demo_server.url}/v1/embeddings", json={"input": PHOTO, "dimensions": 7000}, headers=LINES)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")


def test_warnings_are_in_the_header(demo_server: Server) -> None:
    response = httpx.post(f"{demo_server.url}/embed", json={"inputs": PHOTO, "dimensions": 8}, headers=LINES)
    assert len(lines_of(response)[0]["embedding"]) == 8
    assert "Matryoshka" in response.headers["x-iei-warning"]
