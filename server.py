"""gunicorn's target: `gunicorn server:app --preload --worker-class uvicorn.workers.UvicornWorker …`.

Imported once, by the master: settings → engine → app. The workers are forked from it and share the engine.
"""

from iei.app import create_app
from iei.engine.client import connect
from iei.engine.launch import launch_engines
from iei.errors import StartupError
from iei.settings import read_settings
from iei.telemetry import logs

try:
    settings = read_settings()
    logs.configure(settings.log_level)
    engines = launch_engines(settings)
    app = create_app(settings, connect(engines, settings))
except StartupError as error:
    raise SystemExit(f"iei: {error}") from None
