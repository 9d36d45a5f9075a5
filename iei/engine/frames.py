"""Control frames between a worker and the engine: 64 bytes each, both ways, over a Unix stream socket.

Frames say where data lies; the data itself (pixels, token ids, vectors, error texts) lies in the worker's arena. The
socket is a stream rather than SOCK_SEQPACKET because one `recv` then takes every frame that has arrived, and because
macOS has no SOCK_SEQPACKET for Unix sockets.

One rule keeps the shared memory safe: **every submitted job gets exactly one reply, and its slot belongs to the engine
from submit to reply** (or to the end of the engine's process). A worker that gives up on a job sends a `Cancel` and
still waits for the reply before it uses the slot again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from iei.engine.answers import NOT_RUN, Forward, Status
from iei.models.spec import MODALITIES, OUTPUTS, Modality
from iei.priority import Priority

FRAME_BYTES = 64
SLOT_HEADER_BYTES = 64
"""Size of a slot's header, a whole cache line so that what follows is aligned. Its first byte is the `Progress`."""

DTYPES = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int32))
"""Types of input arrays; a frame names one by its place here."""
PRIORITIES = tuple(Priority)


class Kind(IntEnum):
    """First byte of a frame."""

    HELLO = 1
    WELCOME = 2
    SUBMIT = 3
    CANCEL = 4
    REPLY = 5
    DESCRIBE = 6


class Progress(IntEnum):
    """First byte of a slot, written by the engine: shows which jobs were running when an engine crashed."""

    WAITING = 0
    RUNNING = 1


class Slot(NamedTuple):
    """A job's range in the arena: a header, the input, and the output region, each on a cache line."""

    input_bytes: int
    output_bytes: int
    offset: int = 0
    """Of the header in the arena; the link sets it once the range is reserved."""

    @property
    def input_offset(self) -> int:
        """Offset of the input in the arena."""
        return self.offset + SLOT_HEADER_BYTES

    @property
    def output_offset(self) -> int:
        """Offset of the output region in the arena."""
        return self.input_offset + aligned(self.input_bytes)

    @property
    def nbytes(self) -> int:
        """Size of the whole slot."""
        return SLOT_HEADER_BYTES + aligned(self.input_bytes) + aligned(self.output_bytes)


_HELLO = struct.Struct("<B7xQQ40x")
_WELCOME = struct.Struct("<B?62x")
_SUBMIT = struct.Struct("<BBBBHBxQIIIIQQQd")
_CANCEL = struct.Struct("<B7xQ48x")
_DESCRIBE = struct.Struct("<B3xIQQQ32x")
_REPLY = struct.Struct("<BB6xQQddII16x")


class Hello(NamedTuple):
    """Worker → engine, first on a connection, together with the arena's file descriptor."""

    arena_bytes: int
    pid: int
    """Of the worker, for the log."""

    def pack(self) -> bytes:
        """The frame's bytes."""
        return _HELLO.pack(Kind.HELLO, self.arena_bytes, self.pid)

    @classmethod
    def unpack(cls, frame: bytes) -> Hello:
        """Reverses `pack`."""
        return cls(*_HELLO.unpack(frame)[1:])


class Welcome(NamedTuple):
    """Engine → worker: the arena is mapped, jobs may be sent."""

    after_kill: bool = False
    """Whether the engine before this one was killed (SIGKILL), which no input can do to it, unless by its memory."""

    def pack(self) -> bytes:
        """The frame's bytes."""
        return _WELCOME.pack(Kind.WELCOME, self.after_kill)

    @classmethod
    def unpack(cls, frame: bytes) -> Welcome:
        """Reverses `pack`."""
        return cls(*_WELCOME.unpack(frame)[1:])


class Submit(NamedTuple):
    """Worker → engine: run the input in the slot and write the outputs to its output region."""

    job: int
    """Unique among the unanswered jobs of the connection."""
    model: int
    """Place in the catalog."""
    modality: Modality
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """Of the input array: one to three dimensions, the last of several not zero."""
    outputs: tuple[str, ...]
    """Wanted outputs, in the order of OUTPUTS."""
    slot: Slot
    deadline: float
    """`time.monotonic()`, which all processes of a machine share."""
    attempt: int = 0
    """How many engines have died while they ran this job."""
    priority: Priority = Priority.INTERACTIVE

    def pack(self) -> bytes:
        """The frame's bytes.

        Raises:
            ValueError: the dtype or an output has no number.
        """
        return _SUBMIT.pack(
            Kind.SUBMIT,
            self.attempt,
            MODALITIES.index(self.modality),
            DTYPES.index(self.dtype),
            self.model,
            self.priority,
            self.job,
            outputs_mask(self.outputs),
            *self.shape,
            *(0,) * (3 - len(self.shape)),
            self.slot.offset,
            self.slot.input_bytes,
            self.slot.output_bytes,
            self.deadline,
        )

    @classmethod
    def unpack(cls, frame: bytes) -> Submit:
        """Reverses `pack`.

        Raises:
            ValueError: the modality, the dtype, the priority or an output has no meaning.
        """
        _, attempt, modality, dtype, model, priority, *rest = _SUBMIT.unpack(frame)
        job, mask, *shape, offset, inputs, outputs, deadline = rest
        if modality >= len(MODALITIES) or dtype >= len(DTYPES) or priority >= len(PRIORITIES):
            raise ValueError(f"there is no modality {modality}, or no dtype {dtype}, or no priority {priority}")
        return cls(
            job=job,
            model=model,
            modality=MODALITIES[modality],
            dtype=DTYPES[dtype],
            shape=_without_padding(shape),
            outputs=outputs_named(mask),
            slot=Slot(inputs, outputs, offset),
            deadline=deadline,
            attempt=attempt,
            priority=PRIORITIES[priority],
        )


class Cancel(NamedTuple):
    """Worker → engine: nobody waits for this job any more. It is answered all the same."""

    job: int

    def pack(self) -> bytes:
        """The frame's bytes."""
        return _CANCEL.pack(Kind.CANCEL, self.job)

    @classmethod
    def unpack(cls, frame: bytes) -> Cancel:
        """Reverses `pack`."""
        return cls(*_CANCEL.unpack(frame)[1:])


class Describe(NamedTuple):
    """Worker → engine: load this model if needed, and write its ModelSpec as JSON to the output region."""

    job: int
    """Unique among the unanswered jobs of the connection."""
    model: int
    """Place in the catalog."""
    slot: Slot
    """Without an input."""

    @property
    def priority(self) -> Priority:
        """Whoever asked: all requests for the model wait for its description."""
        return Priority.INTERACTIVE

    def pack(self) -> bytes:
        """The frame's bytes."""
        return _DESCRIBE.pack(Kind.DESCRIBE, self.model, self.job, self.slot.offset, self.slot.output_bytes)

    @classmethod
    def unpack(cls, frame: bytes) -> Describe:
        """Reverses `pack`."""
        _, model, job, offset, output_bytes = _DESCRIBE.unpack(frame)
        return cls(job, model, Slot(0, output_bytes, offset))


class Reply(NamedTuple):
    """Engine → worker: the job is over, and its slot is the worker's again."""

    job: int
    status: Status
    nbytes: int = 0
    """Bytes written to the output region: outputs, a description or the text of an error."""
    forward: Forward = NOT_RUN

    def pack(self) -> bytes:
        """The frame's bytes."""
        return _REPLY.pack(Kind.REPLY, self.status, self.job, self.nbytes, *self.forward)

    @classmethod
    def unpack(cls, frame: bytes) -> Reply:
        """Reverses `pack`.

        Raises:
            ValueError: there is no such status.
        """
        _, status, job, nbytes, *forward = _REPLY.unpack(frame)
        return cls(job, Status(status), nbytes, Forward(*forward))


Frame = Hello | Welcome | Submit | Cancel | Describe | Reply

_UNPACK: Mapping[int, Callable[[bytes], Frame]] = {
    Kind.HELLO: Hello.unpack,
    Kind.WELCOME: Welcome.unpack,
    Kind.SUBMIT: Submit.unpack,
    Kind.CANCEL: Cancel.unpack,
    Kind.REPLY: Reply.unpack,
    Kind.DESCRIBE: Describe.unpack,
}


def unpack(frame: bytes) -> Frame:
    """The frame that was packed into `frame`.

    Raises:
        ValueError: it is not 64 bytes long, its kind is unknown, or a field has no meaning.
    """
    if len(frame) != FRAME_BYTES:
        raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(frame)}")
    if frame[0] not in _UNPACK:
        raise ValueError(f"there is no frame of kind {frame[0]}")
    return _UNPACK[frame[0]](frame)


class FrameBuffer:
    """Joins the bytes of a stream, as they arrive, to whole frames."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are complete with `data`; a rest is kept for the next call."""
        data = self._pending + data
        whole = len(data) - len(data) % FRAME_BYTES
        self._pending = data[whole:]
        return (data[start : start + FRAME_BYTES] for start in range(0, whole, FRAME_BYTES))


def outputs_mask(names: Iterable[str]) -> int:
    """A bit for each output: bit i for OUTPUTS[i]."""
    return sum(1 << OUTPUTS.index(name) for name in set(names))


def outputs_named(mask: int) -> tuple[str, ...]:
    """The outputs of a mask, in the order of OUTPUTS.

    Raises:
        ValueError: a bit has no output.
    """
    if mask >> len(OUTPUTS):
        raise ValueError(f"a mask of outputs can't be {mask:#x}")
    return tuple(name for index, name in enumerate(OUTPUTS) if mask >> index & 1)


def pack_outputs(outputs: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """What an output region holds: the outputs one after the other, in the order of OUTPUTS."""
    return b"".join(outputs[name].tobytes() for name in _ordered(outputs))


def unpack_outputs(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """What `pack_outputs` packed.

    Args:
        content: of an output region.
        shapes: output → its shape, in any order.

    Raises:
        ValueError: the content is not of these shapes.
    """
    values = np.frombuffer(content, np.float32)
    outputs: dict[str, npt.NDArray[np.float32]] = {}
    start = 0
    for name in _ordered(shapes):
        stop = start + prod(shapes[name])
        outputs[name] = values[start:stop].reshape(shapes[name])
        start = stop
    if start != len(values):
        raise ValueError(f"{len(values)} values are more than the {start} of {dict(shapes)}")
    return outputs


def packed_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Size of outputs of these shapes in an output region."""
    return 4 * sum(map(prod, shapes.values()))


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to whole cache lines, so that every region of a slot begins on one."""
    return (nbytes + 63) & ~63


def _ordered(names: Iterable[str]) -> list[str]:
    """The names in the order in which outputs lie in a region, whichever order the caller has them in."""
    return sorted(names, key=OUTPUTS.index)


def _without_padding(extents: Iterable[int]) -> tuple[int, ...]:
    """A shape without the zeros that fill it up to three dimensions; an empty text keeps its one dimension."""
    shape = tuple(extents)
    while len(shape) > 1 and not shape[-1]:
        shape = shape[:-1]
    return shape
