"""`iei serve`: gunicorn with options for production, and a summary when the server is ready."""

from __future__ import annotations

import logging
from math import ceil
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from iei import __version__
from iei.commands.address import reserved
from iei.commands.tls import tls_options
from iei.engine.client import connect
from iei.engine.launch import LaunchedEngine, launch_engines
from iei.grpc.port import reserve
from iei.models.catalog import DEMO, DEMO_NOTE, Catalog, read_catalog
from iei.models.spec import POOLED, ModelSpec
from iei.serving.connections import LINGER_S
from iei.serving.flag import SharedFlag
from iei.settings import LogSettings, ServerSettings, Settings, unknown_variables
from iei.telemetry.counters import Counters
from iei.telemetry.logs import configure, warn
from iei.telemetry.metrics import METRICS
from iei.telemetry.port import open_port

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("iei")


def run(settings: Settings) -> None:
    """Serves until the process gets a signal to stop.

    Raises:
        StartupError: a model can't be loaded, or a setting is invalid.
    """
    configure(settings.logs)
    warn(unknown_variables())
    catalog = read_catalog(settings.models)
    loaded = ", ".join(entry.id for entry in catalog.entries[: settings.engine.at_start])
    log.info("IEI %s loads %s …", __version__, loaded)
    Server(settings, catalog).run()


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn is not typed
    """Loads the app once, in the master, before the port opens; then forks the workers."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._options = {**gunicorn_options(settings.server, settings.logs), "bind": reserved(settings.server)}
        self._grpc_port = reserve(settings)
        self._counters = Counters(METRICS)
        self._metrics_port = open_port(settings, self._counters)
        self._engines: list[LaunchedEngine] = []
        self.is_last = SharedFlag()
        """Of the workers that run now: whether no others will follow them."""
        super().__init__()

    def run(self) -> None:
        """Serves until a signal ends it. Exits."""
        Master(self).run()

    def load_config(self) -> None:
        """Gunicorn's hook: its options, from IEI's settings alone."""
        for name, value in self._options.items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", lambda arbiter: log.info("%s", self._summary(arbiter.LISTENERS)))

    def load(self) -> FastAPI:
        """Gunicorn's hook, called once in the master: engines with their models, and the app."""
        self._engines = launch_engines(self._settings, self._catalog, self._counters)
        from iei.app import create_app  # takes half a second, in which the engines load their models

        addresses = [engine.address for engine in self._engines]
        engine = connect(addresses, self._catalog, self._settings.engine)
        return create_app(self._settings, self._catalog, engine, self._counters, self._grpc_port, self.is_last)

    def _summary(self, listeners: list[Any]) -> str:
        spec = self._engines[0].address.default
        addresses = [str(listener) for listener in listeners]
        if self._grpc_port:
            addresses.append(f"grpc://{self._grpc_port.address}")
        if self._metrics_port:
            addresses.append(f"http://{self._metrics_port.address}/metrics")
        return summary(spec, self._settings, addresses)


class Master(Arbiter):  # type: ignore[misc]
    """Gunicorn's master, which tells its workers whether it stops them all or only replaces them."""

    app: Server

    def stop(self, graceful: bool = True) -> None:
        """Gunicorn's step after SIGTERM, SIGINT or SIGQUIT: ends all workers."""
        self.app.is_last.set()
        super().stop(graceful)


def gunicorn_options(settings: ServerSettings, logs: LogSettings) -> dict[str, Any]:
    """Gunicorn's options for a production server, but for where it listens.

    Raises:
        StartupError: the files for HTTPS can't be used.
    """
    return {
        **tls_options(settings),
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
