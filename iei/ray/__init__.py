"""IEI on a Ray cluster: replicas of the server by Ray Serve, bulk jobs by Ray Data (docs/ray.md; extra `ray`).

`serve run iei.ray:build model=google/siglip2-base-patch16-224 num_gpus=0.5`, or `serve run iei.ray:app` with the
settings of the environment. `ray.data.read_parquet(…).map_batches(iei.ray.Embedder, …)`, or `iei.ray.embed`, which
knows how.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"Embedder": "embedder", "app": "serving", "build": "serving", "embed": "data"}
"""Public name → its module. Imported when asked for: a node that only runs bulk jobs needs no Ray Serve."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
