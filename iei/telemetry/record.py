"""What is known of a request while it is served: one record, which every room adds to.

Whoever serves a protocol makes the record, and hands it to the observers when the answer has been sent: metrics, logs
and traces are made of the same numbers and can't disagree. The rooms in between find it by `current` and add to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from iei.errors import IEIError
from iei.priority import Priority

if TYPE_CHECKING:
    from iei.models.spec import Modality

CARRIED = ("traceparent", "tracestate")
"""Headers of a request that say which trace it belongs to: https://www.w3.org/TR/trace-context/."""

Stage = Literal["receive", "parse", "fetch", "wait", "decode", "resize", "tokenize", "queue", "forward", "serialise"]
"""What the time of a request is spent on.

`receive`: from its head to the end of its body. `parse`: until it is admitted. Then, for each input: `fetch`, if it is
a URL; `wait` for a thread; `decode` and `resize`, or `tokenize`; `queue`: until a batch took it; `forward`, which the
whole batch shared. `serialise`: from the last vector to the head of the answer.
"""
STAGES: tuple[Stage, ...] = get_args(Stage)


class Lap(NamedTuple):
    """One stage of one input, or of the request as a whole, in seconds of `time.perf_counter`."""

    stage: Stage
    start: float
    end: float


@dataclass(slots=True)
class Stretch:
    """A stage over all inputs of a request, in seconds of `time.perf_counter`. Inputs are worked on side by side."""

    start: float
    """When the first input began it."""
    end: float
    """When the last input ended it."""
    seconds: float
    """The sum over the inputs."""
    count: int
    """How many inputs went through it; 1 if it is of the request as a whole."""


@dataclass(slots=True)
class Record:
    """A request. For the event loop's thread alone: other threads hand their laps back."""

    id: str = ""
    """`X-Request-Id`."""
    method: str = ""
    """Of HTTP; gRPC's calls are POST."""
    route: str = ""
    """Its template, such as `/v2/models/{model}/infer`, or a method of gRPC; empty: it met no route."""
    dialect: str = ""
    """Whose route it is; empty like `route`."""
    key: str = ""
    """Name of the API key; empty: none was needed."""
    model: str = ""
    """Served name; empty until it is known."""
    priority: Priority = Priority.INTERACTIVE
    inputs: dict[Modality, int] = field(default_factory=dict)
    """How many there are, once they have been admitted."""
    received_bytes: int = 0
    """Of the body, unpacked."""
    sent_bytes: int = 0
    """Of the answer's body."""
    pixels: int = 0
    """Of all pictures, as they were decoded."""
    status: int = 0
    """Of HTTP, also for gRPC; 0: nothing was answered, the client has gone."""
    error: IEIError | None = None
    """Why it was refused, or failed."""
    stages: dict[Stage, Stretch] = field(default_factory=dict)
    largest_batch: int = 0
    """Of the forwards that its inputs were part of."""
    engine_pid: int = 0
    """Process id of the engine that ran its last input."""
    carried: Mapping[str, str] = field(default_factory=dict)
    """What the request says of the trace that it belongs to."""
    trace_id: str = ""
    """Of that trace, or of its own; empty: there are no traces."""
    is_computed: bool = False
    """Whether all vectors were there."""
    started: float = field(default_factory=time.perf_counter)
    started_ns: int = field(default_factory=time.time_ns)
    """The same moment in nanoseconds since 1970: what spans of traces need."""
    ended: float = 0.0
    _reached: float = 0.0

    def add(self, lap: Lap) -> None:
        """Adds one lap to its stage."""
        stage, start, end = lap
        if stretch := self.stages.get(stage):
            stretch.start = min(stretch.start, start)
            stretch.end = max(stretch.end, end)
            stretch.seconds += end - start
            stretch.count += 1
        else:
            self.stages[stage] = Stretch(start, end, end - start, 1)

    def reach(self, stage: Stage | None = None) -> None:
        """Ends a stage of the request as a whole: the time since this was last called. None: that time has no stage."""
        now = time.perf_counter()
        if stage:
            self.add(Lap(stage, self._reached or self.started, now))
        self._reached = now

    def end(self) -> None:
        """The answer has been sent, or nobody is left to send it to."""
        self.ended = time.perf_counter()


Observer = Callable[[Record], None]
"""What is done with the record of a request that has ended. It must be quick and must not raise."""

RECORD: ContextVar[Record | None] = ContextVar("record", default=None)
"""The request that this task works on. Tasks made by it share it; threads don't have it."""


def current() -> Record:
    """The record of the request that this task works on; where there is no server, one that nobody reads."""
    return RECORD.get() or Record()


def carried(headers: Mapping[str, str]) -> Mapping[str, str]:
    """What the headers of a request, by names in lower case, say of the trace that it belongs to."""
    return {name: headers[name] for name in CARRIED if name in headers}


def finish(record: Record, observers: Sequence[Observer]) -> None:
    """Ends the record and hands it to those who make something of it."""
    record.end()
    for observe in observers:
        observe(record)
