"""A real Prometheus that scrapes a real server on its port for metrics: what is in deploy/ is answered with data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from iei.errors import StartupError
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS
from iei.telemetry.port import MetricsPort
from tests import pictures
from tests.servers import ROOT, Server, serve, until

pytestmark = pytest.mark.server

PICTURE = pictures.base64_of(pictures.png(8, 8))
LIMIT_S = 60.0
RULES = ROOT / "deploy/prometheus-rules.yaml"
DASHBOARD = ROOT / "deploy/grafana-dashboard.json"

promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool: apt-get install prometheus")
prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Prometheus: apt-get install prometheus")


def port_of(server: Server) -> str:
    found = re.search(r"/metrics is served on (\S+)", server.log)
    assert found, server.log
    return found[1]


@pytest.fixture(scope="module")
def server(demo_cache: str) -> Iterator[Server]:
    env = {"IEI_METRICS_BIND": "127.0.0.1:0", "IEI_API_KEYS": "alice=right", "IEI_CACHE_DIR": demo_cache}
    with serve({**env, "IMAGE_EMBEDDING_MODEL": "demo"}, workers=1) as server:
        yield server


def test_the_port_has_nothing_but_metrics_and_needs_no_key(server: Server) -> None:
    port = f"http://{port_of(server)}"
    assert "iei_info" in httpx.get(f"{port}/metrics").text
    assert httpx.get(f"{port}/health").status_code == 404
    assert httpx.get(f"{server.url}/metrics", headers={"x-api-key": "right"}).status_code == 404


def test_the_port_survives_workers(server: Server) -> None:
    """Before the load starts, which would not survive them."""
    master = psutil.Process(server.process.pid)
    master.suspend()  # it forks no other worker
    try:
        (worker,) = server.workers()
        worker.kill()
        text = until(lambda: _with_workers(server, 0))
        assert 'iei_requests_total{method="GET",model="",route="/health",status="200"}' in text
    finally:
        master.resume()
    until(lambda: _with_workers(server, 1))


def _with_workers(server: Server, count: int) -> str | None:
    """The metrics, if as many workers are alive."""
    text = httpx.get(f"http://{port_of(server)}/metrics").text
    return text if f'iei_processes{{process="worker"}} {count}.0' in text else None


@pytest.fixture(scope="module")
def loaded(server: Server) -> Iterator[Server]:
    """The server with inputs waiting all the time, and now and then a bad one."""
    ended = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=server.url, headers={"x-api-key": "right"}, timeout=LIMIT_S) as http:
            while not ended.is_set():
                assert http.post("/embed", json={"inputs": [PICTURE] * 32}).status_code == 200
                assert http.post("/embed", json={"inputs": ["no picture"]}).status_code == 400

    clients = [threading.Thread(target=client) for _ in range(3)]
    for each in clients:
        each.start()
    yield server
    ended.set()
    for each in clients:
        each.join()


@pytest.fixture(scope="module")
def queried(loaded: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a Prometheus that scrapes the server and has our rules."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
        f"rule_files: [{json.dumps(str(RULES))}]\n"
        "scrape_configs:\n"
        f"  - {{job_name: iei, static_configs: [{{targets: ['{port_of(loaded)}']}}]}}\n"
    )
    options = {"config.file": config, "storage.tsdb.path": folder / "data", "web.listen-address": "127.0.0.1:0"}
    log = folder / "log"
    with log.open("wb") as file:
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        address = until(lambda: re.search(r"Listening on.*?address=(127\S+:\d+)", log.read_text()))[1]
        with httpx.Client(base_url=f"http://{address}/api/v1", timeout=LIMIT_S) as client:
            until(lambda: client.get(f"http://{address}/-/ready").is_success)  # it listens before its data is open
            yield client
    finally:
        process.terminate()
        process.wait()


def _answer(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """The series that a query gives, once there are any."""

    def series() -> Any:
        response = client.get("/query", params={"query": query}).json()
        assert response["status"] == "success", (query, response)
        return response["data"]["result"]

    return list(until(series))


def _dashboard_queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@prometheus
@pytest.mark.parametrize("query", _dashboard_queries())
def test_every_query_of_the_dashboard_is_answered(queried: httpx.Client, query: str) -> None:
    assert _answer(queried, query.replace("$__rate_interval", "10s").replace("$instance", ".*"))


@prometheus
def test_every_rule_is_evaluated_and_has_data(queried: httpx.Client) -> None:
    groups = queried.get("/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == RULES.read_text().count("expr:")
    for rule in rules:
        quantity = re.split(" [<>] [0-9.]+$", rule["query"])[0]  # an alert compares one; that it does not fire is fine
        assert (quantity != rule["query"]) == (rule["type"] == "alerting"), rule
        assert _answer(queried, quantity), rule
    states = {rule["name"]: rule.get("health") for rule in queried.get("/rules").json()["data"]["groups"][0]["rules"]}
    assert set(states.values()) == {"ok"}, states


@promtool
def test_rules_are_valid() -> None:
    check = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


@promtool
def test_names_and_helps_are_as_prometheus_recommends(loaded: Server) -> None:
    text = httpx.get(f"http://{port_of(loaded)}/metrics").text
    own = "".join(line + "\n" for line in text.splitlines() if " te_" not in line and not line.startswith("te_"))
    check = subprocess.run(["promtool", "check", "metrics"], input=own, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_a_port_in_use_is_a_sentence() -> None:
    counters = Counters(METRICS)
    first = MetricsPort("127.0.0.1:0", counters)
    with pytest.raises(StartupError, match=rf"can't listen on {first.address} \(IEI_METRICS_BIND\): .* in use"):
        MetricsPort(first.address, counters)
    first.close()
    assert first.process.wait(LIMIT_S) == 0
