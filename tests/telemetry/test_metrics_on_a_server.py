"""`/metrics` of a real server: the same numbers from every worker, and right ones after processes have died."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import pictures
from tests.servers import Server, serve

pytestmark = pytest.mark.server

PICTURE = pictures.base64_of(pictures.png(8, 8))
LIMIT_S = 60.0


class Scrape:
    """What `/metrics` says at one moment, over a connection of its own."""

    def __init__(self, url: str) -> None:
        response = httpx.get(f"{url}/metrics", timeout=LIMIT_S)
        assert response.status_code == 200, response.text
        self._samples = [
            sample for family in text_string_to_metric_families(response.text) for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series with these labels."""
        return sum(each.value for each in self._samples if each.name == name and labels.items() <= each.labels.items())

    @property
    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (each.name, frozenset(each.labels.items())): each.value
            for each in self._samples
            if each.name.endswith(("_total", "_count", "_bucket", "_sum"))
        }


def until(url: str, name: str, value: float, **labels: str) -> Scrape:
    """The first scrape in which the sum has this value. Workers may be missing meanwhile."""
    deadline = time.monotonic() + LIMIT_S
    seen: object = None
    while time.monotonic() < deadline:
        try:
            scrape = Scrape(url)
        except httpx.TransportError as error:
            seen = error
        else:
            if (seen := scrape.total(name, **labels)) == value:
                return scrape
        time.sleep(0.05)
    raise AssertionError(f"{name} {labels} is {seen}, not {value}")


def embed(url: str, inputs: int) -> int:
    """The status of a request of so many pictures, over a connection of its own."""
    return httpx.post(f"{url}/embed", json={"inputs": [PICTURE] * inputs}, timeout=LIMIT_S).status_code


@pytest.fixture(scope="module")
def server(demo_cache: str) -> Iterator[Server]:
    with serve({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache, "IEI_MAX_INPUTS": "8"}) as server:
        yield server


def test_a_scrape_agrees_with_what_the_clients_have_counted(server: Server) -> None:
    before = Scrape(server.url)
    with ThreadPoolExecutor(8) as clients:
        sizes = [1, 3, 8, 9] * 6  # nine are too many
        statuses = list(clients.map(lambda size: embed(server.url, size), sizes))
        during = Scrape(server.url)
    # An answer is counted when it has been sent: its client may be quicker.
    until(server.url, "iei_requests_total", before.total("iei_requests_total", route="/embed") + 24, route="/embed")
    answered = sum(size for size, status in zip(sizes, statuses, strict=True) if status == 200)
    assert statuses.count(422) == 6
    scrapes = [Scrape(server.url) for _ in range(8)]  # over new connections: from both workers
    for after in scrapes:

        def grown(name: str, **labels: str) -> float:
            return after.total(name, **labels) - before.total(name, **labels)  # noqa: B023 - called in this turn

        assert grown("iei_inputs_total", model="demo", modality="image", priority="interactive") == answered
        assert grown("iei_pixels_total") == 64 * answered
        assert grown("iei_requests_total", route="/embed", status="200") == 18
        assert grown("iei_requests_total", route="/embed", status="422") == 6
        assert grown("iei_rejections_total", reason="invalid_field") == 6
        assert grown("iei_request_seconds_count", route="/embed", model="demo") == 18
        assert grown("iei_batch_size_sum") == answered
        assert grown("iei_batch_size_count") == grown("iei_forward_seconds_count")
        for stage in ("wait", "decode", "resize", "queue", "forward"):
            assert grown("iei_stage_seconds_count", stage=stage) == answered
        for stage in ("receive", "parse", "serialise"):
            assert grown("iei_stage_seconds_count", stage=stage, model="demo") == 18
        assert grown("te_request_success") == 18
        assert grown("te_embed_success") == answered
        assert after.total("iei_inputs_waiting") == after.total("iei_inputs_running") == 0
        assert after.total("iei_drain_seconds") == 0
        assert after.total("iei_processes", process="worker") == 2
        assert after.total("iei_models_loaded", model="demo") == 1
        assert after.total("iei_device_memory_bytes") > 2**24
    for earlier, later in zip([before, during, *scrapes], [during, *scrapes], strict=False):
        assert all(later.counters[series] >= value for series, value in earlier.counters.items())


def test_scrapes_under_load_agree_but_for_the_inputs_on_their_way(server: Server) -> None:
    """An input is counted after it was sent, and before its client has the answer."""
    before = Scrape(server.url).total("iei_inputs_total")
    sent, answered = Counter[int](), Counter[int]()  # by client: each is changed by one thread

    def client(number: int) -> None:
        for _ in range(12):
            sent[number] += 4
            assert embed(server.url, 4) == 200
            answered[number] += 4

    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(client, number) for number in range(4)]
        partly = 0
        while not all(each.done() for each in running):
            least = answered.total()
            counted = Scrape(server.url).total("iei_inputs_total") - before
            assert least <= counted <= sent.total()
            partly += 0 < counted < 4 * 12 * 4
        for each in running:
            each.result()
    assert partly, "no scrape was taken under load"


def test_a_killed_worker_takes_its_gauges_along_and_leaves_its_counts(server: Server) -> None:
    (engine,) = server.running("iei.engine.process")
    before = Scrape(server.url)
    engine.suspend()  # what is sent now stays in work
    try:
        with ThreadPoolExecutor(1) as clients:
            client = clients.submit(embed, server.url, 5)
            until(server.url, "iei_inputs_waiting", 5)
            for worker in server.workers():  # one of them has the inputs
                worker.kill()
            assert isinstance(client.exception(), httpx.RemoteProtocolError | httpx.ReadError)
        after = until(server.url, "iei_processes", 2, process="worker")  # gunicorn has forked others
        assert after.total("iei_inputs_waiting") == 0
        assert after.total("iei_inputs_total") == before.total("iei_inputs_total")
    finally:
        engine.resume()
    assert embed(server.url, 2) == 200
    assert Scrape(server.url).total("iei_inputs_total") == before.total("iei_inputs_total") + 2


def test_a_killed_engine_is_counted_and_its_inputs_once(server: Server) -> None:
    before = Scrape(server.url)
    (engine,) = server.running("iei.engine.process")
    engine.suspend()
    with ThreadPoolExecutor(1) as clients:
        client = clients.submit(embed, server.url, 6)
        until(server.url, "iei_inputs_waiting", 6)
        engine.kill()
        assert client.result() == 200
    after = until(server.url, "iei_models_loaded", 1)
    assert after.total("iei_engine_restarts_total") == before.total("iei_engine_restarts_total") + 1
    assert after.total("iei_inputs_waiting") == after.total("iei_inputs_running") == 0
    assert after.total("iei_inputs_total") == before.total("iei_inputs_total") + 6


def test_inputs_of_clients_that_leave_wait_no_more(server: Server) -> None:
    (engine,) = server.running("iei.engine.process")
    before = Scrape(server.url)

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=LIMIT_S) as client:
            request = asyncio.create_task(client.post(f"{server.url}/embed", json={"inputs": [PICTURE] * 7}))
            await asyncio.to_thread(until, server.url, "iei_inputs_waiting", 7)
            request.cancel()
            await asyncio.wait([request])

    engine.suspend()
    try:
        asyncio.run(leave())
        after = until(
            server.url, "iei_requests_total", before.total("iei_requests_total", status="499") + 1, status="499"
        )
        assert after.total("iei_inputs_waiting") == 0
        failed = "iei_inputs_failed_total"
        assert after.total(failed) == before.total(failed) + 7
    finally:
        engine.resume()
