"""`iei serve`: gunicorn, set as a production server needs it, with a summary that a person can read."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI
from gunicorn.app.base import BaseApplication
from uvicorn_worker import UvicornWorker

from iei import __version__
from iei.app import create_app
from iei.engine.client import connect
from iei.engine.launch import LaunchedEngine, launch_engines
from iei.models.catalog import DEMO
from iei.models.spec import POOLED, ModelSpec
from iei.settings import Settings

log = logging.getLogger("iei")


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn is not typed
    """Loads the app once, in the master, before a port is open; then forks the workers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engines: list[LaunchedEngine] = []
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", lambda arbiter: log.info("%s", self._summary(arbiter.LISTENERS)))

    def load(self) -> FastAPI:
        self._engines = launch_engines(self._settings)
        return create_app(self._settings, connect(self._engines, self._settings))

    def _summary(self, listeners: list[Any]) -> str:
        spec = self._engines[0].address.default
        return summary(spec, self._settings, [str(listener) for listener in listeners])


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    return {
        "bind": settings.bind,
        "workers": settings.workers,
        "worker_class": worker_class(settings),
        "preload_app": True,  # the app, and with it the engine, is made once
        "proc_name": "iei",
        "timeout": 60,  # nothing slow runs on an event loop: a worker that is silent for this long hangs
        "graceful_timeout": settings.graceful_timeout_s,
        "backlog": 2048,
        "keepalive": 75,  # longer than the usual 60 s of load balancers, or they meet connections that have just closed
        "control_socket_disable": True,
        "worker_tmp_dir": None,
        "loglevel": "debug" if settings.log_level == "debug" else "warning",  # the summary says what a start is about
    }


def worker_class(settings: Settings) -> type[UvicornWorker]:
    """uvicorn's worker ignores several of gunicorn's options: what matters is handed to uvicorn itself."""
    options = {
        **UvicornWorker.CONFIG_KWARGS,
        "timeout_graceful_shutdown": settings.graceful_timeout_s,
        "server_header": False,
        "access_log": False,
    }
    return type("Worker", (UvicornWorker,), {"CONFIG_KWARGS": options})


def summary(spec: ModelSpec, settings: Settings, addresses: list[str]) -> str:
    """What is being served, and where, at a glance."""
    poolings = {name: dim for name, dim in spec.tower.outputs.items() if name in POOLED}
    default = spec.tower.pooling
    untrained = "; UNTRAINED, its vectors carry no meaning" if spec.id == DEMO else ""
    takes = " and ".join(f"{name}s" for name in spec.modalities)
    rows = {
        "model": f"{spec.name} ({spec.model_type}, {spec.parameters / 1e6:.1f} M parameters{untrained})",
        "takes": takes,
        "vectors": f"{poolings[default]} dimensions, pooling {default} (offered: {', '.join(poolings)})",
        "device": f"{', '.join(settings.devices) if len(settings.devices) > 1 else spec.device}, {spec.dtype}",
        "runtime": f"{spec.runtime}, batches of up to {spec.max_batch}",
        "workers": str(settings.workers),
        "address": ", ".join(addresses),
    }
    return "\n".join([f"IEI {__version__} is ready", *(f"  {name:<8}  {value}" for name, value in rows.items())])
