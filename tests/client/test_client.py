"""Both clients against real servers, and against a stand-in where the order of things matters."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, assert_type

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iei.client import AsyncClient, Client, ClientError, Info, InputError, ServerError
from tests.client.stand_in import INFO, Answer, StandIn, numbers, refusal
from tests.client.using import BOTH, Using
from tests.pictures import data_uri, encode, jpeg, photo, photos, png
from tests.servers import Server

TEXTS = ["a cat on a mat", "stocks fell", "Ein Kätzchen"]


def expected(server: Server, inputs: list[str], **fields: object) -> NDArray[np.float32]:
    """Vectors by JSON."""
    body = {"inputs": inputs, **fields}
    return np.array(httpx.post(f"{server.url}/embed", json=body, timeout=60).raise_for_status().json(), np.float32)


@pytest.mark.parametrize("using", BOTH)
def test_every_form_of_a_picture_has_the_vector_of_its_file(demo_server: Server, tmp_path: Path, using: Using) -> None:
    file = tmp_path / "cat.png"
    image = photo(320, 240)
    image.save(file)
    forms: list[Any] = [
        str(file),
        file,
        file.read_bytes(),
        image,
        np.asarray(image),
        data_uri(file.read_bytes(), "image/png"),
    ]
    vectors = using(demo_server.url, lambda client: client.embed_images(forms))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.repeat(expected(demo_server, [forms[-1]]), len(forms), 0), atol=1e-5)


@pytest.mark.parametrize("using", BOTH)
def test_vectors_are_in_the_order_of_the_pictures(demo_server: Server, using: Using) -> None:
    images = [encode(photo(60 + 8 * n, 48, name), "PNG") for n, name in enumerate(photos())]
    alone = [expected(demo_server, [data_uri(image, "image/png")])[0] for image in images]
    vectors = using(demo_server.url, lambda client: client.embed_images(iter(images)), batch_size=3, concurrency=4)
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


@pytest.mark.parametrize("using", BOTH)
def test_options_are_those_of_the_route(text_server: Server, using: Using) -> None:
    options = {"normalize": True, "dimensions": 16, "pooling": "mean", "truncate": True}
    texts = [*TEXTS, "word " * 1000]
    vectors = using(text_server.url, lambda client: client.embed_texts(texts, model="minilm", **options))
    by_path = httpx.post(f"{text_server.url}/m/minilm/embed", json={"inputs": texts, **options}, timeout=60)
    np.testing.assert_allclose(vectors, by_path.raise_for_status().json(), atol=1e-5)


@pytest.mark.parametrize("using", BOTH)
def test_pictures_have_options_too_and_share_a_space_with_texts(text_server: Server, using: Using) -> None:
    items = [jpeg(), data_uri(jpeg())]
    vectors = using(text_server.url, lambda client: client.embed_images(items, normalize=True, dimensions=8))
    wanted = expected(text_server, [data_uri(jpeg())], modality="image", normalize=True, dimensions=8)
    np.testing.assert_allclose(vectors, np.repeat(wanted, 2, 0), atol=1e-5)
    assert using(text_server.url, lambda client: client.embed_texts("a cat", dimensions=8)).shape == (1, 8)


@pytest.mark.parametrize("using", BOTH)
def test_bad_pictures_are_named_by_their_index_in_the_call(demo_server: Server, tmp_path: Path, using: Using) -> None:
    bad = tmp_path / "notes.txt"
    bad.write_text("not a picture")
    items = [png()] * 10
    items[7:9] = [bad, b"torn"]  # type: ignore[list-item]
    with pytest.raises(InputError) as caught:
        using(demo_server.url, lambda client: client.embed_images(items), batch_size=3)
    assert set(caught.value.errors) == {7, 8}
    assert caught.value.index == 7
    assert caught.value.message.startswith(f"{bad}: is not an image in a known format")
    assert caught.value.errors[8].startswith("is not an image")


@pytest.mark.parametrize("using", BOTH)
@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("no such file.png", r"^inputs\[4\]: no such file.png: No such file or directory$"),
        (np.zeros((2, 2), np.float64), r"^inputs\[4\]: is an array of float64"),
        ("http://127.0.0.1:9/a.png", r"^inputs\[4\]: .*127\.0\.0\.1"),
        ("data:image/png;base64,AAAA", r"^inputs\[4\]: is not an image"),
    ],
)
def test_a_bad_item_of_any_form_is_named(demo_server: Server, using: Using, item: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        using(demo_server.url, lambda client: client.embed_images([png()] * 4 + [item] + [png()]), batch_size=3)


@pytest.mark.parametrize("using", BOTH)
@pytest.mark.parametrize("text", [3, "a lone surrogate \ud800", ""])
def test_a_bad_text_is_named(text_server: Server, using: Using, text: object) -> None:
    with pytest.raises(InputError) as caught:
        using(text_server.url, lambda client: client.embed_texts(["a", text]))
    assert caught.value.index == 1


@pytest.mark.parametrize("using", BOTH)
def test_bad_items_may_cost_their_own_vectors_only(demo_server: Server, using: Using) -> None:
    items: list[Any] = [png()] * 12
    items[1], items[4], items[5] = "no such file.png", b"torn", "data:image/png;base64,AAAA"
    items[9:12] = [b"torn"] * 3
    errors: dict[int, str] = {}
    vectors = using(demo_server.url, lambda client: client.embed_images(items, errors=errors), batch_size=3)
    assert sorted(errors) == [1, 4, 5, 9, 10, 11]
    assert errors[1] == "no such file.png: No such file or directory"
    assert errors[4].startswith("is not an image")
    assert np.flatnonzero(np.isnan(vectors).all(axis=1)).tolist() == sorted(errors)
    good = np.delete(vectors, list(errors), axis=0)
    np.testing.assert_allclose(good, np.repeat(expected(demo_server, [data_uri(png())]), 6, 0), atol=1e-5)


@pytest.mark.parametrize("using", BOTH)
def test_a_refused_request_is_sent_again_without_its_bad_items(using: Using) -> None:
    def answer(texts: list[str]) -> Answer:
        bad = [f"inputs[{index}]: is bad" for index, text in enumerate(texts) if text == "x"]
        return refusal(400, "; ".join(bad)) if bad else numbers(texts)

    errors: dict[int, str] = {}
    with StandIn(answer).running() as server:
        vectors = using(server.url, lambda client: client.embed_texts(["x", "1", "x", "3"], errors=errors))
        with pytest.raises(InputError, match=r"^inputs\[0\]: is bad; inputs\[2\]: is bad$"):
            using(server.url, lambda client: client.embed_texts(["x", "1", "x", "3"]))
    assert errors == {0: "is bad", 2: "is bad"}
    np.testing.assert_array_equal(vectors, np.array([[np.nan], [1], [np.nan], [3]], np.float32))
    assert server.received[:2] == [["x", "1", "x", "3"], ["1", "3"]]


@pytest.mark.parametrize("using", BOTH)
def test_nothing_gives_an_array_of_no_rows(text_server: Server, using: Using) -> None:
    assert using(text_server.url, lambda client: client.embed_texts([], dimensions=5)).shape == (0, 5)
    for model in ("clip", "minilm"):
        nothing = using(text_server.url, lambda client, model=model: client.embed_texts([], model=model))
        something = using(text_server.url, lambda client, model=model: client.embed_texts("a", model=model))
        assert nothing.shape == (0, something.shape[1])


@pytest.mark.parametrize("using", BOTH)
def test_refusals_have_their_status(text_server: Server, using: Using) -> None:
    with pytest.raises(ServerError, match=r"404: .*nothing") as caught:
        using(text_server.url, lambda client: client.embed_texts(TEXTS, model="nothing"))
    assert caught.value.request_id
    with pytest.raises(ServerError, match=r"422: .*takes no images"):
        using(f"{text_server.url}/m/minilm", lambda client: client.embed_images(png()))


@pytest.mark.parametrize("using", BOTH)
def test_a_key_is_sent_and_never_logged(keyed_server: Server, caplog: pytest.LogCaptureFixture, using: Using) -> None:
    with caplog.at_level(logging.DEBUG):
        assert using(keyed_server.url, lambda client: client.embed_texts(TEXTS), api_key="secret").shape[0] == 3
        assert "secret" not in using(keyed_server.url, lambda client: client.info(), api_key="secret")
    assert caplog.records
    assert "secret" not in caplog.text
    with pytest.raises(ServerError, match="401"):
        using(keyed_server.url, lambda client: client.embed_texts(TEXTS), api_key="wrong")


def test_representations_have_no_key() -> None:
    for client in (Client(api_key="secret"), AsyncClient(api_key="secret")):
        assert "localhost:8000" in repr(client)
        assert "secret" not in repr(client) + repr(client._connection)


@pytest.mark.parametrize("using", BOTH)
def test_a_slow_first_batch_comes_first_all_the_same(using: Using) -> None:
    third_came = threading.Event()

    def answer(texts: list[str]) -> Answer:
        if texts[0] == "0":
            assert third_came.wait(20)
        if texts[0] == "4":
            third_came.set()
        return numbers(texts)

    with StandIn(answer).running() as server:
        vectors = using(server.url, lambda client: client.embed_texts(map(str, range(20))), batch_size=2, concurrency=3)
    assert vectors[:, 0].tolist() == list(range(20))
    assert sorted(len(texts) for texts in server.received) == [2] * 10


@pytest.mark.parametrize("using", BOTH)
def test_so_many_requests_are_sent_at_a_time(using: Using) -> None:
    three = threading.Barrier(3)

    def answer(texts: list[str]) -> Answer:
        three.wait(20)
        return numbers(texts)

    with StandIn(answer).running() as server:
        using(server.url, lambda client: client.embed_texts(map(str, range(6))), batch_size=1, concurrency=3)
    assert server.most_at_a_time == 3


@pytest.mark.parametrize("using", BOTH)
def test_requests_keep_to_the_limits_of_the_server(using: Using) -> None:
    texts = [f"{n:0300}" for n in range(10)]
    with StandIn(info={**INFO, "max_inputs": 4, "max_body_bytes": 2000}).running() as server:
        vectors = using(server.url, lambda client: client.embed_texts(texts))
        with pytest.raises(InputError, match=r"^inputs\[5\]: has 22\d\d bytes as it is sent, over the .* 2000"):
            using(server.url, lambda client: client.embed_texts([*texts[:5], "7" * 2000]))
    assert vectors[:, 0].tolist() == list(range(10))
    assert max(server.sizes) <= 2000
    assert max(len(texts) for texts in server.received) == 3


@pytest.mark.parametrize("using", BOTH)
def test_addresses_are_left_to_the_server(using: Using) -> None:
    addresses = ["http://pictures/7", "https://pictures/8"]
    with StandIn(lambda texts: numbers([text.split("/")[-1] for text in texts])).running() as server:
        assert using(server.url, lambda client: client.embed_images(addresses)).tolist() == [[7], [8]]
    assert server.received == [addresses]


@pytest.mark.parametrize("using", BOTH)
def test_one_failure_ends_the_call_and_what_it_had_waiting(using: Using) -> None:
    refused = refusal(400, "inputs[1]: is not a number")
    stand_in = StandIn(lambda texts: refused if "3" in texts else numbers(texts))
    with stand_in.running() as server, pytest.raises(InputError) as caught:
        using(server.url, lambda client: client.embed_texts(map(str, range(1000))), batch_size=2, concurrency=2)
    assert caught.value.errors == {3: "is not a number"}
    assert len(server.received) < 20, "of 500"


@pytest.mark.parametrize("using", BOTH)
@pytest.mark.parametrize("answer", [Answer(200, b"<html>"), numbers(["1"])], ids=["html", "too few"])
def test_another_kind_of_server_is_found_out(using: Using, answer: Answer) -> None:
    with StandIn(lambda texts: answer).running() as server, pytest.raises(ServerError, match="not a vector for each"):
        using(server.url, lambda client: client.embed_texts(["1", "2"]))
    with StandIn(info={"name": "other"}).running() as server, pytest.raises(ServerError, match="is not of IEI"):
        using(server.url, lambda client: client.embed_texts("1"))


def test_progress_is_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with StandIn().running() as server, Client(server.url) as client:
        client.embed_texts(["1", "2"])
        assert not capsys.readouterr().err
        client.embed_texts(["1", "2"], progress=True)
    assert "2/2" in capsys.readouterr().err


def test_the_plain_client_works_where_a_loop_runs() -> None:
    async def cell() -> list[float]:
        with Client(server.url) as client:
            return [float(value) for value in client.embed_texts(["1", "2"])[:, 0]]

    with StandIn().running() as server:
        assert asyncio.run(cell()) == [1, 2]


def test_a_task_may_be_cancelled_and_the_client_goes_on() -> None:
    arrived, cancelled = threading.Event(), threading.Event()

    def answer(texts: list[str]) -> Answer:
        if "1" in texts:
            arrived.set()
            cancelled.wait(20)
        return numbers(texts)

    async def cancel() -> list[list[float]]:
        async with AsyncClient(server.url, concurrency=1) as client:
            task = asyncio.create_task(client.embed_texts(["1"]))
            assert await asyncio.to_thread(arrived.wait, 20)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            cancelled.set()
            vectors: list[list[float]] = (await client.embed_texts(["2"])).tolist()
            return vectors

    with StandIn(answer).running() as server:
        assert asyncio.run(cancel()) == [[2]]


def test_a_client_that_nobody_closed_leaves_nothing_open() -> None:
    with StandIn().running() as server:
        client = Client(server.url)
        client.embed_texts("1")
        http, gone = client._http, weakref.ref(client)
        del client
        deadline = time.monotonic() + 20
        while gone() and time.monotonic() < deadline:  # its thread may hold it for a moment
            gc.collect()
        assert http.is_closed


def test_threads_may_share_a_client() -> None:
    with StandIn().running() as server, Client(server.url, batch_size=1, concurrency=2) as client:
        results: dict[int, list[float]] = {}

        def embed(n: int) -> None:
            results[n] = client.embed_texts([str(n), str(n + 1)])[:, 0].tolist()

        threads = [threading.Thread(target=embed, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {n: [n, n + 1] for n in range(8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "localhost:8000"}, "localhost:8000 is not the address of a server"),
        ({"url": "http://localhost:port"}, "http://localhost:port is not the address"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"concurrency": 0}, "concurrency is 0"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments: dict[str, str], message: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=message):
            kind(**arguments)  # type: ignore[arg-type]


def test_info_has_the_fields_that_it_is_said_to_have(text_server: Server) -> None:
    with Client(text_server.url) as client:
        assert Info.__annotations__.keys() <= client.info().keys()
        assert client.info("minilm")["dim"] == 384


def test_importing_it_imports_nothing_heavy_and_nothing_of_the_server() -> None:
    program = "import sys, iei.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert {name for name in modules if name.split(".")[0] == "iei" and not name.startswith("iei.client")} == {"iei"}
    heavy = {"torch", "transformers", "tokenizers", "fastapi", "starlette", "pydantic", "gunicorn", "uvicorn", "PIL"}
    assert not heavy & {name.split(".")[0] for name in modules}


def types_of_the_client(client: Client, image: Image.Image, pixels: NDArray[np.uint8]) -> None:
    """Checked by mypy, and never run."""
    assert_type(client.embed_images("cat.jpg"), NDArray[np.float32])
    assert_type(client.embed_images([Path("cat.jpg"), b"", image, pixels]), NDArray[np.float32])
    assert_type(client.embed_texts(text for text in TEXTS), NDArray[np.float32])
    assert_type(client.info()["poolings"], dict[str, int])
    client.embed_images(3)  # type: ignore[arg-type]
    client.embed_images([1, 2])  # type: ignore[list-item]
    client.embed_images("cat.jpg", pooling="median")  # type: ignore[arg-type]
    client.embed_texts([b"bytes"])  # type: ignore[list-item]
    assert issubclass(InputError, ClientError)


async def types_of_the_async_client(client: AsyncClient) -> None:
    """Checked by mypy, and never run."""
    assert_type(await client.embed_images("cat.jpg"), NDArray[np.float32])
    assert_type(await client.embed_texts(["a cat"]), NDArray[np.float32])
