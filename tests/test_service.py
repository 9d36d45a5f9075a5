"""The service and the app around it, with an engine whose answers are known."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from iei.engine.api import Result
from iei.engine.inprocess import InProcessEngine
from iei.errors import InvalidInput, StartupError
from iei.inputs.geometry import to_pixels
from iei.models.spec import ImageTower, ModelSpec, Rows
from iei.runtimes.api import Input
from iei.service import WINDOW_BATCHES
from iei.settings import RequestSettings
from tests import pictures
from tests.apps import app_around, client_around
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime
from tests.engine.waiting import until

PHOTO = pictures.base64_of(pictures.png(8, 8))
BULK = {"X-IEI-Priority": "bulk"}


@asynccontextmanager
async def client_of(runtime: KnownRuntime | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_around(InProcessEngine(runtime or KnownRuntime()), **settings) as client:
        yield client


@pytest.fixture
def picture_host() -> Iterator[str]:
    """A web server on loopback whose every page is a photo; its address."""

    class Photo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(pictures.png(8, 8))

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Photo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://localhost:{server.server_port}/photo.png"
        server.shutdown()


def test_a_url_of_an_allowed_domain_is_the_picture_behind_it(picture_host: str) -> None:
    async def scenario() -> None:
        async with client_of(url_inputs="localhost") as client:
            response = await client.post("/embed", json={"inputs": [picture_host, PHOTO]})
            assert response.status_code == 200, response.text
            assert response.json()[0] == response.json()[1]
            response = await client.post(
                "/v1/embeddings",
                json={"model": SPEC.name, "input": [picture_host], "encoding_format": "float"},
            )
            assert response.status_code == 200, response.text

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", ["public", "off"])
def test_a_url_into_the_operators_network_is_refused(policy: str, picture_host: str) -> None:
    async def scenario() -> None:
        async with client_of(url_inputs=policy) as client:
            response = await client.post("/embed", json={"inputs": [PHOTO, picture_host]})
            assert response.status_code == 400
            assert response.json()["error"].startswith("inputs[1]: ")

    asyncio.run(scenario())


def test_what_can_not_be_done_soon_is_refused_at_once() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        runtime.go.clear()
        async with client_of(runtime, max_queue=3) as client:
            waiting = asyncio.create_task(client.post("/embed", json={"inputs": [PHOTO] * 3}))
            await asyncio.to_thread(runtime.busy.wait)
            refused = await client.post("/embed", json={"inputs": [PHOTO]})
            assert refused.status_code == 429
            assert refused.json()["error_type"] == "Overloaded"
            assert int(refused.headers["retry-after"]) >= 1
            runtime.go.set()
            assert (await waiting).status_code == 200
            assert (await client.post("/embed", json={"inputs": [PHOTO] * 4})).status_code == 200  # nobody else waits

    asyncio.run(scenario())


def test_bulk_has_its_own_places_and_takes_none_of_the_others() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        runtime.go.clear()
        async with client_of(runtime, max_queue=3, max_queue_bulk=2) as client:

            async def post(count: int, **headers: str) -> httpx.Response:
                return await client.post("/embed", json={"inputs": [PHOTO] * count}, headers=headers)

            bulk = asyncio.create_task(post(2, **BULK))
            await asyncio.to_thread(runtime.busy.wait)
            refused = await post(1, **BULK)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "2 inputs of bulk are in work already (IEI_MAX_QUEUE_BULK)" in refused.json()["error"]
            urgent = asyncio.create_task(post(3))
            await asyncio.sleep(0)
            refused = await post(1)
            assert "3 inputs are in work already (IEI_MAX_QUEUE)" in refused.json()["error"]
            runtime.go.set()
            assert (await bulk).status_code == (await urgent).status_code == 200

    asyncio.run(scenario())


def test_without_a_bound_of_its_own_bulk_has_as_many_places_as_the_others() -> None:
    assert RequestSettings(max_queue=7).bulk_queue == 7
    assert RequestSettings(max_queue=7, max_queue_bulk=9).bulk_queue == 9


def test_one_picture_is_in_the_next_batch_however_much_bulk_waits() -> None:
    lone = pictures.base64_of(pictures.encode(Image.new("RGB", (8, 8), "white"), "PNG"))
    ran: list[bool] = []

    async def scenario() -> None:
        runtime = KnownRuntime(lambda batch: ran.extend(bool(picture.min() == 255) for picture in batch))
        runtime.go.clear()
        engine = InProcessEngine(runtime)
        async with client_around(engine) as client:
            window = WINDOW_BATCHES * SPEC.max_batch
            body = {"inputs": [PHOTO] * window}
            bulk = [asyncio.create_task(client.post("/embed", json=body, headers=BULK)) for _ in range(5)]
            await until(lambda: len(engine._waiting) == 5 * window)
            first = asyncio.create_task(client.post("/embed", json={"inputs": [lone]}))
            await until(lambda: len(engine._waiting) == 5 * window + 1)
            runtime.go.set()
            for response in await asyncio.gather(first, *bulk):
                assert response.status_code == 200
        assert ran.index(True) < 2 * SPEC.max_batch

    asyncio.run(scenario())


def test_no_more_than_the_concurrency_level_of_a_request_is_in_work() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        async with client_of(runtime, concurrency_level=2) as client:
            response = await client.post("/embed", json={"inputs": [PHOTO] * 9})
            assert len(response.json()) == 9
            assert max(runtime.batches) <= 2
            assert sum(runtime.batches) == 9

    asyncio.run(scenario())


def test_a_picture_does_not_wait_for_all_of_a_bulk_request_that_came_before_it() -> None:
    lone = pictures.base64_of(pictures.encode(Image.new("RGB", (8, 8), "white"), "PNG"))
    ran: list[bool] = []

    def watch(batch: Sequence[Input]) -> None:
        ran.extend(bool(picture.min() == 255) for picture in batch)
        time.sleep(0.01)

    async def scenario() -> None:
        runtime = KnownRuntime(watch)
        async with client_of(runtime) as client:
            bulk = asyncio.create_task(client.post("/embed", json={"inputs": [PHOTO] * 400}))
            await asyncio.to_thread(runtime.busy.wait)
            assert (await client.post("/embed", json={"inputs": [lone]})).status_code == 200
            assert len((await bulk).json()) == 400
        assert ran.index(True) < 100

    asyncio.run(scenario())


def test_a_request_with_a_bad_item_does_not_reach_the_model_any_more() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        async with client_of(runtime, concurrency_level=1) as client:
            response = await client.post("/embed", json={"inputs": ["%", PHOTO, PHOTO]})
            assert response.status_code == 400
            assert runtime.batches == []

    asyncio.run(scenario())


def test_what_is_not_bad_is_computed_if_the_request_wants_that() -> None:
    def fail_on_black(batch: Sequence[Input]) -> None:
        if any(picture.max() == 0 for picture in batch):
            raise RuntimeError("no black pictures")

    black = pictures.base64_of(pictures.encode(Image.new("RGB", (8, 8)), "PNG"))

    async def scenario() -> None:
        async with client_of(KnownRuntime(fail_on_black), concurrency_level=1) as client:
            response = await client.post("/embed", json={"inputs": ["%", PHOTO, black, PHOTO], "on_error": "null"})
            assert response.status_code == 200, response.text
            assert [vector is None for vector in response.json()] == [True, False, True, False]
            errors = json.loads(response.headers["x-iei-errors"])
            assert errors["0"].startswith("inputs[0]: is not base64")
            assert "no black pictures" in errors["2"]
            only_bad = await client.post("/embed", json={"inputs": ["%"], "on_error": "null"})
            assert (only_bad.status_code, only_bad.json()) == (200, [None])
            assert "x-inference-time" not in only_bad.headers

    asyncio.run(scenario())


def test_clients_that_leave_do_not_make_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    go, decoding = threading.Event(), threading.Semaphore(0)
    begun: list[str] = []

    def slow(*_: object, **__: object) -> None:
        begun.append(threading.current_thread().name)
        decoding.release()
        go.wait()
        raise InvalidInput("is slow")

    async def scenario() -> None:
        async with client_of(decode_threads=1) as client:
            for _ in range(5):
                leaving = asyncio.create_task(client.post("/embed", json={"inputs": [PHOTO]}))
                if not begun:
                    await asyncio.to_thread(decoding.acquire)
                else:
                    await asyncio.sleep(0.05)
                leaving.cancel()
                await asyncio.wait([leaving])
            go.set()
            assert (await client.post("/embed", json={"inputs": [PHOTO]})).status_code == 400
        assert len(begun) == 2, "the first, which nobody could stop, and the last"

    monkeypatch.setattr("iei.inputs.preparer.decoded", slow)
    asyncio.run(scenario())


def test_an_answer_that_would_be_too_large_is_refused_before_it_is_computed() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        rows_of_a_picture = 4 * 3
        async with client_of(runtime, max_output_values=2 * rows_of_a_picture, concurrency_level=1) as client:
            assert (await client.post("/embed_all", json={"inputs": [PHOTO] * 2})).status_code == 200
            response = await client.post("/embed_all", json={"inputs": [PHOTO] * 30})
            assert (response.status_code, response.json()["error_type"]) == (422, "Validation")
            assert "IEI_MAX_OUTPUT_VALUES" in response.json()["error"]
            assert sum(runtime.batches) <= 4

    asyncio.run(scenario())


def test_a_request_that_is_out_of_time_is_not_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []

    def counting(image: Image.Image, *rest: Any, **options: Any) -> Any:
        decoded.append(image)
        return to_pixels(image, *rest, **options)

    async def scenario() -> None:
        runtime = KnownRuntime(lambda batch: time.sleep(0.1))
        async with client_of(runtime, concurrency_level=1, request_timeout_s=0.25) as client:
            response = await client.post("/embed", json={"inputs": [PHOTO] * 100})
            assert (response.status_code, response.json()["error_type"]) == (429, "Overloaded")
            assert len(decoded) < 10

    monkeypatch.setattr("iei.inputs.preparer.to_pixels", counting)
    asyncio.run(scenario())


def test_a_failing_model_is_told_by_index_with_its_own_status() -> None:
    def fail(batch: object) -> None:
        raise RuntimeError("no such kernel")

    async def scenario() -> None:
        async with client_of(KnownRuntime(fail)) as client:
            response = await client.post("/embed", json={"inputs": [PHOTO]})
            assert response.status_code == 424
            assert response.json()["error_type"] == "Backend"
            assert "inputs[0]: " in response.json()["error"]
            assert "no such kernel" in response.json()["error"]

    asyncio.run(scenario())


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def slow_body() -> AsyncIterator[bytes]:
        yield b'{"inputs": '
        await asyncio.sleep(10)

    async def scenario() -> None:
        async with client_of(body_timeout_s=0.1) as client:
            headers = {"content-type": "application/json"}
            response = await client.post("/embed", content=slow_body(), headers=headers)
            assert response.status_code == 408
            assert "IEI_BODY_TIMEOUT_S" in response.json()["error"]

    asyncio.run(scenario())


def test_a_body_that_grows_over_the_limit_is_refused_on_the_way() -> None:
    async def endless_body() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    async def scenario() -> None:
        async with client_of(max_body_bytes=10_000) as client:
            headers = {"content-type": "application/json"}
            response = await client.post("/embed", content=endless_body(), headers=headers)
            assert response.status_code == 413

    asyncio.run(scenario())


def test_vectors_are_cut_before_they_are_normalised() -> None:
    async def scenario() -> None:
        async with client_of(normalize=True) as client:
            body = {"inputs": [PHOTO], "dimensions": 2}
            vector = (await client.post("/embed", json=body)).json()[0]
            plain = (await client.post("/embed", json={**body, "normalize": False})).json()[0]
            np.testing.assert_allclose(vector, np.array(plain) / np.linalg.norm(plain), rtol=1e-6)

    asyncio.run(scenario())


def test_a_url_policy_that_makes_no_sense_stops_the_start() -> None:
    with pytest.raises(StartupError, match="IEI_URL_INPUTS"):
        app_around(InProcessEngine(KnownRuntime()), url_inputs="*")


class LoadsSlowly(InProcessEngine):
    """Describes its model when `loaded` is set, as if it had to be loaded first."""

    def __init__(self, runtime: KnownRuntime) -> None:
        super().__init__(runtime)
        self.loaded = asyncio.Event()
        self.asked: list[float] = []
        """Deadlines of those who asked."""
        self.asking = asyncio.Event()

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        self.asked.append(deadline)
        self.asking.set()
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            await self.loaded.wait()
        return await super().describe(model, deadline=deadline)


def test_inputs_that_wait_for_a_model_to_be_loaded_count_as_in_work() -> None:
    async def scenario() -> None:
        engine = LoadsSlowly(KnownRuntime())
        async with client_around(engine, max_queue=2) as client:
            waiting = asyncio.create_task(client.post("/embed", json={"inputs": [PHOTO] * 2}))
            await engine.asking.wait()
            refused = await client.post("/embed", json={"inputs": [PHOTO]})
            assert (refused.status_code, refused.json()["error_type"]) == (429, "Overloaded")
            assert len(engine.asked) == 1, "what is refused asks for no model"
            engine.loaded.set()
            assert (await waiting).status_code == 200

    asyncio.run(scenario())


def test_a_request_has_one_deadline_from_its_arrival_on() -> None:
    deadlines: list[float] = []

    class Watched(LoadsSlowly):
        async def run(self, *arguments: Any, deadline: float, **options: Any) -> Result:
            deadlines.append(deadline)
            return await super().run(*arguments, deadline=deadline, **options)

    async def scenario() -> None:
        engine = Watched(KnownRuntime())
        async with client_around(engine) as client:
            request = asyncio.create_task(client.post("/embed", json={"inputs": [PHOTO]}))
            await engine.asking.wait()
            engine.loaded.set()
            assert (await request).status_code == 200
            assert deadlines == engine.asked

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": PHOTO}),
        ("/embed_all", {"inputs": PHOTO}),
        ("/v1/embeddings", {"model": SPEC.name, "input": PHOTO}),
    ],
)
def test_a_picture_asks_for_its_model_and_is_measured_once(
    path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[int, ...]] = []
    rows = ImageTower.rows

    def counted(tower: ImageTower, shape: tuple[int, ...]) -> Rows:
        measured.append(shape)
        return rows(tower, shape)

    async def scenario() -> None:
        engine = LoadsSlowly(KnownRuntime())
        engine.loaded.set()
        async with client_around(engine) as client:
            response = await client.post(path, json=body)
            assert response.status_code == 200, response.text
            assert len(engine.asked) == 1
            assert measured == [(8, 8, 3)]

    monkeypatch.setattr(ImageTower, "rows", counted)
    asyncio.run(scenario())
