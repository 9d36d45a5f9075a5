"""The gRPC server of a worker, with an engine whose answers are known and callers that know no service."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import warnings
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from iei.engine.inprocess import InProcessEngine
from iei.errors import StartupError
from iei.grpc.port import GrpcPort, reserve
from iei.models.spec import ModelSpec
from iei.priority import Priority
from iei.settings import read_settings
from tests import pictures
from tests.apps import app_with_grpc
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime
from tests.engine.waiting import LIMIT_S, until
from tests.engine.watching import WatchingEngine

REASON = "needs the extra grpc: uv sync --extra grpc (the group clients has it, too)"
pytest.importorskip("google.protobuf", reason=REASON)
grpc = pytest.importorskip("grpc", reason=REASON)
from iei.grpc.messages import decode, encode  # noqa: E402 - after the check that it can be imported

PHOTO = pictures.png(8, 8)
INFER = "/inference.GRPCInferenceService/ModelInfer"
HEALTH = "/grpc.health.v1.Health/Check"


class Caller:
    """Calls methods with messages that it is given as bytes."""

    def __init__(self, channel: Any, app: FastAPI) -> None:
        self._channel = channel
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://iei")
        """A client of the same app's HTTP."""

    def call(self, path: str, content: bytes, **options: Any) -> Any:
        return self._channel.unary_unary(path)(content, timeout=options.pop("timeout", LIMIT_S), **options)

    async def refused(self, path: str, content: bytes, **options: Any) -> Any:
        """The error of a call that must fail."""
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await self.call(path, content, **options)
        return failure.value


@asynccontextmanager
async def caller_of(runtime: KnownRuntime | None = None, **settings: Any) -> AsyncIterator[Caller]:
    async with caller_around(InProcessEngine(runtime or KnownRuntime()), **settings) as caller:
        yield caller


@asynccontextmanager
async def caller_around(engine: InProcessEngine, **settings: Any) -> AsyncIterator[Caller]:
    with reserved() as port:
        app = app_with_grpc(engine, port, **settings)
        async with app.router.lifespan_context(app), grpc.aio.insecure_channel(port.address) as channel:
            yield Caller(channel, app)


@contextmanager
def reserved() -> Iterator[GrpcPort]:
    port = reserve(read_settings(grpc_bind="127.0.0.1:0"))
    assert port
    with closing(port):
        yield port


def images(*files: bytes, **fields: Any) -> bytes:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files)], "contents": {"bytes_contents": files}}
    return encode("ModelInferRequest", {"model_name": SPEC.name, "inputs": [tensor], **fields})


def test_vectors_timings_and_ids() -> None:
    async def scenario() -> None:
        async with caller_of() as caller:
            call = caller.call(INFER, images(PHOTO, PHOTO, id="seven"), metadata=[("x-request-id", "request-7")])
            response = decode("ModelInferResponse", await call, 100)
            assert (response.model_name, response.model_version, response.id) == (SPEC.name, "1", "seven")
            (output,) = response.outputs
            assert (output.name, output.datatype, list(output.shape)) == ("embedding", "FP32", [2, 3])
            assert np.isfinite(np.frombuffer(response.raw_output_contents[0], "<f4")).all()
            trailing = dict(await call.trailing_metadata())
            assert trailing["x-request-id"] == "request-7"
            assert float(trailing["x-inference-time"]) >= 0

    asyncio.run(scenario())


def test_partial_answers() -> None:
    async def scenario() -> None:
        async with caller_of() as caller:
            wanted = [{"key": "on_error", "value": {"string_param": "null"}}]
            request = images(PHOTO, b"\0", PHOTO, parameters=wanted, outputs=[{"name": "output"}])
            call = caller.call(INFER, request)
            response = decode("ModelInferResponse", await call, 100)
            answer = json.loads(response.raw_output_contents[0][4:])
            assert [vector is None for vector in answer["embeddings"]] == [False, True, False]
            assert answer["errors"][0]["index"] == 1
            assert dict(await call.trailing_metadata())["x-iei-failed"] == "1"
            numbers = images(PHOTO, b"\0", parameters=wanted)
            assert "has no null" in (await refused(caller, numbers))
            unknown = images(PHOTO, parameters=[{"key": "on_error", "value": {"string_param": "skip"}}])
            assert "parameters.on_error: must be fail or null" in (await refused(caller, unknown))

    async def refused(caller: Caller, request: bytes) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await caller.call(INFER, request)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        return error.value.details() or ""

    asyncio.run(scenario())


def test_calls_are_counted_like_requests() -> None:
    async def scenario() -> None:
        async with caller_of(api_keys="alice=right") as caller:
            await caller.call(INFER, images(PHOTO, PHOTO), metadata=[("x-api-key", "right")])
            await caller.refused(INFER, images(PHOTO))
            text = (await caller.http.get("/metrics", headers={"x-api-key": "right"})).text
            counted = f'iei_requests_total{{method="POST",model="%s",route="{INFER}",status="%d"}} 1.0'
            assert counted % (SPEC.name, 200) in text
            assert counted % ("", 401) in text
            assert 'iei_key_inputs_total{key="alice",modality="image"} 2.0' in text
            assert 'iei_rejections_total{reason="unauthorized",status="401"} 1.0' in text

    asyncio.run(scenario())


def test_health_is_that_of_the_engine() -> None:
    class Starting(InProcessEngine):
        is_there = True

        @property
        def ready(self) -> bool:
            return self.is_there and super().ready

    async def scenario() -> None:
        engine = Starting(KnownRuntime())
        async with caller_around(engine) as caller:
            for service in ("", "inference.GRPCInferenceService", "grpc.health.v1.Health"):
                asked = encode("HealthCheckRequest", {"service": service})
                engine.is_there = True
                assert decode("HealthCheckResponse", await caller.call(HEALTH, asked), 10).status == 1
                engine.is_there = False
                assert decode("HealthCheckResponse", await caller.call(HEALTH, asked), 10).status == 2
            ready = await caller.call("/inference.GRPCInferenceService/ServerReady", b"")
            assert not decode("ServerReadyResponse", ready, 10).ready
            live = await caller.call("/inference.GRPCInferenceService/ServerLive", b"")
            assert decode("ServerLiveResponse", live, 10).live
            other = await caller.refused(HEALTH, encode("HealthCheckRequest", {"service": "other"}))
            assert other.code() == grpc.StatusCode.NOT_FOUND

    asyncio.run(scenario())


TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1]}
FLAG = {"name": "normalize", "datatype": "BOOL", "shape": [1]}
RAW = b"\4\0\0\0" + b"abcd"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": [TENSOR]}, "image: its elements must be either in `contents` or"),
        ({"inputs": [TENSOR | {"contents": {}}]}, "image: bytes_contents has 0 elements, not the 1 of its shape"),
        ({"inputs": [TENSOR | {"contents": {}}], "raw_input_contents": [RAW]}, "image: its elements must be either in"),
        ({"inputs": [TENSOR, FLAG], "raw_input_contents": [RAW]}, "has 1 tensors, but there are 2 inputs"),
        ({"inputs": [TENSOR], "raw_input_contents": [RAW + b"x"]}, "image: the tensor has 9 bytes, which are not"),
        ({"inputs": [TENSOR, TENSOR], "raw_input_contents": [RAW, RAW]}, "there are two tensors 'image'"),
        ({"inputs": [TENSOR | {"datatype": "FP32"}], "raw_input_contents": [RAW]}, "must be one of BYTES, BOOL"),
        ({"inputs": [TENSOR | {"shape": [-1, -1]}], "raw_input_contents": [RAW]}, "none that is negative"),
        ({"inputs": [TENSOR | {"shape": [1] * 9}], "raw_input_contents": [RAW]}, "at most 8 dimensions"),
        ({"inputs": [TENSOR | {"shape": [2**40]}], "raw_input_contents": [RAW]}, "over the limit of 1024"),
        ({"inputs": [TENSOR], "raw_input_contents": [RAW]}, "image[0]: "),
        ({"inputs": [TENSOR], "raw_input_contents": [RAW], "outputs": [{"name": "x"}]}, "outputs: there is no x"),
        ({"inputs": []}, "must have exactly one of the tensors `image`, `text`"),
    ],
)
def test_a_bad_request_says_what_is_wrong(fields: dict[str, Any], message: str) -> None:
    async def scenario() -> None:
        async with caller_of() as caller:
            request = encode("ModelInferRequest", {"model_name": SPEC.name, **fields})
            refused = await caller.refused(INFER, request)
            assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert message in refused.details()

    asyncio.run(scenario())


def test_options_are_tensors_of_either_datatype() -> None:
    async def scenario() -> None:
        async with caller_of() as caller:
            flag = FLAG | {"contents": {"bool_contents": [True]}}
            word = FLAG | {"datatype": "BYTES", "contents": {"bytes_contents": [b"True"]}}
            image = TENSOR | {"contents": {"bytes_contents": [PHOTO]}}
            for option in (flag, word):
                request = encode("ModelInferRequest", {"model_name": SPEC.name, "inputs": [image, option]})
                response = decode("ModelInferResponse", await caller.call(INFER, request), 100)
                vector = np.frombuffer(response.raw_output_contents[0], "<f4")
                assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    asyncio.run(scenario())


def test_errors_have_the_code_of_their_cause() -> None:
    async def scenario() -> None:
        async with caller_of(max_body_bytes=100_000) as caller:
            garbage = await caller.refused(INFER, b"\x0a")
            assert garbage.code() == grpc.StatusCode.INVALID_ARGUMENT
            many = await caller.refused(INFER, b"\x2a\0" * 40_000)
            assert many.code() == grpc.StatusCode.INVALID_ARGUMENT
            unknown = await caller.refused(INFER, images(PHOTO, model_name="other"))
            assert unknown.code() == grpc.StatusCode.NOT_FOUND
            version = await caller.refused(INFER, images(PHOTO, model_version="2"))
            assert version.code() == grpc.StatusCode.NOT_FOUND
            large = await caller.refused(INFER, images(bytes(100_001)))
            assert large.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            bomb = await caller.refused(INFER, images(bytes(30_000_000)), compression=grpc.Compression.Gzip)
            assert bomb.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            missing = await caller.refused("/inference.GRPCInferenceService/ModelConfig", b"")
            assert missing.code() == grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scenario())


def test_a_message_about_very_many_inputs_fits_in_what_clients_take() -> None:
    async def scenario() -> None:
        async with caller_of() as caller:
            refused = await caller.refused(INFER, images(*["€".encode() * 9] * 1000))
            assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert refused.details().startswith("image[0]: ")
            assert refused.details().endswith(" …")

    asyncio.run(scenario())


def test_too_much_work_is_refused_with_the_time_to_try_again() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        runtime.go.clear()
        async with caller_of(runtime, max_queue=3) as caller:
            waiting = caller.call(INFER, images(PHOTO, PHOTO, PHOTO))
            await until(runtime.busy.is_set)
            refused = await caller.refused(INFER, images(PHOTO))
            assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert int(dict(refused.trailing_metadata())["retry-after"]) >= 1
            runtime.go.set()
            assert await waiting

    asyncio.run(scenario())


@pytest.mark.parametrize(("cause", "code"), [("deadline", "DEADLINE_EXCEEDED"), ("cancel", "CANCELLED")])
def test_a_call_that_nobody_waits_for_is_not_computed(cause: str, code: str) -> None:
    """Its inputs are given up, so that there is room for others; those that have not begun do not reach the model."""

    async def scenario() -> None:
        runtime = KnownRuntime()
        runtime.go.clear()
        async with caller_of(runtime, max_queue=8) as caller:
            first = asyncio.ensure_future(caller.call(INFER, images(PHOTO)))
            await until(runtime.busy.is_set)
            call = caller.call(INFER, images(*[PHOTO] * 7), timeout=3 if cause == "deadline" else LIMIT_S)
            await _until_in_work(caller, 8)
            if cause == "cancel":
                call.cancel()
            await _until_in_work(caller, 1)
            runtime.go.set()
            assert await first
            assert await call.code() == getattr(grpc.StatusCode, code)
            assert await caller.call(INFER, images(PHOTO))
        assert sum(runtime.batches) == 2

    asyncio.run(scenario())


async def _until_in_work(caller: Caller, count: int) -> None:
    """Waits until the worker says, when it refuses eight more, that it has so many inputs in work."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            refused = await caller.refused(INFER, images(*[PHOTO] * 8))
            if refused.details().startswith(f"{count} inputs are in work already"):
                return


async def _until_refused(caller: Caller) -> Any:
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                await caller.call("/inference.GRPCInferenceService/ServerLive", b"")
            except grpc.aio.AioRpcError as error:
                return error


def test_calls_in_work_finish_when_the_server_stops() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        runtime.go.clear()
        with reserved() as port:
            app = app_with_grpc(InProcessEngine(runtime), port)
            async with grpc.aio.insecure_channel(port.address) as channel:
                caller = Caller(channel, app)
                async with app.router.lifespan_context(app):
                    call = caller.call(INFER, images(PHOTO))
                    await until(runtime.busy.is_set)
                    late = asyncio.ensure_future(_until_refused(caller))
                    late.add_done_callback(lambda _: runtime.go.set())
                # The second where it reached the server in the moment in which the port was closed.
                assert (await late).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
                assert decode("ModelInferResponse", await call, 100).raw_output_contents

    asyncio.run(scenario())


def test_a_bug_is_answered_without_its_details_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(InProcessEngine):
        async def describe(self, model: str, *, deadline: float) -> ModelSpec:
            raise ZeroDivisionError("a bug")

    async def scenario() -> None:
        async with caller_around(Broken(KnownRuntime())) as caller:
            failed = await caller.refused(INFER, images(PHOTO), metadata=[("x-request-id", "request-7")])
            assert failed.code() == grpc.StatusCode.INTERNAL
            assert "a bug" not in failed.details()
            assert dict(failed.trailing_metadata())["x-request-id"] == "request-7"

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    (record,) = caplog.records
    assert "request-7" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_a_port_in_use_is_told_in_a_sentence() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another server of the same user does
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartupError, match=rf"can't listen on {bind} \(IEI_GRPC_BIND\): .*in use"):
            reserve(read_settings(grpc_bind=bind))


def test_a_reserved_port_is_in_use_for_others() -> None:
    with reserved() as first, pytest.raises(StartupError, match="in use"):
        reserve(read_settings(grpc_bind=first.address))


@pytest.mark.parametrize("bind", ["127.0.0.1:99999", "192.0.2.1:8001", "no.such.host.invalid:8001"])
def test_an_address_that_is_not_of_this_machine_is_told_in_a_sentence(bind: str) -> None:
    with pytest.raises(StartupError, match=r"can't listen on .* \(IEI_GRPC_BIND\): "):
        reserve(read_settings(grpc_bind=bind))


@pytest.mark.parametrize("bind", ["8001", "unix:/tmp/x", "::1:8001", "host:"])
def test_an_address_has_a_host_and_a_port(bind: str) -> None:
    with pytest.raises(StartupError, match="grpc-bind"):
        read_settings(grpc_bind=bind)


def test_without_grpcio_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.grpc.port.find_spec", lambda name: None)
    assert reserve(read_settings()) is None
    with pytest.raises(StartupError, match=r"pip install 'image-embedding-inference\[grpc\]'"):
        reserve(read_settings(grpc_bind="127.0.0.1:0"))


def test_priorities_are_those_of_http_with_metadata_as_headers() -> None:
    async def scenario() -> None:
        engine = WatchingEngine()
        async with caller_around(engine, api_keys="any=any, nightly=nightly priority=bulk") as caller:
            for key, metadata, priority in (
                ("any", {}, Priority.INTERACTIVE),
                ("any", {"x-iei-priority": "bulk"}, Priority.BULK),
                ("nightly", {"x-iei-priority": "interactive"}, Priority.BULK),
            ):
                await caller.call(INFER, images(PHOTO), metadata=[("x-api-key", key), *metadata.items()])
                assert engine.seen.pop() == engine.recorded.pop() == priority
            urgent = [("x-api-key", "any"), ("x-iei-priority", "urgent")]
            refused = await caller.refused(INFER, images(PHOTO), metadata=urgent)
            assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "X-IEI-Priority must be interactive or bulk" in refused.details()
        engine = WatchingEngine()
        async with caller_around(engine, bulk_routes="/inference.GRPCInferenceService") as caller:
            await caller.call(INFER, images(PHOTO))
            assert engine.seen.pop() is Priority.BULK

    run_with_quotas(scenario())


def test_a_call_needs_a_key_where_http_does_and_health_does_not() -> None:
    """And limits of a key hold over both ports together, as they are counted in one place."""

    async def scenario() -> None:
        async with caller_of(api_keys="quick=secret, limited=slow inputs_per_s=0.02") as caller:
            metadata = [("authorization", "Bearer wrong")]
            for options in ({}, {"metadata": metadata}):
                refused = await caller.refused(INFER, images(PHOTO), **options)
                assert refused.code() == grpc.StatusCode.UNAUTHENTICATED
            for method in ("ServerMetadata", "ModelReady", "ModelMetadata"):
                refused = await caller.refused(f"/inference.GRPCInferenceService/{method}", b"")
                assert refused.code() == grpc.StatusCode.UNAUTHENTICATED
            for method in (
                HEALTH,
                "/inference.GRPCInferenceService/ServerLive",
                "/inference.GRPCInferenceService/ServerReady",
            ):
                await caller.call(method, b"")
            for name, key in (("authorization", "Bearer secret"), ("x-api-key", "secret"), ("api-key", "secret")):
                assert await caller.call(INFER, images(PHOTO), metadata=[(name, key)])
            body = {"inputs": [pictures.base64_of(PHOTO)]}
            assert (await caller.http.post("/embed", json=body, headers={"x-api-key": "slow"})).status_code == 200
            limited = await caller.refused(INFER, images(PHOTO), metadata=[("x-api-key", "slow")])
            assert limited.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "inputs_per_s" in limited.details()
            assert int(dict(limited.trailing_metadata())["retry-after"]) > 1
            assert await caller.call(INFER, images(PHOTO), metadata=[("x-api-key", "secret")])

    run_with_quotas(scenario())


def run_with_quotas(scenario: Coroutine[Any, Any, None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the file of the quotas is for the life of a server
        asyncio.run(scenario)
        gc.collect()
