"""Logging, in one format for all processes: time, process id, level, logger and message."""

from __future__ import annotations

import logging
import sys


def configure(level: str) -> None:
    """Sends the `iei.*` loggers to stderr. Called once in each process that IEI starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s [%(process)d] %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    logger = logging.getLogger("iei")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
