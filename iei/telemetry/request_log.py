"""A line in the log for each request, made from its record."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from iei.settings import LogSettings
from iei.telemetry.record import STAGES, Observer, Record

log = logging.getLogger("iei.requests")


class RequestLine:
    """What the log says of a request. Nothing in it was written by the client but the id, which has been checked."""

    def __init__(self, record: Record) -> None:
        self._record = record

    @property
    def fields(self) -> Mapping[str, Any]:
        """For JSON: what is not known of a request is left out."""
        record = self._record
        known = {
            "id": record.id,
            "method": record.method,
            "route": record.route,
            "dialect": record.dialect,
            "status": record.status,
            "error": type(record.error).__name__ if record.error else "",
            "trace_id": record.trace_id,
            "model": record.model,
            "key": record.key,
            "priority": record.priority.label if record.inputs else "",
            "inputs": dict(record.inputs),
            "received_bytes": record.received_bytes,
            "sent_bytes": record.sent_bytes,
            "ms": _ms(record.ended - record.started),
            "stages_ms": self._stages(),
        }
        return {name: value for name, value in known.items() if value not in ("", {})}

    def __str__(self) -> str:
        """`POST /embed 200, 3 images, 41.2 ms (receive 0.3, parse 0.1, …) id=… model=…`."""
        record = self._record
        request = " ".join(filter(None, (record.method, record.route or "(no route)", str(record.status))))
        inputs = (f"{count} {modality}{'s' * (count != 1)}" for modality, count in record.inputs.items())
        stages = ", ".join(f"{stage} {ms:g}" for stage, ms in self._stages().items())
        took = f"{_ms(record.ended - record.started):g} ms" + (f" ({stages})" if stages else "")
        names = {"error": type(record.error).__name__ if record.error else "", "id": record.id}
        names |= {"model": record.model, "key": record.key}
        named = " ".join(f"{name}={value}" for name, value in names.items() if value)
        return f"{', '.join((request, *inputs, took))} {named}"

    def _stages(self) -> dict[str, float]:
        """Milliseconds by stage: of all inputs together, from the first one's begin to the last one's end."""
        stages = self._record.stages
        return {stage: _ms(stages[stage].end - stages[stage].start) for stage in STAGES if stage in stages}


def log_requests(settings: LogSettings, quiet: Collection[tuple[str, str]]) -> list[Observer]:
    """What the setting `log_requests` asks for: an observer that logs, or none.

    Args:
        settings: which requests are logged.
        quiet: method and route of requests that are never logged: machines make them every few seconds.
    """

    def log_failed(record: Record) -> None:
        if not 0 < record.status < 400 and (record.method, record.route) not in quiet:
            log.info(RequestLine(record))

    def log_all(record: Record) -> None:
        if (record.method, record.route) not in quiet:
            log.info(RequestLine(record))

    observers: Mapping[str, list[Observer]] = {"off": [], "failed": [log_failed], "all": [log_all]}
    return observers[settings.log_requests]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
