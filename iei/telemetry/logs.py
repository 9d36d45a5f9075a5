"""Logging: what all processes write to stderr, as lines for people or as JSON for machines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import orjson

if TYPE_CHECKING:
    from iei.settings import LogSettings

OURS = "iei"
THEIRS = ("gunicorn.error", "uvicorn.error", "py.warnings", "asyncio", "opentelemetry")
"""Loggers of others, whose lines get the same form. Their levels stay theirs."""
QUIET = ("python_multipart",)
"""Loggers with a line for each bad byte of a stranger's form, which is answered 400: they are heard from `error` on."""


class Form(NamedTuple):
    """What of `LogSettings` matters here, for processes that do without the settings."""

    log_level: str
    log_format: str


@runtime_checkable
class Fielded(Protocol):
    """A message that has fields of its own: JSON shows them one by one, and `str` makes the line for people."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """Name → value."""
        ...


def configure(settings: LogSettings | Form) -> None:
    """Sends IEI's lines to stderr, and those of the servers under it. Called once in each process that IEI starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[settings.log_format]())
    ours = logging.getLogger(OURS)
    ours.handlers = [handler]
    ours.setLevel(settings.log_level.upper())
    ours.propagate = False
    for theirs in map(logging.getLogger, THEIRS):
        theirs.handlers = theirs.handlers or [handler]
        for each in theirs.handlers:  # where their lines go was decided by whoever started gunicorn
            each.setFormatter(handler.formatter)
        theirs.propagate = False
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(settings.log_format == "json")


def warn(sentences: Iterable[str]) -> None:
    """Logs what an operator should know about a start."""
    for sentence in sentences:
        logging.getLogger(OURS).warning("%s", sentence)


class HumanFormatter(logging.Formatter):
    """Time, process id, level, logger and message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(process)d] %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object per line; a traceback is a string in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if isinstance(record.msg, Fielded):
            line |= record.msg.fields
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


FORMATTERS: Mapping[str, type[logging.Formatter]] = {"human": HumanFormatter, "json": JsonFormatter}
"""By the values of the setting `log_format`."""
