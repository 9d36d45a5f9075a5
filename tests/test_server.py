"""The whole thing, as a user starts it: real gunicorn, real workers, the real engine, real pictures."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests import pictures
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.converted import load_here
from tests.servers import ROOT, Server, runs, serve, until
from tests.telemetry.test_metrics_on_a_server import until as scraped

Vectors = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def embed(url: str, items: list[str], **fields: object) -> Vectors:
    response = httpx.post(f"{url}/embed", json={"inputs": items, **fields}, timeout=120)
    assert response.status_code == 200, response.text
    return np.array(response.json())


@pytest.fixture(scope="session")
def photos() -> list[str]:
    return [pictures.base64_of(data) for data in pictures.encoded().values()]


# what is promised of a healthy server


def test_one_vector_per_image_in_the_order_of_the_inputs(demo_server: Server, photos: list[str]) -> None:
    together = embed(demo_server.url, photos)
    assert together.shape == (len(photos), 192)
    for photo, vector in list(zip(photos, together, strict=True))[::5]:
        np.testing.assert_allclose(embed(demo_server.url, [photo])[0], vector, atol=1e-5)


def test_the_same_image_has_the_same_vector_alone_in_a_batch_and_under_load(
    demo_server: Server, photos: list[str]
) -> None:
    alone = embed(demo_server.url, photos[:1])[0]
    batch = embed(demo_server.url, list(islice(cycle(photos), 32)))
    np.testing.assert_allclose(batch[0], alone, atol=1e-5)

    async def under_load() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=120) as client:
            # A connection per request: all workers answer some.
            return await asyncio.gather(
                *(
                    client.post(f"{demo_server.url}/embed", json={"inputs": [photo]}, headers={"connection": "close"})
                    for photo in islice(cycle([photos[0], *photos[5:9]]), 60)
                )
            )

    responses = asyncio.run(under_load())
    for response in responses[::5]:
        np.testing.assert_allclose(response.json()[0], alone, atol=1e-5)


def test_workers_stay_light(demo_cache: str, photos: list[str]) -> None:
    """A server of its own: the shared one has had hostile bodies of many megabytes, which malloc does not return."""
    with serve({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache}) as server:
        embed(server.url, photos)
        for worker in server.all_workers(2):
            mapped = {os.path.basename(each.path) for each in worker.memory_maps()}  # noqa: PTH119 - not always a path
            assert not [name for name in mapped if name.startswith(("libtorch", "libc10"))]
            assert worker.memory_full_info().pss < 100e6, worker.memory_full_info()


def test_one_engine_serves_all_workers(demo_server: Server) -> None:
    assert len(demo_server.running("iei.engine.process")) == 1
    assert len(demo_server.running("iei.engine.supervisor")) == 1


def test_a_worker_that_has_served_imports_neither_torch_nor_transformers() -> None:
    code = """
import asyncio, sys, time
import numpy as np
from iei.engine.answers import Forward
from iei.engine.api import Result
from tests.apps import app_around
from tests.engine.runtimes_for_tests import SPEC, mean_colour
import httpx

class Known:
    ready, default = True, SPEC
    async def start(self): ...
    async def stop(self): ...
    async def describe(self, model, *, deadline): return SPEC
    async def run(self, spec, modality, array, shapes, *, deadline):
        return Result({name: mean_colour(array, name) for name in shapes}, Forward())

async def main():
    import iei.engine.client, iei.commands.start, iei.commands.master  # all that a worker has
    app = app_around(Known())
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://iei") as client:
            photo = sys.stdin.read()
            response = await client.post("/embed", json={"inputs": [photo]})
            assert response.status_code == 200, response.text
            assert len(response.json()[0]) == 3
    print(sorted({"torch", "transformers"} & set(sys.modules)))

asyncio.run(main())
"""
    photo = pictures.base64_of(pictures.jpeg(500, 375))
    done = subprocess.run(
        [sys.executable, "-c", code], input=photo, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


# what strangers send


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()
    assert body["detail"] == body["error"]
    return response.status_code, body["error_type"], body["error"]


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and has next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100)))


def test_every_bad_item_is_named_by_its_index(demo_server: Server, photos: list[str]) -> None:
    items = [
        photos[0],
        "not base64!",
        pictures.base64_of(b"no image"),
        pictures.base64_of(pictures.jpeg(64, 64)[:-400]),
        pictures.base64_of(png_header(20_000, 20_000)),
        photos[1],
    ]
    status, kind, message = error_of(httpx.post(f"{demo_server.url}/embed", json={"inputs": items}))
    assert (status, kind) == (400, "Validation")
    for index, fault in {1: "base64", 2: "known format", 3: "cut short", 4: "64 MP (IEI_MAX_IMAGE_PIXELS)"}.items():
        (named,) = [text for text in message.split("; ") if text.startswith(f"inputs[{index}]: ")]
        assert fault in named
    assert "inputs[0]" not in message
    assert "inputs[5]" not in message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"inputs": []}, (400, "Empty")),
        ({"inputs": ""}, (400, "Empty")),
        ({"inputs": ["aaaa"] * 1025}, (422, "Validation")),
        ({}, (422, "Validation")),
        ({"inputs": 5}, (422, "Validation")),
        ({"inputs": [1]}, (422, "Validation")),
        ({"inputs": None}, (422, "Validation")),
        ({"inputs": ["aaaa"], "pooling": "median"}, (422, "Validation")),
        ({"inputs": ["aaaa"], "normalize": "perhaps"}, (422, "Validation")),
        ({"inputs": ["aaaa"], "dimensions": 0}, (422, "Validation")),
        ({"inputs": ["aaaa"], "dimensions": 193}, (422, "Validation")),
        ([], (422, "Validation")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_request_is_told_what_is_wrong(demo_server: Server, body: object, expected: tuple[int, str]) -> None:
    assert error_of(httpx.post(f"{demo_server.url}/embed", json=body))[:2] == expected


def test_bodies_that_are_not_json(demo_server: Server) -> None:
    url = f"{demo_server.url}/embed"
    json_type = {"content-type": "application/json"}
    assert error_of(httpx.post(url, content=b"{", headers=json_type))[:2] == (400, "Validation")
    assert error_of(httpx.post(url, content=b"", headers=json_type))[:2] == (400, "Validation")
    assert error_of(httpx.post(url, content=b"\xff\xfe", headers=json_type))[:2] == (400, "Validation")
    assert error_of(httpx.post(url, content=b"[" * 100_000, headers=json_type))[0] in (400, 422)
    assert error_of(httpx.post(url, data={"inputs": "x"}))[:2] == (415, "Validation")
    assert error_of(httpx.get(url))[:2] == (405, "Validation")
    assert error_of(httpx.get(f"{demo_server.url}/nothing"))[:2] == (404, "Validation")


def test_the_smallest_picture_and_an_animation_are_pictures(demo_server: Server) -> None:
    one_pixel = pictures.base64_of(pictures.png(1, 1))
    animation = pictures.base64_of(pictures.encoded()["gif animated"])
    assert embed(demo_server.url, [one_pixel, animation]).shape == (2, 192)


def test_a_body_over_the_limit_is_refused_by_its_header(demo_server: Server) -> None:
    announced = http.client.HTTPConnection(demo_server.url.removeprefix("http://"), timeout=20)
    announced.putrequest("POST", "/embed")
    announced.putheader("Content-Type", "application/json")
    announced.putheader("Content-Length", "99999999999")
    announced.endheaders()
    answer = announced.getresponse()
    assert answer.status == 413
    assert b"IEI_MAX_BODY_BYTES" in answer.read()
    announced.close()


def test_bad_requests_cost_nobody_else_their_answer(demo_server: Server, photos: list[str]) -> None:
    bad = [["%%%"], [photos[0][:400]], [], [pictures.base64_of(png_header(20_000, 20_000))], ["", photos[1]]]
    expected = embed(demo_server.url, photos[:1])[0]

    async def mixed() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=120) as client:
            requests = [photos[:1] if number % 2 else bad[number // 2 % len(bad)] for number in range(60)]
            return await asyncio.gather(
                *(client.post(f"{demo_server.url}/embed", json={"inputs": items}) for items in requests)
            )

    for number, response in enumerate(asyncio.run(mixed())):
        assert response.status_code == (200 if number % 2 else 400)
        if number % 2:
            np.testing.assert_allclose(response.json()[0], expected, atol=1e-5)


def test_a_client_that_leaves_is_no_trouble(demo_server: Server, photos: list[str]) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{demo_server.url}/embed", json={"inputs": photos * 8}, timeout=httpx.Timeout(30, read=0.05))
    assert embed(demo_server.url, photos[:1]).shape == (1, 192)
    assert "Traceback" not in demo_server.log


def test_responses_are_named_and_timed(demo_server: Server, photos: list[str]) -> None:
    response = httpx.post(
        f"{demo_server.url}/embed", json={"inputs": photos[:1]}, headers={"x-request-id": "request-7"}
    )
    assert response.headers["x-request-id"] == "request-7"
    times = {name: float(response.headers[f"x-{name}-time"]) for name in ("total", "preprocess", "queue", "inference")}
    assert times["total"] >= times["preprocess"] + times["queue"] + times["inference"] > 0
    made = httpx.get(f"{demo_server.url}/ping", headers={"x-request-id": "two words"}).headers["x-request-id"]
    assert len(made) == 32


def test_a_data_uri_is_the_same_as_its_base64(demo_server: Server, photos: list[str]) -> None:
    both = embed(demo_server.url, [photos[0], f"data:image/jpeg;base64,{photos[0]}"])
    np.testing.assert_array_equal(both[0], both[1])


def test_fields_do_what_they_say(demo_server: Server, photos: list[str]) -> None:
    plain = embed(demo_server.url, photos[:1])[0]
    np.testing.assert_allclose(
        embed(demo_server.url, photos[:1], normalize=True)[0], plain / np.linalg.norm(plain), atol=1e-6
    )
    np.testing.assert_array_equal(embed(demo_server.url, photos[:1], dimensions=7)[0], plain[:7])
    cut = embed(demo_server.url, photos[:1], dimensions=7, normalize=True)[0]
    np.testing.assert_allclose(np.linalg.norm(cut), 1, atol=1e-6)
    tokens = httpx.post(f"{demo_server.url}/embed_all", json={"inputs": photos[:1]}, timeout=60).json()[0]
    np.testing.assert_allclose(np.mean(tokens, 0), plain, atol=1e-5)
    np.testing.assert_allclose(embed(demo_server.url, photos[:1], pooling="cls")[0], tokens[0], atol=1e-6)


def test_info_says_what_is_served(demo_server: Server) -> None:
    info = httpx.get(f"{demo_server.url}/info").json()
    assert (info["model_id"], info["dim"], info["device"], info["dtype"]) == ("demo", 192, "cpu", "float32")
    assert info["poolings"]["cls"] == 192
    assert info["max_inputs"] == 1024


# what happens when things die


@pytest.fixture
def own_server(demo_cache: str) -> Iterator[Server]:
    """For tests that break it."""
    with serve({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache}) as server:
        yield server


def test_requests_survive_the_engine_and_a_worker_being_killed(own_server: Server, photos: list[str]) -> None:
    expected = embed(own_server.url, photos[:1])[0]

    async def load(kill: psutil.Process) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=120) as client:
            requests = [
                asyncio.create_task(client.post(f"{own_server.url}/embed", json={"inputs": [photo]}))
                for photo in islice(cycle(photos[:4]), 80)
            ]
            await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
            kill.kill()
            return await asyncio.gather(*requests)

    (engine,) = own_server.running("iei.engine.process")
    responses = asyncio.run(load(engine))
    assert {response.status_code for response in responses} == {200}
    for response in responses[::4]:
        np.testing.assert_allclose(response.json()[0], expected, atol=1e-5)
    new_engines = until(lambda: [each for each in own_server.running("iei.engine.process") if each != engine])
    assert len(new_engines) == 1

    killed = own_server.all_workers(2)[0]
    killed.kill()
    killed.wait(30)
    own_server.all_workers(2)
    np.testing.assert_allclose(embed(own_server.url, photos[:1])[0], expected, atol=1e-5)


def test_sigterm_lets_accepted_requests_finish(own_server: Server, photos: list[str]) -> None:
    async def stop_in_the_middle() -> httpx.Response:
        async with httpx.AsyncClient(timeout=120) as client:
            (engine,) = own_server.running("iei.engine.process")
            engine.suspend()
            request = asyncio.create_task(client.post(f"{own_server.url}/embed", json={"inputs": photos * 4}))
            await asyncio.to_thread(scraped, own_server.url, "iei_inputs_waiting", 4 * len(photos))
            assert not request.done()
            own_server.process.send_signal(signal.SIGTERM)
            engine.resume()
            return await request

    response = asyncio.run(stop_in_the_middle())
    assert response.status_code == 200
    assert len(response.json()) == 4 * len(photos)


def test_killing_the_master_leaves_nothing_behind(own_server: Server) -> None:
    own_server.process.kill()
    own_server.process.wait()
    psutil.wait_procs(own_server.processes(), timeout=20)
    assert own_server.processes() == []


# other ways to start it


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("python -m uvicorn server:app --port 0", id="uvicorn alone"),
        pytest.param(
            "python -m gunicorn server:app --workers 1 --worker-class uvicorn_worker.UvicornWorker --preload "
            "--bind 127.0.0.1:0",
            id="uvicorn_worker",
        ),
        pytest.param("python -m iei serve --demo --workers 1 --bind 127.0.0.1:0", id="iei serve"),
    ],
)
def test_it_serves_however_it_is_started(command: str, demo_cache: str, photos: list[str]) -> None:
    env = {"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache, "IEI_MAX_HEAD_BYTES": "1024"}
    with serve(env, command=command.split()) as server:
        assert embed(server.url, photos[:2]).shape == (2, 192)
        too_large = httpx.get(f"{server.url}/ping", headers={"x-large": "a" * 1024})
        assert too_large.status_code == 431  # one of the limits that uvicorn does not have


def test_two_devices_are_two_engines_and_one_answer(demo_cache: str, photos: list[str]) -> None:
    env = {"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache, "IEI_DEVICE": "cpu,cpu", "IEI_THREADS": "1"}
    with serve(env, workers=1) as server:
        assert len(server.running("iei.engine.process")) == 2
        vectors = embed(server.url, photos[:1] * 8)
        np.testing.assert_allclose(vectors, np.repeat(vectors[:1], 8, 0), atol=1e-5)


def test_all_models_can_be_loaded_before_the_port_opens(demo_cache: str, photos: list[str]) -> None:
    env = {"IEI_MODELS": "first=demo,second=demo", "IEI_LOAD_AT_START": "all", "IEI_CACHE_DIR": demo_cache}
    with serve(env, workers=1) as server:
        before = server.log.partition("Listening at")[0]
        assert "first is loaded" in before
        assert "second is loaded" in before
        body = {"model": "second", "input": photos[0], "encoding_format": "float"}
        response = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
        assert response.json()["model"] == "second"
        assert server.log.count("is loaded") == 2


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"IMAGE_EMBEDDING_MODEL": "/no/such/folder"}, "/no/such/folder"),
        ({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_WORKERS": "many"}, "IEI_WORKERS='many'"),
        ({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_DEVICE": "cuda:7"}, "cuda"),
        ({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_URL_INPUTS": "*"}, "IEI_URL_INPUTS"),
    ],
    ids=["model", "number", "device", "policy"],
)
def test_a_start_that_can_not_succeed_says_why_before_a_port_is_open(
    env: dict[str, str], sentence: str, demo_cache: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "server:app", "--preload", "--bind", "127.0.0.1:0"],
        cwd=ROOT,
        env={**os.environ, "IEI_RUNTIME": "auto", "IEI_CACHE_DIR": demo_cache, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "Listening" not in done.stderr
    (last,) = [line for line in done.stderr.splitlines() if line.startswith("iei: ")]
    assert sentence in last
    assert "Traceback" not in done.stderr


def test_a_catalog_that_is_edited_during_a_start_is_the_same_to_all_processes(tmp_path: Path, demo_cache: str) -> None:
    """Frames name models by their place: a process that read the file later would compute with another model."""
    own = write_checkpoint("vit", tmp_path / "own")
    load_here(own, demo_cache)
    allow_list = tmp_path / "supported_models.txt"
    allow_list.write_text(f"first=demo\nsecond={own}\n")

    def edited_when_the_engine_starts(process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            if any(runs(child, "iei.engine.process") for child in psutil.Process(process.pid).children(True)):
                allow_list.write_text(f"second={own}\nfirst=demo\nthird=demo\n")
                return
            time.sleep(0.01)

    env = {"IEI_SUPPORTED_MODELS": str(allow_list), "IEI_CACHE_DIR": demo_cache}
    with serve(env, meanwhile=edited_when_the_engine_starts) as server:
        assert "third" in allow_list.read_text()
        models = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert [model["id"] for model in models] == ["first", "second"]
        dims = {name: _dim(server, name) for name in ("first", "second")}
        assert dims["first"] == 192 != dims["second"]
        info = httpx.get(f"{server.url}/v2/models/second").json()
        assert info["name"] == "second"


def _dim(server: Server, model: str) -> int:
    body = {"model": model, "input": [pictures.data_uri(pictures.png())], "encoding_format": "float"}
    response = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return len(response.json()["data"][0]["embedding"])
