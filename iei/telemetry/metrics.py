"""What is counted, and how the record of a request becomes numbers.

Labels have few values: routes are templates, models those of the catalog, keys those of the operator.
"""

from __future__ import annotations

import re

from iei.telemetry.counters import PROCESSES, Counters, Metric
from iei.telemetry.record import Record

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *_SECONDS)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0)

REQUESTS = Metric(
    "iei_requests_total",
    "counter",
    "Requests that have ended, by the template of their route (`none`: it met no route, or was refused before), the "
    "model (empty: it was not known yet), and the status of HTTP, also for gRPC, whose method is POST (499: the client "
    "had gone).",
    ("route", "method", "model", "status"),
)
REQUEST_SECONDS = Metric(
    "iei_request_seconds",
    "histogram",
    "From the head of a request to the end of its answer.",
    ("route", "model"),
    _SECONDS,
)
STAGE_SECONDS = Metric(
    "iei_stage_seconds",
    "histogram",
    "Seconds of each stage: receive, parse and serialise once for a request; fetch, wait (for a thread), decode, "
    "resize, tokenize, queue and forward for each input, as the mean over the inputs of its request.",
    ("stage", "model"),
    _STAGE_SECONDS,
)
KEY_REQUESTS = Metric(
    "iei_key_requests_total",
    "counter",
    "Requests by the name of their API key, where there are keys.",
    ("key", "status"),
)
KEY_INPUTS = Metric(
    "iei_key_inputs_total", "counter", "Inputs of admitted requests by the name of their API key.", ("key", "modality")
)
REJECTIONS = Metric(
    "iei_rejections_total",
    "counter",
    "Requests that were answered with an error, by its cause.",
    ("reason", "status"),
)
RECEIVED = Metric("iei_received_bytes_total", "counter", "Bytes of bodies, unpacked.", ("route",))
SENT = Metric("iei_sent_bytes_total", "counter", "Bytes of the bodies of answers.", ("route",))
PIXELS = Metric("iei_pixels_total", "counter", "Pixels of pictures as they were decoded.", ("model",))
INPUTS = Metric("iei_inputs_total", "counter", "Inputs that were computed.", ("model", "modality", "priority"))
FAILED = Metric(
    "iei_inputs_failed_total",
    "counter",
    "Admitted inputs that were not computed: bad ones, those of a refused request, those of clients that had gone.",
    ("model", "priority"),
)
IN_WORK = Metric(
    "iei_inputs_in_work",
    "gauge",
    "Inputs that have been admitted and are not done.",
    ("model", "priority"),
    is_shown=False,
)
RUNNING = Metric("iei_inputs_running", "gauge", "Inputs in the forwards that run now.", ("model", "priority"))
BATCHES = Metric("iei_batch_size", "histogram", "Inputs of a forward.", ("model", "modality"), _SIZES)
FORWARD_SECONDS = Metric(
    "iei_forward_seconds",
    "histogram",
    "Seconds of a forward, or its share where several run: the sum grows by one each second that an engine is busy.",
    ("model", "modality"),
    _STAGE_SECONDS,
)
RESTARTS = Metric(
    "iei_engine_restarts_total", "counter", "Engines that ended and were followed by another.", ("device",)
)
LOADED = Metric("iei_models_loaded", "gauge", "1 for a model that is in an engine's memory.", ("model", "device"))
DEVICE_MEMORY = Metric(
    "iei_device_memory_bytes",
    "gauge",
    "Memory that the engine has allocated on its device; on a CPU, its resident memory.",
    ("device",),
)
CONNECTIONS = Metric("iei_connections", "gauge", "Connections of clients.")
ACCEPTING_AT = Metric(
    "iei_accepting_at", "gauge", "When this worker last said that it accepts connections.", is_shown=False
)
ARENAS = Metric("iei_arena_bytes", "gauge", "Memory that workers and engines share for inputs and vectors, in use.")
RATE = Metric(
    "iei_input_rate",
    "gauge",
    "Inputs that left per second while inputs waited, averaged over about half a minute of that.",
    ("model",),
)
RATE_LEFT = Metric("iei_rate_left", "gauge", "Inputs that left, weighted.", ("model",), is_shown=False)
RATE_SECONDS = Metric("iei_rate_seconds", "gauge", "The seconds of that, weighted.", ("model",), is_shown=False)
SAMPLED_LEFT = Metric(
    "iei_sampled_left", "gauge", "Inputs that had left at the last sample.", ("model",), is_shown=False
)
SAMPLED_WAITING = Metric(
    "iei_sampled_waiting", "gauge", "Inputs that waited at the last sample.", ("model",), is_shown=False
)
SAMPLED_AT = Metric("iei_sampled_at", "gauge", "When the last sample was taken.", is_shown=False)

METRICS = (
    REQUESTS,
    REQUEST_SECONDS,
    STAGE_SECONDS,
    KEY_REQUESTS,
    KEY_INPUTS,
    REJECTIONS,
    RECEIVED,
    SENT,
    PIXELS,
    INPUTS,
    FAILED,
    IN_WORK,
    RUNNING,
    BATCHES,
    FORWARD_SECONDS,
    RESTARTS,
    LOADED,
    DEVICE_MEMORY,
    CONNECTIONS,
    ACCEPTING_AT,
    ARENAS,
    RATE,
    RATE_LEFT,
    RATE_SECONDS,
    SAMPLED_LEFT,
    SAMPLED_WAITING,
    SAMPLED_AT,
    PROCESSES,
)
"""Everything that is counted, in the order in which it is shown. The same in all processes of a server."""

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
GONE = "499"
"""The status of requests whose client has gone, as nginx logs it."""


class RequestMetrics:
    """An `Observer` that counts requests which have ended."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def __call__(self, record: Record) -> None:
        """Counts one."""
        counters = self._counters
        route, model = record.route or "none", record.model
        status = str(record.status) if record.status else GONE
        method = record.method if record.method in _METHODS else "other"
        counters.observe(REQUEST_SECONDS, (route, model), record.ended - record.started)
        for stage, stretch in record.stages.items():
            counters.observe(STAGE_SECONDS, (stage, model), stretch.seconds / stretch.count, stretch.count)
        counters.add(RECEIVED, (route,), record.received_bytes)
        counters.add(SENT, (route,), record.sent_bytes)
        if record.pixels:
            counters.add(PIXELS, (model,), record.pixels)
        if record.key:
            counters.add(KEY_REQUESTS, (record.key, status))
            for modality, count in record.inputs.items():
                counters.add(KEY_INPUTS, (record.key, modality), count)
        if record.error:
            counters.add(REJECTIONS, (reason(record.error), status))
        counters.add(REQUESTS, (route, method, model, status))  # last: whoever sees it has seen the others


def reason(error: Exception) -> str:
    """The class of an error, as a label: `QuotaExceeded` → `quota_exceeded`."""
    return re.sub(r"(?<=.)(?=[A-Z])", "_", type(error).__name__).lower()
