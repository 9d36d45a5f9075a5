"""Spans as a collector gets them, from the workers of a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from iei.settings import TraceSettings
from iei.telemetry import traces
from iei.telemetry.record import Record
from tests import pictures
from tests.engine.waiting import waited
from tests.servers import Server, serve

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")

PICTURE = pictures.base64_of(pictures.png(8, 8))
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, and keeps the spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.resources: list[dict[str, str]] = []
        self.spans: list[Any] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def of_trace(self, trace: str) -> list[Any]:
        return [span for span in self.spans if span.trace_id.hex() == trace]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert self.path == "/v1/traces"
        sent = ExportTraceServiceRequest()
        sent.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        for each in sent.resource_spans:
            self.server.resources.append({item.key: item.value.string_value for item in each.resource.attributes})
            for scope in each.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector
        collector.shutdown()


@pytest.fixture(scope="module")
def server(collector: Collector, demo_cache: str) -> Iterator[Server]:
    settings = {
        "IMAGE_EMBEDDING_MODEL": "demo",
        "IEI_CACHE_DIR": demo_cache,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_SERVICE_NAME": "pictures",
        "IEI_LOG_REQUESTS": "all",
        "IEI_LOG_FORMAT": "json",
    }
    with serve(settings, workers=1) as server:
        yield server


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def _root(collector: Collector, trace: str) -> Any:
    """The span of the request, which ends last: the others may have been sent before it."""
    (root,) = waited(lambda: [span for span in collector.of_trace(trace) if span.parent_span_id.hex() == PARENT])
    return root


@pytest.mark.server
def test_a_request_and_its_stages_belong_to_the_clients_trace(server: Server, collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {"inputs": [PICTURE] * 3}
    assert httpx.post(f"{server.url}/embed", json=body, headers=headers).status_code == 200
    root = _root(collector, TRACE)
    spans = collector.of_trace(TRACE)
    stages = {span.name: span for span in spans if span.parent_span_id == root.span_id}
    assert {"receive", "parse", "wait", "decode", "resize", "queue", "forward", "serialise"} == stages.keys()
    assert len(spans) == 1 + len(stages)
    assert root.name == "POST /embed"
    assert attributes(root).items() >= {"http.response.status_code": 200, "iei.inputs.image": 3}.items()
    for span in stages.values():
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    forward = attributes(stages["forward"])
    assert forward["iei.inputs"] == 3
    assert 1 <= forward["iei.batch.size"] <= 3
    assert forward["iei.engine.pid"] in {process.pid for process in server.processes()}
    assert {"service.name": "pictures"}.items() <= collector.resources[0].items()
    assert waited(lambda: f'"trace_id":"{TRACE}"' in server.log)


@pytest.mark.server
def test_a_trace_that_is_not_sampled_is_not_sent(server: Server, collector: Collector) -> None:
    for trace, flag in (("a" * 32, "00"), ("b" * 32, "01")):
        headers = {"traceparent": f"00-{trace}-{PARENT}-{flag}"}
        assert httpx.get(f"{server.url}/info", headers=headers).status_code == 200
    assert waited(lambda: collector.of_trace("b" * 32))
    assert not collector.of_trace("a" * 32)


@pytest.mark.server
def test_a_refusal_says_why_and_nothing_that_the_client_wrote(server: Server, collector: Collector) -> None:
    headers = {"traceparent": f"00-{'c' * 32}-{PARENT}-01"}
    body = {"inputs": "http://127.0.0.1/secret.png?token=secret"}
    assert httpx.post(f"{server.url}/embed?secret=1", json=body, headers=headers).status_code == 400
    root = _root(collector, "c" * 32)
    assert attributes(root)["error.type"] == "InvalidInputs"
    assert "secret" not in str(collector.spans)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, None),
        ({"otlp_endpoint": "http://one:4318/"}, "http://one:4318/v1/traces"),
        ({"otlp_endpoint": "http://one:4318", "otlp_traces_endpoint": "http://two/x"}, "http://two/x"),
        ({"otlp_endpoint": "http://one:4318", "otel_disabled": True}, None),
    ],
)
def test_where_traces_go(given: dict[str, Any], url: str | None) -> None:
    assert TraceSettings(**given).collector == url


def test_without_the_extra_the_server_says_so_and_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert traces.read_traces(TraceSettings(otlp_endpoint="http://one:4318")) is None
    assert "[otel]" in caplog.text


def test_a_collector_that_is_gone_keeps_no_worker_from_ending() -> None:
    sender = traces.Traces("http://127.0.0.1:9/v1/traces")
    sender.start()
    record = Record(method="POST", route="/embed", status=200)
    record.end()
    sender(record)
    assert len(record.trace_id) == 32
    sender.stop()
