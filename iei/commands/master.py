"""Gunicorn's master for `iei serve`: options for production, the app loaded once, and a summary when it is ready."""

from __future__ import annotations

import gc
import logging
from math import ceil
from typing import Any

from fastapi import FastAPI
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from iei import __version__
from iei.app import create_app
from iei.commands.start import Start
from iei.engine.client import connect
from iei.models.catalog import DEMO, DEMO_NOTE
from iei.models.spec import POOLED, ModelSpec
from iei.serving.connections import LINGER_S
from iei.serving.flag import SharedFlag
from iei.serving.preload import preload
from iei.settings import LogSettings, ServerSettings, Settings

log = logging.getLogger("iei")


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn is not typed
    """Loads the app once, in the master, before the port opens; then forks the workers."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.is_last = SharedFlag()
        """Of the workers that run now: whether no others will follow them."""
        super().__init__()

    def run(self) -> None:
        """Serves until a signal ends it. Exits."""
        Master(self).run()

    def load_config(self) -> None:
        """Gunicorn's hook: its options, from IEI's settings alone."""
        options = gunicorn_options(self._start.settings.server, self._start.settings.logs)
        for name, value in {**options, **self._start.tls, "bind": self._start.bind}.items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", lambda arbiter: log.info("%s", self._summary(arbiter.LISTENERS)))

    def load(self) -> FastAPI:
        """Gunicorn's hook, called once in the master: the app, when the engines have their models."""
        start = self._start
        preload()  # while the engines load their models: `create_app` waits for them
        engine = connect([engine.address for engine in start.engines], start.catalog, start.settings.engine)
        app = create_app(start.settings, start.catalog, engine, start.counters, start.grpc_port, self.is_last)
        gc.freeze()  # collections in the workers would write to pages that they share
        gc.enable()
        return app

    def _summary(self, listeners: list[Any]) -> str:
        spec = self._start.engines[0].address.default
        return summary(spec, self._start.settings, [*map(str, listeners), *self._start.addresses])


class Master(Arbiter):  # type: ignore[misc]
    """Gunicorn's master, which tells its workers whether it stops them all or only replaces them."""

    app: Server

    def stop(self, graceful: bool = True) -> None:
        """Gunicorn's step after SIGTERM, SIGINT or SIGQUIT: ends all workers."""
        self.app.is_last.set()
        super().stop(graceful)


def gunicorn_options(settings: ServerSettings, logs: LogSettings) -> dict[str, Any]:
    """Gunicorn's options for a production server, but for where it listens and HTTPS."""
    return {
        "workers": settings.workers,
        "worker_class": worker_class(settings),
        "preload_app": True,  # the app, and with it the engine, is made once
        "proc_name": "iei",
        "timeout": 60,  # nothing slow runs on an event loop: a worker that is silent for this long has hung
        # From SIGTERM to SIGKILL, whatever the workers do in between; they take a moment for each step.
        "graceful_timeout": ceil(settings.drain_s + LINGER_S + settings.graceful_timeout_s) + 2,
        "backlog": 2048,
        "keepalive": 75,  # longer than the usual 60 s of load balancers, so that they close idle connections first
        "control_socket_disable": True,
        "worker_tmp_dir": None,
        "errorlog": None,  # gunicorn's logger has the handler of IEI's own by now
        # The summary replaces gunicorn's lines about its start.
        "loglevel": "debug" if logs.log_level == "debug" else "warning",
    }


def worker_class(settings: ServerSettings) -> type[UvicornWorker]:
    """Uvicorn's gunicorn worker with its options set: it ignores several of gunicorn's."""
    options = {
        **UvicornWorker.CONFIG_KWARGS,
        "server_header": False,
        "access_log": False,
        "ws": "none",  # each worker would import what there is for WebSockets
    }
    return type("Worker", (UvicornWorker,), {"CONFIG_KWARGS": options})


def summary(spec: ModelSpec, settings: Settings, addresses: list[str]) -> str:
    """The summary that is logged when the server is ready: model, device, addresses."""
    poolings = {name: dim for name, dim in spec.tower.outputs.items() if name in POOLED}
    default = spec.tower.pooling
    devices = settings.engine.devices
    note = f"; {DEMO_NOTE}" if spec.id == DEMO else ""
    takes = " and ".join(f"{name}s" for name in spec.modalities)
    rows = {
        "model": f"{spec.name} ({spec.model_type}, {spec.parameters / 1e6:.1f} M parameters{note})",
        "takes": takes,
        "vectors": f"{poolings[default]} dimensions, pooling {default} (offered: {', '.join(poolings)})",
        "device": f"{', '.join(devices) if len(devices) > 1 else spec.device}, {spec.dtype}",
        "runtime": f"{spec.runtime}, batches of up to {spec.max_batch}",
        "workers": str(settings.server.workers),
        "access": "with an API key" if settings.access.has_keys else "open to all: there are no API keys",
        "address": ", ".join(addresses),
    }
    return "\n".join([f"IEI {__version__} is ready", *(f"  {name:<8}  {value}" for name, value in rows.items())])
