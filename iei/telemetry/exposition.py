"""`/metrics`: the numbers of all processes in Prometheus' text format, and what is made of them.

Any process that has the counters gives the same answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from iei import __version__
from iei.machine import resident_bytes
from iei.telemetry.counters import Counters, Labels, Metric, Reading
from iei.telemetry.metrics import (
    BATCHES,
    FAILED,
    INPUTS,
    METRICS,
    REJECTIONS,
    REQUEST_SECONDS,
    REQUESTS,
    STAGE_SECONDS,
)
from iei.telemetry.rate import drain_seconds, waiting

CONTENT_TYPE = CONTENT_TYPE_LATEST

WAITING = Metric(
    "iei_inputs_waiting",
    "gauge",
    "Inputs that have been admitted and are not in a forward, wherever they wait: for a model, a download, a thread, "
    "memory, or a batch.",
    ("model", "priority"),
)
DRAIN = Metric(
    "iei_drain_seconds",
    "gauge",
    "How long the inputs that wait now will take: their number divided by iei_input_rate. Scale on this.",
    ("model",),
)
MEMORY = Metric("iei_process_memory_bytes", "gauge", "Resident memory of all processes of a kind.", ("process",))
INFO = Metric("iei_info", "gauge", "1; the label is the server's version.", ("version",))
DERIVED = (WAITING, DRAIN, MEMORY, INFO)
"""What is computed when it is asked for."""


def metrics_text(counters: Counters) -> bytes:
    """All metrics, as `CONTENT_TYPE` says. Takes some milliseconds."""
    registry = CollectorRegistry()
    registry.register(_Families(counters))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Family]:
        reading = self._counters.read()
        for metric in METRICS:
            if metric.is_shown:
                yield _family(metric, reading)
        yield _numbers(WAITING, waiting(reading))
        yield _numbers(DRAIN, {(model,): seconds for model, seconds in drain_seconds(reading).items()})
        yield _numbers(MEMORY, _memory(reading))
        yield _numbers(INFO, {(__version__,): 1.0})
        yield from _of_text_embeddings_inference(reading)

    def describe(self) -> Iterator[Family]:
        return iter(())


def _family(metric: Metric, reading: Reading) -> Family:
    if metric.kind == "histogram":
        return _histogram(metric.name, metric.help, metric, reading.histograms(metric))
    return _numbers(metric, reading.values(metric))


def _numbers(metric: Metric, values: Mapping[Labels, float]) -> Family:
    family = Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
    for labels, value in values.items():
        family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
    return family


def _histogram(name: str, about: str, metric: Metric, series: Mapping[Labels, npt.NDArray[np.float64]]) -> Family:
    family = Family(name, about, "histogram")
    bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
    for values, cells in series.items():
        labels = dict(zip(metric.labels, values, strict=False))
        counts = np.cumsum(cells[:-1]).tolist()
        for bound, count in zip(bounds, counts, strict=True):
            family.add_sample(f"{name}_bucket", {**labels, "le": bound}, count)
        family.add_sample(f"{name}_count", labels, counts[-1])
        family.add_sample(f"{name}_sum", labels, float(cells[-1]))
    return family


def _memory(reading: Reading) -> dict[Labels, float]:
    sums: defaultdict[Labels, float] = defaultdict(float)
    for pid, kind in reading.processes().items():
        sums[(kind,)] += resident_bytes(pid)
    return sums


def _of_text_embeddings_inference(reading: Reading) -> Iterator[Family]:
    """Its names, where they mean the same. Its counters have no `_total`, which the format wants: they go untyped."""
    requests = {labels: count for labels, count in reading.values(REQUESTS).items() if labels[2]}
    computed, failed = sum(reading.values(INPUTS).values()), sum(reading.values(FAILED).values())
    errors: Counter[str] = Counter()
    for (cause, _), count in reading.values(REJECTIONS).items():
        errors[cause] += int(count)
    counts: Mapping[str, float] = {
        "te_request_count": sum(requests.values()),
        "te_request_success": sum(count for labels, count in requests.items() if labels[3] == "200"),
        "te_embed_count": computed + failed,
        "te_embed_success": computed,
    }
    for name, count in counts.items():
        yield _untyped(name, {(): count})
    yield _untyped("te_request_failure", {(cause,): count for cause, count in errors.items()}, ("err",))
    size = Family("te_queue_size", "As iei_inputs_waiting, of all models.", "gauge")
    size.add_sample("te_queue_size", {}, sum(waiting(reading).values()))
    yield size
    for name, metric, wanted in _HISTOGRAMS_OF_TEI:
        cells = [cells for labels, cells in reading.histograms(metric).items() if wanted(labels)]
        total = np.sum(cells, axis=0) if cells else np.zeros(metric.width)
        yield _histogram(name, f"As {metric.name}.", metric, {(): total})


def _untyped(name: str, values: Mapping[Labels, float], labels: Labels = ()) -> Family:
    family = Family(name, "For dashboards of text-embeddings-inference.", "unknown")
    for values_of_labels, value in values.items():
        family.add_sample(name, dict(zip(labels, values_of_labels, strict=True)), value)
    return family


_HISTOGRAMS_OF_TEI = (
    ("te_request_duration", REQUEST_SECONDS, lambda labels: labels[1] != ""),
    ("te_request_tokenization_duration", STAGE_SECONDS, lambda labels: labels[0] == "tokenize"),
    ("te_request_queue_duration", STAGE_SECONDS, lambda labels: labels[0] == "queue"),
    ("te_request_inference_duration", STAGE_SECONDS, lambda labels: labels[0] == "forward"),
    ("te_batch_next_size", BATCHES, lambda labels: True),
)
"""Its name, what we have, and of which labels."""
