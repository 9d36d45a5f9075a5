"""One format for the lines of every process: when, how bad, who, what."""

from __future__ import annotations

import logging
import sys


def configure(level: str) -> None:
    """Sends `iei.*` to stderr. Called once in each process that IEI starts itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s [%(process)d] %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    logger = logging.getLogger("iei")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
