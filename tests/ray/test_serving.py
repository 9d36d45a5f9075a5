"""Ray Serve, with real replicas behind its real proxy."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from iei.client import Client
from tests.pictures import base64_of, data_uri, jpeg, png
from tests.servers import Server

pytestmark = [
    pytest.mark.timeout(900),  # the first test waits for the cluster
    pytest.mark.cluster,
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),  # Ray warns of its own code; hardly any of ours runs in this process
]

TEXTS = ["a cat on a mat", "stocks fell"]
PATIENCE_S = 400.0
INPUTS_PER_REPLICA = 4
PREFIX = "/v1"
"""Other applications may be beside it. Routes of IEI's own begin like that, too."""
FAR_S = 0.3
"""How long a picture takes that is somewhere else: an input in work that computes nothing."""


@pytest.fixture(scope="module")
def url(cluster: Any, text_models: dict[str, str]) -> Iterator[str]:
    """Of an application below a path of the proxy: two models, in one replica that may become three."""
    from ray import serve

    from iei.ray import build

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    arguments: dict[str, Any] = {
        "models": text_models["IEI_MODELS"],
        "cache_dir": text_models["IEI_CACHE_DIR"],
        "runtime": "openvino",
        "max_loaded_models": 2,
        "max_replicas": "3",
        "inputs_per_replica": INPUTS_PER_REPLICA,
        "upscale_delay_s": 0,
        "downscale_delay_s": 1,
        "look_back_period_s": 10.5,
        "url_inputs": "localhost",
        "num_cpus": 0.1,
    }
    serve.run(build(arguments), name="iei", route_prefix=PREFIX)
    yield f"http://127.0.0.1:{port}{PREFIX}"
    serve.shutdown()


@pytest.fixture(scope="module")
def far() -> Iterator[str]:
    """The address of a picture that takes `FAR_S`."""

    class Far(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(FAR_S)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Far) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/picture.png"
        server.shutdown()
        thread.join()


def test_vectors_are_those_of_iei_serve(url: str, text_server: Server) -> None:
    body = {"inputs": [data_uri(jpeg(name="chelsea")), data_uri(png(name="coffee"))]}
    ours, theirs = (httpx.post(f"{base}/embed", json=body, timeout=60).json() for base in (url, text_server.url))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_client_of_openai(url: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
        assert [len(item.embedding) for item in answer.data] == [384, 384]
        with pytest.raises(openai.NotFoundError, match="model 'other' is not served here"):
            client.embeddings.create(model="other", input=TEXTS)


def test_our_client(url: str) -> None:
    with Client(url) as client:
        assert client.embed_texts(TEXTS, model="minilm").shape == (2, 384)


def test_the_route_of_tei_below_the_prefix_of_a_model(url: str) -> None:
    answer = httpx.post(f"{url}/m/minilm/embed", json={"inputs": TEXTS}, timeout=60)
    assert np.shape(answer.json()) == (2, 384)
    assert len(answer.headers.get_list("x-request-id")) == 1  # the proxy and IEI both set it
    sent = httpx.get(f"{url}/ping", headers={"x-request-id": "mine"})
    assert sent.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/embed", {"inputs": "x", "modality": "image"}, 400, "error_type"),
        ("/v1/embeddings", {"model": "clip", "input": []}, 400, "error"),
        ("/v2/embed", {"model": "other", "texts": TEXTS}, 404, "message"),
        ("/nowhere", {}, 404, "error_type"),
    ],
)
def test_errors_have_the_form_of_their_dialect(
    url: str, path: str, body: dict[str, Any], status: int, field: str
) -> None:
    answer = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert (answer.status_code, field in answer.json()) == (status, True), answer.text


def test_lines_come_one_by_one(url: str) -> None:
    body = {"inputs": [base64_of(png()), "broken", *[base64_of(jpeg())] * 100], "modality": "image"}
    seen: list[float] = []
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{url}/embed", json=body, headers={"accept": "application/x-ndjson"}) as answer,
    ):
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            seen.append(time.monotonic())
    assert len(lines) == 102
    assert sum("error" in line for line in lines) == 1
    assert len(set(seen)) > 1
    assert answer.headers["transfer-encoding"] == "chunked"


def test_an_engine_that_is_killed_costs_no_request(url: str) -> None:
    with Load(url, connections=4) as load:
        load.wait_for(4)
        _engine(_replicas()[0]).kill()
        load.wait_for(4)
    assert set(load.answers) == {200}


def test_one_replica_becomes_three_and_one_again(url: str, far: str) -> None:
    assert len(_replicas()) == 1
    with Load(url, connections=1, picture=far) as light:
        with Load(url, connections=3 * INPUTS_PER_REPLICA, picture=far) as heavy:
            _wait(lambda: _running() == 3, "three replicas")
            heavy.wait_for(50)
        _wait(lambda: len(_replicas()) == 1, "one replica")
        light.wait_for(10)
    assert set(light.answers) == set(heavy.answers) == {200}


def test_a_replica_that_is_killed_is_replaced(url: str) -> None:
    replica = _replicas()[0]
    engine = _engine(replica)
    replica.kill()
    psutil.wait_procs([engine], timeout=30)
    assert not engine.is_running()  # it doesn't outlive the replica
    _wait(lambda: _replicas() != [] and _replicas()[0].pid != replica.pid, "another replica")
    answer = httpx.post(f"{url}/m/minilm/embed", json={"inputs": TEXTS}, timeout=PATIENCE_S)
    assert answer.status_code == 200  # it has waited for the replica


class Load:
    """Connections that send one picture after the other while the block runs."""

    def __init__(self, url: str, connections: int, picture: str = "") -> None:
        self.answers: Counter[int] = Counter()
        """Status → how many."""
        self._url = url
        self._picture = picture or base64_of(png())
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(connections)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        wanted = self.answers.total() + more
        _wait(lambda: self.answers.total() >= wanted, f"{more} answers")

    def _send(self) -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not self._stop.is_set():
                body = {"inputs": [self._picture], "modality": "image"}
                self.answers[client.post(f"{self._url}/embed", json=body).status_code] += 1


def _replicas() -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if _title(each).startswith("ray::ServeReplica:iei:iei")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def _engine(replica: psutil.Process) -> psutil.Process:
    return next(each for each in replica.children(recursive=True) if "iei.engine.process" in _title(each))


def _running() -> int:
    from ray import serve

    return int(serve.status().applications["iei"].deployments["iei"].replica_states.get("RUNNING", 0))


def _wait(until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline, f"there was no {what} within {PATIENCE_S:g} s"
        time.sleep(0.1)
