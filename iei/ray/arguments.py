"""The arguments of `serve run iei.ray:build …`: how replicas are placed, and any setting of IEI by its name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iei.errors import StartupError
from iei.setting import Group
from iei.settings import SETTINGS, Settings, read_settings

NOT_HERE = {
    "workers": "each replica is one worker: set min_replicas and max_replicas",
    **dict.fromkeys(("bind", "host", "port"), "Ray Serve's proxy listens: `serve start --http-port`"),
    "grpc_bind": "gRPC is not served on Ray",
    "metrics_bind": "replicas of one machine can't share a port: /metrics is one replica's, Ray's own are on its port",
    **dict.fromkeys(("tls_cert", "tls_key"), "Ray Serve's proxy listens, in plain text: put TLS before it"),
}
"""Settings that have no meaning in a replica → why, and what to do instead."""


class Placement(BaseModel):
    """How many replicas there are, and what each gets of the cluster. Names and meanings are those of Ray."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "iei"
    """Of the deployment."""
    min_replicas: int = Field(1, ge=0)
    max_replicas: int | None = Field(None, ge=1)
    """Default: as `min_replicas`."""
    inputs_per_replica: float = Field(32.0, gt=0)
    """Inputs in work for which one replica is enough; a few batches."""
    upscale_delay_s: float = Field(10.0, ge=0)
    downscale_delay_s: float = Field(300.0, ge=0)
    look_back_period_s: float = Field(15.0, gt=10)
    """The number of inputs is averaged over it. Replicas report every 10 s."""
    num_cpus: float = Field(1.0, ge=0)
    """Cores; also the threads of a forward and of decoding, unless these are set."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs, or a part of one. Without any, the model runs on the CPU."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's custom resources, by name."""

    @property
    def most(self) -> int:
        """The largest number of replicas."""
        return self.max_replicas or max(1, self.min_replicas)


def read_arguments(arguments: Mapping[str, Any]) -> tuple[Placement, Settings]:
    """Reads what `name=value` said, and the settings of the environment where it said nothing.

    Raises:
        StartupError: there is no such name, or a value is invalid.
    """
    for name in arguments:
        if name in NOT_HERE:
            raise StartupError(f"{name}: {NOT_HERE[name]}.")
        if name not in SETTINGS and name not in Placement.model_fields:
            raise StartupError(f"{name} is no argument: {_advice(name)}")
    try:
        placement = Placement.model_validate({name: arguments[name] for name in arguments if name not in SETTINGS})
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}={fault['input']!r}: {fault['msg']}" for fault in error.errors()]
        raise StartupError("; ".join(faults)) from None
    if placement.most < placement.min_replicas:
        raise StartupError(f"max_replicas={placement.most}: must be at least min_replicas={placement.min_replicas}.")
    settings = settings_of({name: arguments[name] for name in arguments if name in SETTINGS})
    if settings.server.tls_cert or settings.server.tls_key:
        raise StartupError(f"IEI_TLS_CERT and IEI_TLS_KEY: {NOT_HERE['tls_cert']}.")
    return placement, share_of(settings, placement.num_cpus, placement.num_gpus)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings by name, and those of the environment, where a model that is given wins over its list of models.

    Raises:
        StartupError: a value is invalid.
    """
    return read_settings(**{**({"models": ""} if given.get("model") else {}), **given})


def share_of(settings: Settings, cpus: float, gpus: float) -> Settings:
    """The same for a process that gets a part of its machine: Ray counts cores, but keeps nobody to them.

    Args:
        settings: what they say stays.
        cpus: cores, for the forward and for decoding.
        gpus: GPUs, or a part of one. Ray shows a process its own GPUs only, which are numbered from 0.
    """
    threads = max(1, round(cpus))
    whole = ",".join(f"cuda:{index}" for index in range(int(gpus)))
    device = "cpu" if not gpus else whole if gpus > 1 else "cuda"
    ours: dict[str, dict[str, Any]] = {
        "engine": {"device": device},
        "load": {"threads": threads},
        "inputs": {"decode_threads": threads},
    }
    groups = {group: _filled(getattr(settings, group), values) for group, values in ours.items()}
    server = settings.server.model_copy(update={"workers": 1})
    return settings.model_copy(update={**groups, "server": server})


def _filled(group: Group, values: Mapping[str, Any]) -> Group:
    return group.model_copy(update={name: value for name, value in values.items() if not group.is_set(name)})


def _advice(name: str) -> str:
    near = get_close_matches(name, [*Placement.model_fields, *(SETTINGS.keys() - NOT_HERE.keys())], n=1)
    return f"did you mean {near[0]}?" if near else "docs/ray.md and docs/configuration.md list them."
