"""What a server has before gunicorn and the app are imported: its ports, and engines that load their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iei.commands.address import reserved
from iei.commands.tls import tls_options
from iei.engine.launch import LaunchedEngine, launch_engines
from iei.grpc.port import GrpcPort, reserve
from iei.models.catalog import Catalog
from iei.settings import Settings
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS
from iei.telemetry.port import MetricsPort, open_port


@dataclass(frozen=True)
class Start:
    """A server that is starting. Its engines end with the process that has this."""

    settings: Settings
    catalog: Catalog
    bind: str
    """Gunicorn's option of this name."""
    tls: Mapping[str, str]
    """Gunicorn's options for HTTPS."""
    grpc_port: GrpcPort | None
    counters: Counters
    metrics_port: MetricsPort | None
    engines: Sequence[LaunchedEngine]

    @property
    def addresses(self) -> list[str]:
        """Where it is found besides gunicorn's listeners."""
        grpc = [f"grpc://{self.grpc_port.address}"] if self.grpc_port else []
        return grpc + ([f"http://{self.metrics_port.address}/metrics"] if self.metrics_port else [])


def begin(settings: Settings, catalog: Catalog) -> Start:
    """Takes the ports, and starts the engines.

    Raises:
        StartupError: a port can't be had, the files for HTTPS can't be used, or an engine can't be started.
    """
    tls = tls_options(settings.server)
    bind = reserved(settings.server)
    grpc_port = reserve(settings)
    counters = Counters(METRICS)
    metrics_port = open_port(settings, counters)
    engines = launch_engines(settings, catalog, counters)
    return Start(settings, catalog, bind, tls, grpc_port, counters, metrics_port, engines)
