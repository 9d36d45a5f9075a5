"""API keys and their limits on real servers: what only shows where there are processes and sockets."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient.utils import InferenceServerException

from tests import pictures
from tests.servers import Server, gunicorn_command, serve, until

PATHS: dict[str, dict[str, Any]] = {
    "/embed": {"inputs": ["a cat"]},
    "/v1/embeddings": {"model": "clip", "input": ["a cat"]},
    "/v2/models/clip/infer": {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a cat"]}]},
    "/v2/embed": {"texts": ["a cat"]},
    "/v1/multimodalembeddings": {"inputs": [{"content": [{"type": "text", "text": "a cat"}]}]},
}
"""A route of each dialect that takes texts, and a body for it."""


@pytest.mark.parametrize("path", PATHS)
def test_a_key_opens_every_dialect(keyed_server: Server, path: str) -> None:
    url = keyed_server.url + path
    refused = httpx.post(url, json=PATHS[path], headers={"authorization": "Bearer guessed"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.post(url, json=PATHS[path]).status_code == 401
    for headers in ({"authorization": "Bearer secret"}, {"x-api-key": "secret"}, {"api-key": "secret"}):
        answer = httpx.post(url, json=PATHS[path], headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text


def test_a_slow_key_is_told_when_to_come_again(keyed_server: Server) -> None:
    headers = {"authorization": "Bearer slow"}
    body = PATHS["/embed"]
    answers = [httpx.post(f"{keyed_server.url}/embed", json=body, headers=headers, timeout=60) for _ in range(2)]
    assert answers[1].status_code == 429
    assert 1 <= int(answers[1].headers["retry-after"]) <= 50
    assert "0.02 inputs a second (inputs_per_s)" in answers[1].json()["error"]


def test_openais_client_raises_what_it_has_for_this(keyed_server: Server) -> None:
    def embed(key: str) -> list[float]:
        with openai.OpenAI(api_key=key, base_url=f"{keyed_server.url}/v1", max_retries=0) as client:
            return client.embeddings.create(model="clip", input=["a cat"]).data[0].embedding

    assert embed("secret")
    with pytest.raises(openai.AuthenticationError, match="is not one of this server's"):
        embed("wrong")
    with pytest.raises(openai.RateLimitError, match="inputs a second"):  # noqa: PT012 - the first may be allowed
        embed("slow")
        embed("slow")


def test_huggingfaces_client_sends_a_key(keyed_server: Server) -> None:
    url = f"{keyed_server.url}/embed"
    assert InferenceClient(url, token="secret").feature_extraction("a cat").shape[0] == 1
    with pytest.raises(HfHubHTTPError, match="401"):
        InferenceClient(url, token="wrong").feature_extraction("a cat")


def test_tritons_client_sends_a_key(keyed_server: Server) -> None:
    client = triton.InferenceServerClient(keyed_server.url.removeprefix("http://"))
    try:
        assert client.is_server_ready()
        assert client.get_model_metadata("clip", headers={"authorization": "Bearer secret"})["name"] == "clip"
        with pytest.raises(InferenceServerException, match="needs an API key"):
            client.get_model_metadata("clip")
    finally:
        client.close()


def test_a_large_upload_without_a_key_is_refused_and_can_read_why(keyed_server: Server) -> None:
    """Its body is not read: the client must still get the answer, and not a connection that breaks."""
    with httpx.Client(base_url=keyed_server.url, timeout=60) as client:
        for _ in range(3):
            refused = client.post("/embed", content=bytes(30 * 2**20), headers={"x-api-key": "wrong"})
            assert (refused.status_code, refused.json()["error_type"]) == (401, "Unauthorized")


# several workers, and a file that changes

BODY = {"inputs": [pictures.base64_of(pictures.png(8, 8))]}
FOUR = {"inputs": BODY["inputs"] * 4}
KEYS = """\
# of this test
steady=kEy-steady
seldom=kEy-seldom inputs_per_s=0.001
four=kEy-four inputs_at_once=4
"""


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEYS)
    return file


@pytest.fixture(scope="module")
def server(keys_file: Path, demo_cache: str) -> Iterator[Server]:
    """Two workers, whose keys are in a file."""
    env = {"IEI_API_KEYS_FILE": str(keys_file), "IEI_CACHE_DIR": demo_cache, "IEI_LOG_LEVEL": "debug"}
    # A worker that a test has stopped must not be taken for one that hangs.
    command = [*gunicorn_command(2, "uvicorn.workers.UvicornWorker"), "--timeout", "240"]
    with serve({"IMAGE_EMBEDDING_MODEL": "demo", **env}, command=command) as server:
        yield server
        assert "kEy-" not in server.log
        for process in server.processes():
            assert "kEy-" not in " ".join(process.cmdline())


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as clients:
        yield clients


def post(server: Server, key: str, body: Any = BODY) -> httpx.Response:
    """Over a connection of its own, which any worker may accept."""
    return httpx.post(f"{server.url}/embed", json=body, headers={"x-api-key": key}, timeout=60)


def status(server: Server, key: str) -> int:
    return httpx.get(f"{server.url}/v1/models", headers={"x-api-key": key}).status_code


def test_a_limit_per_second_is_one_for_both_workers(server: Server) -> None:
    first, second = server.workers()
    first.suspend()
    try:
        assert post(server, "kEy-seldom").status_code == 200, "by the second worker, as the first is stopped"
    finally:
        first.resume()
    second.suspend()
    try:
        refused = post(server, "kEy-seldom")
    finally:
        second.resume()
    assert refused.status_code == 429
    assert 900 < int(refused.headers["retry-after"]) <= 1000


def test_what_a_killed_worker_had_in_work_is_given_back(server: Server, clients: ThreadPoolExecutor) -> None:
    (engine,) = server.running("iei.engine.process")
    first, second = server.workers()
    first.suspend()
    engine.suspend()  # nothing is answered now
    try:
        lost = clients.submit(post, server, "kEy-four", FOUR)
        while not _is_refused(server):
            if lost.done():  # it was refused itself, because it came while we asked
                lost = clients.submit(post, server, "kEy-four", FOUR)
        first.resume()
        second.suspend()
        assert _is_refused(server), "by the first worker"
        second.kill()
        with pytest.raises(httpx.TransportError):
            lost.result(30)
    finally:
        first.resume()
        engine.resume()
    assert post(server, "kEy-four", FOUR).status_code == 200
    server.all_workers(2)
    for _ in range(8):
        assert post(server, "kEy-four", FOUR).status_code == 200


def _is_refused(server: Server) -> bool:
    """Whether `four` has its four inputs in work already. What is asked needs no engine: it is bad."""
    status = post(server, "kEy-four", {"inputs": ["%"]}).status_code
    assert status in (400, 429)
    return status == 429


def test_a_file_that_changes_is_read_by_all_workers_and_a_broken_one_by_none(server: Server, keys_file: Path) -> None:
    assert (status(server, "kEy-steady"), status(server, "kEy-new")) == (200, 401)
    keys_file.write_text("fresh=kEy-new\n")
    until(lambda: {status(server, "kEy-new") for _ in range(10)} == {200})
    until(lambda: {status(server, "kEy-steady") for _ in range(10)} == {401})
    keys_file.write_text("fresh=kEy-new kEy-newer\n")
    until(lambda: bool(status(server, "kEy-new")) and "'fresh': after a key there may be" in server.log)
    assert {status(server, "kEy-new") for _ in range(10)} == {200}
    keys_file.write_text(KEYS)
    until(lambda: {status(server, "kEy-steady") for _ in range(10)} == {200})
