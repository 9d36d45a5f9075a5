"""gunicorn's target: `gunicorn server:app --preload --worker-class uvicorn.workers.UvicornWorker …`.

Imported once, by the master: settings → catalog → further ports → engines → app. The engines load their models while
the app is imported. The workers are forked from the master and share the engines.
"""

from iei.engine.launch import launch_engines
from iei.errors import StartupError
from iei.grpc.port import reserve
from iei.machine_faults import sentence as machine_fault
from iei.models.catalog import read_catalog
from iei.serving.loading import ended_by_signals
from iei.settings import read_settings, unknown_variables
from iei.telemetry import logs
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS
from iei.telemetry.port import open_port

try:
    settings = read_settings()
    logs.configure(settings.logs)
    logs.warn(unknown_variables())
    if settings.server.tls_cert or settings.server.tls_key:  # it would listen in plain text, and nobody would notice
        raise StartupError("IEI_TLS_CERT and IEI_TLS_KEY are for `iei serve`: give gunicorn --certfile and --keyfile.")
    catalog = read_catalog(settings.models)
    grpc_port = reserve(settings)
    counters = Counters(METRICS)
    metrics_port = open_port(settings, counters)
    with ended_by_signals():
        engines = launch_engines(settings, catalog, counters)
        from iei.app import create_app  # takes half a second, in which the engines load their models
        from iei.engine.client import connect

        engine = connect([engine.address for engine in engines], catalog, settings.engine)
    app = create_app(settings, catalog, engine, counters, grpc_port)
except StartupError as error:
    raise SystemExit(f"iei: {error}") from None
except OSError as error:
    raise SystemExit(f"iei: {machine_fault(error)}") from None
