"""KServe V2 over gRPC with the clients of Triton and KServe."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
import pytest

from iei.engine.inprocess import InProcessEngine
from iei.grpc.port import reserve
from iei.settings import read_settings
from tests.apps import app_with_grpc
from tests.engine.runtimes_for_tests import KnownRuntime
from tests.pictures import base64_of, data_uri, jpeg
from tests.servers import ROOT, Server, ServerDied, serve, until

FILES = [jpeg(name="chelsea"), jpeg(name="coffee")]
TEXTS = ["a cat", "eine Tasse Kaffee ☕"]
TOO_LONG = "word " * 1000


@pytest.fixture(scope="module")
def triton() -> Any:
    return pytest.importorskip("tritonclient.grpc", reason="needs the clients group: uv sync --group clients")


@pytest.fixture(scope="module")
def kserve_python() -> str:
    """The interpreter of an environment with the package kserve, whose requirements contradict ours."""
    python = os.environ.get("TEST_KSERVE_PYTHON")
    if not python:
        pytest.skip(
            "needs kserve: UV_PROJECT_ENVIRONMENT=.venv-kserve uv sync --only-group clients-kserve, "
            "and TEST_KSERVE_PYTHON=.venv-kserve/bin/python"
        )
    return python


@pytest.fixture(scope="module")
def server(text_models: dict[str, str]) -> Iterator[Server]:
    """`clip`, tiny, for texts and pictures (the default), and `minilm`, on two workers with a gRPC port."""
    pytest.importorskip("grpc", reason="needs the clients group: uv sync --group clients")
    with serve({**text_models, "IEI_GRPC_BIND": "127.0.0.1:0", "IEI_MAX_BODY_BYTES": "10000000"}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server, triton: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


def tensor(triton: Any, name: str, elements: Sequence[str | bytes]) -> Any:
    tensor = triton.InferInput(name, [len(elements)], "BYTES")
    tensor.set_data_from_numpy(np.array(elements, object))
    return tensor


def over_http(server: Server, model: str, name: str, elements: Sequence[str], pooling: str = "") -> np.ndarray:
    """The vectors of the same tensors in JSON."""
    inputs = [{"name": name, "shape": [len(elements)], "datatype": "BYTES", "data": elements}]
    if pooling:
        inputs.append({"name": "pooling_strategy", "shape": [1], "datatype": "BYTES", "data": [pooling]})
    request = {"inputs": inputs, "outputs": [{"name": "embedding"}]}
    (output,) = httpx.post(f"{server.url}/v2/models/{model}/infer", json=request, timeout=60).json()["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("minilm")
    assert client.is_model_ready("minilm", "1")
    assert client.get_server_metadata(as_json=True)["name"] == "iei"
    metadata = client.get_model_metadata("clip", as_json=True)
    assert (metadata["name"], metadata["versions"]) == ("clip", ["1"])
    assert {"name": "image", "datatype": "BYTES", "shape": ["-1"]} in metadata["inputs"]
    assert {"name": "embedding", "datatype": "FP32", "shape": ["-1", "-1"]} in metadata["outputs"]


def test_kubernetes_health_check(server: Server, triton: Any) -> None:
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"  # SERVING


def test_vectors_are_those_of_http(client: Any, server: Server, triton: Any) -> None:
    given: list[tuple[str, str, Sequence[Any], list[str]]] = [
        ("clip", "image", FILES, [base64_of(file) for file in FILES]),
        ("clip", "image", [data_uri(FILES[0]), base64_of(FILES[1])], [base64_of(file) for file in FILES]),
        ("clip", "text", TEXTS, TEXTS),
        ("minilm", "text", TEXTS, TEXTS),
        ("minilm", "input_text", TEXTS, TEXTS),
    ]
    for model, name, elements, as_json in given:
        result = client.infer(model, [tensor(triton, name, elements)], request_id="7")
        expected = over_http(server, model, name, as_json)
        np.testing.assert_allclose(result.as_numpy("embedding"), expected, atol=1e-5, rtol=0)
        assert result.get_response().id == "7"
        packed = client.infer(model, [tensor(triton, name, elements)], compression_algorithm="gzip")
        np.testing.assert_allclose(packed.as_numpy("embedding"), expected, atol=1e-5, rtol=0)
    embedded = httpx.post(f"{server.url}/embed", json={"inputs": [data_uri(file) for file in FILES]}, timeout=60).json()
    images = client.infer("clip", [tensor(triton, "image", FILES)]).as_numpy("embedding")
    np.testing.assert_allclose(images, embedded, atol=1e-5, rtol=0)


def test_outputs_and_options(client: Any, server: Server, triton: Any) -> None:
    inputs = [
        tensor(triton, "text", TEXTS),
        tensor(triton, "pooling_strategy", ["max"]),
        tensor(triton, "normalize", ["true"]),
        tensor(triton, "include_raw", ["true"]),
    ]
    result = client.infer("minilm", inputs, outputs=[triton.InferRequestedOutput("output")])
    content = json.loads(result.as_numpy("output")[0])
    raw = result.as_numpy("raw_embeddings")
    np.testing.assert_allclose(content["embeddings"], raw, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-6)
    expected = over_http(server, "minilm", "text", TEXTS, "max")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(raw, expected, atol=1e-5, rtol=0)


def test_the_asyncio_client(server: Server, triton: Any) -> None:
    from tritonclient.grpc.aio import InferenceServerClient

    async def scenario() -> list[np.ndarray]:
        async with InferenceServerClient(server.grpc) as client:
            inputs = [tensor(triton, "image", FILES)]
            results = await asyncio.gather(*(client.infer("clip", inputs) for _ in range(16)))
            return [result.as_numpy("embedding") for result in results]

    expected = over_http(server, "clip", "image", [base64_of(file) for file in FILES])
    for vectors in asyncio.run(scenario()):
        np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)


def test_errors_are_the_clients_exception(client: Any, triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    def refused(call: Callable[[], object], code: str, message: str) -> None:
        with pytest.raises(InferenceServerException, match=message) as failure:
            call()
        assert failure.value.status() == f"StatusCode.{code}"

    image, text = tensor(triton, "image", FILES), tensor(triton, "text", [TOO_LONG, "short"])
    refused(lambda: client.infer("other", [image]), "NOT_FOUND", "'other' is not served here; served: clip, minilm")
    refused(lambda: client.infer("clip", [image], model_version="2"), "NOT_FOUND", "only version 1, not '2'")
    refused(lambda: client.is_model_ready("other"), "NOT_FOUND", "'other' is not served here")
    refused(lambda: client.infer("minilm", [text]), "INVALID_ARGUMENT", r"text\[0\]: .*tokens")
    bad = tensor(triton, "image", [FILES[0], b"\xff\xd8\xff\0 no picture"])
    refused(lambda: client.infer("clip", [bad]), "INVALID_ARGUMENT", r"image\[1\]: ")
    large = tensor(triton, "image", [bytes(10_000_000)])
    refused(lambda: client.infer("clip", [large]), "RESOURCE_EXHAUSTED", "larger than max")
    packed = lambda: client.infer("clip", [large], compression_algorithm="gzip")  # noqa: E731
    refused(packed, "RESOURCE_EXHAUSTED", "larger than max")
    refused(lambda: client.infer("clip", [image], client_timeout=0.001), "DEADLINE_EXCEEDED", "Deadline Exceeded")
    for method in (
        lambda: client.get_model_config("clip"),
        client.get_model_repository_index,
        client.get_inference_statistics,
        client.get_system_shared_memory_status,
    ):
        refused(method, "UNIMPLEMENTED", "not found")


KSERVE = Path(__file__).with_name("kserve_grpc_client.py")
"""Run by the interpreter that has kserve."""


def kserve_answers(
    python: str, address: str, calls: list[dict[str, Any]], certificate: str = ""
) -> list[dict[str, Any]]:
    done = subprocess.run(
        [python, str(KSERVE), address, certificate],
        input=json.dumps(calls),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_kserves_own_client(server: Server, kserve_python: str) -> None:
    calls: list[dict[str, Any]] = [
        {"model": "clip", "name": "image", "data": [base64_of(file) for file in FILES]},
        {"model": "clip", "name": "image", "data": [base64_of(file) for file in FILES], "raw": True},
        {"model": "minilm", "name": "text", "data": TEXTS},
        {"model": "other", "name": "text", "data": TEXTS},
        {"model": "clip", "name": "image", "data": ["no picture"]},
        {"model": "minilm", "name": "text", "data": [TOO_LONG]},
    ]
    state, *answers = kserve_answers(kserve_python, server.grpc, calls)
    assert state == {"live": True, "ready": True}
    for call, answer in zip(calls[:3], answers, strict=False):
        expected = over_http(server, call["model"], call["name"], call["data"])
        np.testing.assert_allclose(np.array(answer["vectors"]), expected, atol=1e-5, rtol=0)
    unknown, bad, long = answers[3:]
    assert unknown == {"code": "NOT_FOUND", "details": "model 'other' is not served here; served: clip, minilm"}
    assert bad["code"] == "INVALID_ARGUMENT"
    assert bad["details"].startswith("image[0]: ")
    assert long["code"] == "INVALID_ARGUMENT"
    assert "tokens" in long["details"]


# the server around it


def grpc_libraries(process: psutil.Process) -> set[str]:
    return {Path(each.path).name for each in process.memory_maps() if "/grpc/_cython/" in each.path}


def listening(process: psutil.Process) -> set[int]:
    return {each.laddr.port for each in process.net_connections() if each.status == psutil.CONN_LISTEN}


def test_only_workers_have_grpcio_and_all_of_them_listen(server: Server) -> None:
    """The process that forks them must not have started it."""
    port = int(server.grpc.rpartition(":")[2])
    for worker in server.all_workers(2):
        until(lambda: port in listening(worker))  # noqa: B023 - called in this turn
        assert grpc_libraries(worker)
    assert not grpc_libraries(psutil.Process(server.process.pid))


def test_a_killed_worker_is_replaced(server: Server, triton: Any) -> None:
    killed = server.workers()[0]
    killed.kill()
    killed.wait(20)
    expected = over_http(server, "minilm", "text", TEXTS)
    with triton.InferenceServerClient(server.grpc) as client:
        vectors = client.infer("minilm", [tensor(triton, "text", TEXTS)]).as_numpy("embedding")
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)


class Guarded(NamedTuple):
    """A worker with TLS and API keys, in a thread of this process."""

    grpc: str
    expected: list[list[float]]
    """What /embed answers of FILES[:1] with a key."""


@pytest.fixture(scope="module")
def guarded(certificate: Path) -> Iterator[Guarded]:
    pytest.importorskip("grpc", reason="needs the clients group: uv sync --group clients")
    settings = {
        "grpc_bind": "127.0.0.1:0",
        "tls_cert": certificate / "cert.pem",
        "tls_key": certificate / "key.pem",
        "api_keys": "quick=secret, limited=slow inputs_per_s=0.02",
    }
    port = reserve(read_settings(**settings))
    assert port
    app = app_with_grpc(InProcessEngine(KnownRuntime()), port, **settings)
    ready: Future[list[list[float]]] = Future()
    stop = asyncio.Event()

    async def worker() -> None:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://iei")
        async with app.router.lifespan_context(app), http:
            body = {"inputs": [base64_of(FILES[0])]}
            answer = await http.post("/embed", json=body, headers={"x-api-key": "secret"})
            ready.set_result(answer.json())
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(worker()), daemon=True)
    thread.start()
    with closing(port):
        yield Guarded(port.address, ready.result(60))
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


def test_keys_and_tls_are_those_of_http(guarded: Guarded, certificate: Path, triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    image = tensor(triton, "image", FILES[:1])
    root = str(certificate / "cert.pem")
    with triton.InferenceServerClient(guarded.grpc, ssl=True, root_certificates=root) as client:
        assert client.is_server_ready()
        vectors = client.infer("known", [image], headers={"authorization": "Bearer secret"}).as_numpy("embedding")
        np.testing.assert_allclose(vectors, guarded.expected, atol=1e-5, rtol=0)
        with pytest.raises(InferenceServerException, match="needs an API key") as missing:
            client.infer("known", [image])
        assert missing.value.status() == "StatusCode.UNAUTHENTICATED"
        client.infer("known", [image], headers={"x-api-key": "slow"})
        with pytest.raises(InferenceServerException, match="inputs a second") as limited:
            client.infer("known", [image], headers={"x-api-key": "slow"})
        assert limited.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    with triton.InferenceServerClient(guarded.grpc) as plain, pytest.raises(InferenceServerException):
        plain.is_server_live(client_timeout=5)


def test_kserves_own_client_with_a_key_over_tls(guarded: Guarded, certificate: Path, kserve_python: str) -> None:
    call = {"model": "known", "name": "image", "data": [base64_of(FILES[0])]}
    keyed = call | {"headers": [["authorization", "Bearer secret"]]}
    _, right, wrong = kserve_answers(kserve_python, guarded.grpc, [keyed, call], str(certificate / "cert.pem"))
    np.testing.assert_allclose(right["vectors"], guarded.expected, atol=1e-5, rtol=0)
    assert wrong["code"] == "UNAUTHENTICATED"
    assert "needs an API key" in wrong["details"]


def test_iei_serve_has_it_too_and_says_where(demo_cache: str, triton: Any) -> None:
    env = {"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache, "IEI_WORKERS": "2"}
    command = ["python", "-m", "iei", "serve", "--grpc-bind", "127.0.0.1:0"]
    with serve(env, command=command) as server:
        assert f"grpc://{server.grpc}" in server.log  # in the summary
        with triton.InferenceServerClient(server.grpc) as client:
            vectors = client.infer("demo", [tensor(triton, "image", FILES)]).as_numpy("embedding")
        np.testing.assert_allclose(
            vectors, over_http(server, "demo", "image", [base64_of(file) for file in FILES]), atol=1e-5, rtol=0
        )
        in_use = rf"iei: can't listen on {server.grpc} \(IEI_GRPC_BIND\): .* in use"
        second = {**env, "IEI_GRPC_BIND": server.grpc}
        with pytest.raises(ServerDied, match=in_use) as died, serve(second, workers=1):
            pass
        assert "is loaded" not in str(died.value)
