"""`iei serve`: ports, engines, and then gunicorn with the app."""

from __future__ import annotations

import gc
import logging
import os

from iei import __version__
from iei.commands.start import begin
from iei.models.catalog import read_catalog
from iei.settings import Settings, unknown_variables
from iei.telemetry.logs import configure, warn

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
    # Numpy would start a thread for each core, which spin for a tenth of a second, in each process that imports it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    start = begin(settings, catalog)
    gc.disable()  # until the app is made, and frozen
    from iei.commands.master import Server  # takes a second, in which the engines load their models

    Server(start).run()
