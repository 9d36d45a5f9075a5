"""Ray Serve: the whole server in each replica, with every dialect and IEI's own batches.

A replica is what a worker of `iei serve` is. Its engine is a supervised process beside it, not a thread in it: an
engine that crashes or hangs takes no replica with it, and the inputs that it had are computed by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from iei.app import create_app
from iei.engine.client import connect
from iei.engine.launch import launch_engines
from iei.errors import Unhealthy
from iei.models.catalog import Catalog, read_catalog
from iei.ray.arguments import Placement, read_arguments
from iei.ray.mounted import Mounted
from iei.ray.scaling import INPUTS, ByInputs
from iei.settings import Settings
from iei.telemetry import logs
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import IN_WORK, METRICS

log = logging.getLogger(__name__)

ENGINE_AWAY_S = 300.0
"""A replica whose engine has been away for so long is replaced. New engines load their model in this time; requests
wait for them meanwhile."""


def build(arguments: dict[str, Any]) -> Application:
    """An application of Ray Serve: `serve run iei.ray:build model=… max_replicas=3`, or `args` in a config file.

    Args:
        arguments: the fields of `Placement` and the settings of IEI, by name; what is left out comes from the
            environment of whoever calls this, and is the same for all replicas.

    Raises:
        StartupError: there is no such argument, or a value is invalid.
    """
    placement, settings = read_arguments(arguments)
    return _deployment(placement, settings).bind(settings, read_catalog(settings.models))


def __getattr__(name: str) -> Application:
    if name == "app":  # made when it is asked for: it reads the environment
        return build({})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _deployment(placement: Placement, settings: Settings) -> serve.Deployment:
    policy = AutoscalingPolicy(
        policy_function=f"{ByInputs.__module__}:{ByInputs.__name__}",
        policy_kwargs={"inputs_per_replica": placement.inputs_per_replica},
    )
    scaling = AutoscalingConfig(
        min_replicas=placement.min_replicas,
        max_replicas=placement.most,
        upscale_delay_s=placement.upscale_delay_s,
        downscale_delay_s=placement.downscale_delay_s,
        look_back_period_s=placement.look_back_period_s,
        policy=policy,
    )
    requests = settings.requests
    resources = {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus, "resources": placement.resources}
    return serve.deployment(
        Replica,
        name=placement.name,
        autoscaling_config=scaling,
        ray_actor_options=resources,
        # More than a replica admits: who has to wait or to go is decided by inputs, and said in the client's dialect.
        max_ongoing_requests=2 * (requests.max_queue + requests.bulk_queue),
        graceful_shutdown_timeout_s=settings.server.graceful_timeout_s,
    )


@serve.ingress()
class Replica:
    """One worker with its engines, as an actor.

    Args:
        settings: all of them, read where the application was built.
        catalog: the models that may be asked for.
    """

    async def __init__(self, settings: Settings, catalog: Catalog) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        logs.configure(settings.logs)
        self._settings, self._catalog = settings, catalog
        self._counters = Counters(METRICS)
        self._engines = launch_engines(settings, catalog, self._counters)
        # In a thread: it takes as long as the model takes to load.
        addresses = await asyncio.to_thread(lambda: [engine.address for engine in self._engines])
        self._engine = connect(addresses, catalog, settings.engine)
        self._seen = time.monotonic()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve's hook: the app, made in the replica, whose lifespan it runs."""
        app = create_app(self._settings, self._catalog, self._engine, self._counters)
        app.add_middleware(Mounted)  # before all others
        return app

    async def check_health(self) -> None:
        """Ray Serve's hook, every 10 s: a replica that raises is replaced.

        Raises:
            Unhealthy: there has been no engine for `ENGINE_AWAY_S`.
        """
        now = time.monotonic()
        if self._engine.ready:
            self._seen = now
        elif now - self._seen > ENGINE_AWAY_S:
            raise Unhealthy(f"there has been no engine for {ENGINE_AWAY_S:g} s")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve's hook: what `ByInputs` reads."""
        return {INPUTS: sum(self._counters.read().values(IN_WORK).values())}
