"""Which failures of a request pass, and when it is sent again.

Embedding the same items twice gives the same vectors, so every request may be repeated.
"""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import httpx2

Outcome: TypeAlias = httpx2.Response | httpx2.RequestError
"""What came of an attempt."""

STATUSES = frozenset({429, 502, 503})
"""Too much is waiting or a key is over its limit; the server behind a proxy is away; the model is not loaded (yet)."""
ERRORS = (httpx2.NetworkError, httpx2.ConnectTimeout, httpx2.RemoteProtocolError)
"""Refused and reset connections, and those that end before the answer. An answer that takes too long is not among them:
a second request would make it later still."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0

log = logging.getLogger("iei.client")


class Attempts:
    """The attempts at one request.

    Args:
        retry_s: how long it is sent again, counted from its first failure.
    """

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._gives_up_at: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def pause_s(self, outcome: Outcome) -> float | None:
        """Seconds until the next attempt, or None if `outcome` is final: a success, an error that stays, or too late.

        What the server asks for (`Retry-After`) is waited at least. Pauses double, and are random: those who failed
        together should not come back together.
        """
        if not _passes(outcome):
            return None
        now = time.monotonic()
        if self._gives_up_at is None:
            self._gives_up_at = now + self._retry_s
        pause_s = _asked_for_s(outcome) + self._pause_s * random.uniform(0.5, 1)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if now + pause_s > self._gives_up_at:
            return None
        is_busy = isinstance(outcome, httpx2.Response) and outcome.status_code == 429
        log.log(
            logging.INFO if is_busy else logging.WARNING,
            "%s; trying again in %.1f s, for %.0f s more",
            _described(outcome),
            pause_s,
            self._gives_up_at - now,
        )
        return pause_s


def _passes(outcome: Outcome) -> bool:
    if isinstance(outcome, httpx2.Response):
        return outcome.status_code in STATUSES
    # A certificate that is not trusted will not be at the next attempt, either.
    return isinstance(outcome, ERRORS) and not any(isinstance(cause, ssl.SSLError) for cause in _causes(outcome))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _asked_for_s(outcome: Outcome) -> float:
    """Retry-After in seconds; it may be a date, as proxies send it (RFC 9110, section 10.2.3)."""
    value = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx2.Response) else ""
    if value.isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _described(outcome: Outcome) -> str:
    if isinstance(outcome, httpx2.Response):
        return f"{outcome.request.url.copy_with(query=None)} answers {outcome.status_code}"
    return f"{outcome.request.url.copy_with(query=None)}: {outcome or type(outcome).__name__}"
