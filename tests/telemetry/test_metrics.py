"""What is counted of requests, who may see it, and how it is written down."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.errors import InvalidField, QuotaExceeded
from iei.telemetry.counters import Counters
from iei.telemetry.exposition import DERIVED, metrics_text
from iei.telemetry.metrics import BATCHES, METRICS, reason
from tests import pictures
from tests.apps import app_around
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime

BODY = {"inputs": [pictures.base64_of(pictures.png(8, 8))] * 2}
SHOWN = (*(metric for metric in METRICS if metric.is_shown), *DERIVED)


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """Values of labels → number."""
    families = text_string_to_metric_families(text)
    return {
        tuple(each.labels.values()): each.value for family in families for each in family.samples if each.name == name
    }


@pytest.mark.parametrize(
    ("settings", "without_key", "with_key"),
    [
        ({}, 200, 200),
        ({"api_keys": "alice=right"}, 401, 200),
        ({"api_keys": "alice=right", "public_metrics": True}, 200, 200),
        ({"public_metrics": False}, 404, 404),
        ({"metrics_bind": "127.0.0.1:9100"}, 404, 404),
    ],
)
def test_who_may_see_them(settings: dict[str, object], without_key: int, with_key: int) -> None:
    with TestClient(app_around(InProcessEngine(KnownRuntime()), **settings)) as client:
        assert client.get("/metrics").status_code == without_key
        assert client.get("/metrics", headers={"x-api-key": "right"}).status_code == with_key


def test_requests_and_inputs_are_counted_by_key() -> None:
    with TestClient(app_around(InProcessEngine(KnownRuntime()), api_keys="alice=right, bob=other")) as client:
        client.post("/embed", json=BODY, headers={"x-api-key": "right"})
        client.post("/embed", json={}, headers={"x-api-key": "other"})
        client.post("/embed", json={}, headers={"x-api-key": "a stranger's"})
        text = client.get("/metrics", headers={"x-api-key": "right"}).text
    assert samples(text, "iei_key_requests_total") == {("alice", "200"): 1, ("bob", "422"): 1}
    assert samples(text, "iei_key_inputs_total") == {("alice", "image"): 2}
    assert samples(text, "iei_rejections_total") == {("invalid_field", "422"): 1, ("unauthorized", "401"): 1}
    assert "stranger" not in text


def test_paths_of_strangers_make_no_series() -> None:
    with TestClient(app_around(InProcessEngine(KnownRuntime()))) as client:
        for number in range(3):
            client.get(f"/stranger/{number}")
            client.post(f"/v2/models/stranger-{number}/infer", json={"inputs": []})
            client.post(f"/m/stranger-{number}/embed", json=BODY)
            client.request(f"STRANGER{number}", "/embed")
        text = client.get("/metrics").text
    assert "stranger" not in text.lower()
    assert sum(samples(text, "iei_requests_total").values()) == 12


def test_a_queue_is_zero_before_anybody_has_asked() -> None:
    app = app_around(InProcessEngine(KnownRuntime()), models=f"{SPEC.name}=org/vit,other=org/other")
    with TestClient(app) as client:
        text = client.get("/metrics").text
    both = itertools.product((SPEC.name, "other"), ("interactive", "bulk"))
    assert samples(text, "iei_inputs_waiting") == dict.fromkeys(both, 0)
    assert samples(text, "iei_drain_seconds") == {(SPEC.name,): 0, ("other",): 0}
    assert samples(text, "te_queue_size") == {(): 0}


def test_histograms_are_cumulative() -> None:
    counters = Counters(METRICS)
    for size in (1, 2, 2, 5000):
        counters.observe(BATCHES, ("vit", "image"), size)
    text = metrics_text(counters).decode()
    buckets = {labels[0]: count for labels, count in samples(text, "iei_batch_size_bucket").items()}
    assert (buckets["1.0"], buckets["2.0"], buckets["4096.0"], buckets["+Inf"]) == (1, 3, 3, 4)
    assert samples(text, "iei_batch_size_count") == {("image", "vit"): 4}
    assert samples(text, "te_batch_next_size_sum") == {(): 5005}


def test_reasons_are_the_names_of_errors() -> None:
    assert reason(InvalidField("no")) == "invalid_field"
    assert reason(QuotaExceeded("later", 1)) == "quota_exceeded"


def test_the_table_in_the_documentation_has_every_metric() -> None:
    page = Path("docs/operations.md").read_text()
    rows = re.findall(r"^\| `(iei_\w+)` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    assert {(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == {
        (metric.name, metric.kind, metric.labels) for metric in SHOWN
    }
