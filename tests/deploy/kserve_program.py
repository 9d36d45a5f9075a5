"""Checks manifests of KServe, a JSON list on stdin, against the models of its Python package; prints a list of faults.

Run by the interpreter of an environment that has kserve, whose requirements contradict the project's. Its models, and
those of the Kubernetes client that it uses, are generated from the same Go types as the custom resource definitions.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import kserve
import kubernetes.client

_SIMPLE: dict[str, Any] = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
_QUANTITIES = {"V1beta1MetricQuantity": (str, int), "ResourceQuantity": (str, int)}
_GROUP = "K8sIoApi(Apps|Autoscaling|Core)(?=V[0-9])"
"""What kserve's models put before the names of those of Kubernetes."""


def faults(kind: str, value: Any, path: str) -> Iterator[str]:
    """What in `value` is not as the type `kind` says, each with its path."""
    if inner := re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", kind):
        wanted = list if inner[1] else dict
        if not isinstance(value, wanted):
            yield f"{path} is no {wanted.__name__}"
            return
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from faults(inner[1] or inner[2], each, f"{path}[{key}]")
    elif scalar := (_SIMPLE | _QUANTITIES).get(kind):
        if not isinstance(value, scalar):
            yield f"{path} is no {kind}"
    elif model := getattr(kserve, kind, None):
        yield from faults_of_fields(model, value, path)
    else:
        try:  # Kubernetes' own: pydantic models that take no other fields
            getattr(kubernetes.client, re.sub(_GROUP, "", kind))(**value)
        except ValueError as error:
            yield f"{path}: {error}"


def faults_of_fields(model: Any, value: Any, path: str) -> Iterator[str]:
    """What is wrong with the fields of an object of KServe."""
    if not isinstance(value, dict):
        yield f"{path} is no object"
        return
    fields = {written: field for field, written in model.attribute_map.items()}
    for name, each in value.items():
        if name in fields:
            yield from faults(model.openapi_types[fields[name]], each, f"{path}.{name}")
        else:
            yield f"{path} has no field {name}"
    try:
        model(**{fields[name]: each for name, each in value.items() if name in fields})
    except ValueError as error:  # a field that must be there
        yield f"{path}: {error}"


def of_manifest(manifest: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one manifest."""
    group, version = manifest["apiVersion"].split("/")
    assert group == "serving.kserve.io"
    kind = f"{version.capitalize()}{manifest['kind']}"
    yield from faults_of_fields(getattr(kserve, kind), manifest, manifest["kind"])


print(json.dumps([fault for manifest in json.load(sys.stdin) for fault in of_manifest(manifest)]))
