"""What becomes of a job: the statuses, an answer, and the error that a status means to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from iei.errors import BackendFailed, IEIError, Overloaded, Unhealthy
from iei.models.spec import ModelSpec
from iei.runtimes.api import Outputs


class Status(IntEnum):
    """What became of a job."""

    OK = 0
    FAILED = 1
    """The model failed on this input."""
    CANCELLED = 2
    """The caller gave the job up before it ran."""
    EXPIRED = 3
    """The deadline passed while the job waited."""
    UNAVAILABLE = 4
    """The model can't be loaded at present."""


class Forward(NamedTuple):
    """What is measured of the forward that a job was part of. Handed on whole, from the scheduler to the service."""

    queue_s: float = 0.0
    """From submission until a batch took the job."""
    inference_s: float = 0.0
    """Duration of the forward, which the whole batch shared."""
    batch_size: int = 0
    """Inputs of that batch."""
    engine_pid: int = 0
    """The process that ran it."""


NOT_RUN = Forward()
"""Of a job that was answered without a forward."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The scheduler's answer to one job."""

    status: Status
    content: Outputs | ModelSpec | str = ""
    """If the status is OK, the outputs of the input or the description of the model; else the reason, or nothing."""
    forward: Forward = NOT_RUN


def error_of(status: Status, reason: str = "") -> IEIError:
    """The error to raise for a job that ended with `status`, which is not OK.

    Args:
        status: why there is no result.
        reason: what the scheduler says about it; empty for the usual text of the status.
    """
    return _ERRORS[status](reason or _REASONS[status])


_ERRORS: Mapping[Status, type[IEIError]] = {
    Status.FAILED: BackendFailed,
    Status.CANCELLED: Overloaded,
    Status.EXPIRED: Overloaded,
    Status.UNAVAILABLE: Unhealthy,
}
_REASONS: Mapping[Status, str] = {
    Status.FAILED: "the model failed on this input",
    Status.CANCELLED: "the job was cancelled",
    Status.EXPIRED: "this input waited for the model longer than it may (IEI_REQUEST_TIMEOUT_S)",
    Status.UNAVAILABLE: "the model can't be loaded",
}
