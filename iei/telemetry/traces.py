"""Traces by OpenTelemetry: a span for each request and, within it, one for each of its stages, made from its record.

Headers for the collector, the sampler and the name of the service are set by OpenTelemetry's own variables
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), which its SDK reads. Spans are
made when a request has ended, with the times that its record has, so a request that is not traced costs nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from iei import __version__
from iei.settings import TraceSettings
from iei.telemetry.record import STAGES, Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

STOP_S = 3.0
"""How long a worker that stops waits for the collector."""


class Traces:
    """An observer of requests that sends their spans to a collector.

    Made before the workers are forked, and started in each: it sends from a thread of its own.
    """

    def __init__(self, endpoint: str) -> None:
        """Sends to the URL `endpoint`, once it is started."""
        self._endpoint = endpoint
        self._provider: TracerProvider | None = None
        self._observe: Callable[[Record], None] = lambda record: None

    def start(self) -> None:
        """Starts the thread that sends. Called once in each worker."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.version": __version__})
        if resource.attributes[SERVICE_NAME] == "unknown_service":  # what the SDK says where nobody has named it
            resource = resource.merge(Resource({SERVICE_NAME: "iei"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(self._endpoint)))
        self._observe = _spans_by(self._provider)

    def stop(self) -> None:
        """Sends what has not been sent, if the collector takes it within `STOP_S`."""
        if self._provider:
            end = threading.Thread(target=self._provider.shutdown, name="traces' end", daemon=True)
            end.start()
            end.join(STOP_S)

    def __call__(self, record: Record) -> None:
        """Makes the spans of a request that has ended. The record gets the id of its trace."""
        self._observe(record)


def read_traces(settings: TraceSettings) -> Traces | None:
    """What the settings ask for: traces, or none.

    Where OpenTelemetry is not installed but its variables are set, as they are for all containers of some clusters,
    the server serves without traces and says so.
    """
    if settings.collector is None:
        return None
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        log.warning("there are no traces: install image-embedding-inference[otel], or set OTEL_SDK_DISABLED=true")
        return None
    return Traces(settings.collector)


def _spans_by(provider: TracerProvider) -> Callable[[Record], None]:
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("iei", __version__)
    propagator = TraceContextTextMapPropagator()

    def observe(record: Record) -> None:
        def at(moment: float) -> int:
            return record.started_ns + round((moment - record.started) * 1e9)

        parent = propagator.extract(record.carried)
        is_http = record.dialect != "gRPC"
        name = " ".join(filter(None, (record.method, record.route))) if is_http else record.route.removeprefix("/")
        attributes = _attributes(record)
        span = tracer.start_span(name, parent, SpanKind.SERVER, attributes, start_time=record.started_ns)
        record.trace_id = format(span.get_span_context().trace_id, "032x")
        if not span.is_recording():
            return
        within = set_span_in_context(span)
        for stage in STAGES:
            if stretch := record.stages.get(stage):
                counts = {"iei.inputs": stretch.count, "iei.seconds": stretch.seconds}
                child = tracer.start_span(stage, within, attributes=counts, start_time=at(stretch.start))
                if stage == "forward":
                    child.set_attributes({"iei.batch.size": record.largest_batch, "iei.engine.pid": record.engine_pid})
                child.end(at(stretch.end))
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(at(record.ended))

    return observe


def _attributes(record: Record) -> Mapping[str, Any]:
    """By OpenTelemetry's conventions for servers, where they have a name: nothing in them was written by the client."""
    rpc = {"rpc.system.name": "grpc", "rpc.method": record.route.removeprefix("/")}
    http = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "http.request.body.size": record.received_bytes,
        "http.response.body.size": record.sent_bytes,
    }
    known = {
        **(rpc if record.dialect == "gRPC" else http),
        "error.type": type(record.error).__name__ if record.error else "",
        "gen_ai.operation.name": "embeddings" if record.inputs else "",
        "gen_ai.request.model": record.model,
        "iei.request_id": record.id,
        "iei.dialect": record.dialect,
        "iei.key": record.key,
        "iei.priority": record.priority.label if record.inputs else "",
        **{f"iei.inputs.{modality}": count for modality, count in record.inputs.items()},
    }
    return {name: value for name, value in known.items() if value != ""}
