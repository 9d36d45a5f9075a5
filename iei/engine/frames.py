"""Control frames between a worker and the engine: 64 bytes each, both ways, over a Unix stream socket.

Frames say where things lie; the things themselves (pixels, token ids, vectors, error texts) lie in the worker's arena.
A stream rather than SOCK_SEQPACKET because one `recv` then takes every frame that has arrived, and macOS has it too.

The one rule that keeps shared memory safe: **every submitted job gets exactly one reply, and its slot belongs to the
engine from submit to reply** (or to the end of the engine's process). A worker that gives up on a job sends a cancel
and still waits for the reply before it uses the slot again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iei.models.spec import OUTPUTS

FRAME_BYTES = 64
SLOT_HEADER_BYTES = 64
"""A slot begins with this much room, so that what follows is aligned. Its first byte is the job's `Progress`."""


class Kind(IntEnum):
    HELLO = 1
    """Worker → engine, first on a connection, with the arena's file descriptor."""
    WELCOME = 2
    """Engine → worker: the arena is mapped, jobs may come."""
    SUBMIT = 3
    CANCEL = 4
    """Worker → engine: nobody waits for this job any more. It is answered all the same."""
    REPLY = 5
    DESCRIBE = 6
    """Worker → engine: load this model if need be and write its ModelSpec, as JSON, to the output region."""


class Status(IntEnum):
    OK = 0
    FAILED = 1
    """The model failed on this input; the output region holds the text."""
    CANCELLED = 2
    EXPIRED = 3
    """The deadline passed while the job waited."""
    UNAVAILABLE = 4
    """The model can't be loaded, for now; the output region holds a text."""


class Progress(IntEnum):
    """First byte of a slot, written by the engine: which jobs a crash makes suspects."""

    WAITING = 0
    RUNNING = 1


DTYPES = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int32))


_HELLO = struct.Struct("<B7xQQ40x")
_SUBMIT = struct.Struct("<BBBBIQIIIIQQQd")
_REPLY = struct.Struct("<BB6xQQdd24x")


class Hello(NamedTuple):
    arena_bytes: int
    pid: int

    def pack(self) -> bytes:
        return _HELLO.pack(Kind.HELLO, self.arena_bytes, self.pid)

    @classmethod
    def unpack(cls, frame: bytes) -> Hello:
        kind, arena_bytes, pid = _HELLO.unpack(frame)
        if kind != Kind.HELLO:
            raise ValueError(f"a connection must begin with HELLO, not with a frame of kind {kind}")
        return cls(arena_bytes, pid)


class Submit(NamedTuple):
    """A job: SUBMIT, CANCEL and DESCRIBE share the layout (the last two use only what they need)."""

    kind: int
    job: int
    model: int = 0
    attempt: int = 0
    """How often an engine died while it ran this job."""
    modality: int = 0
    dtype: int = 0
    outputs: int = 0
    """Bit i set: OUTPUTS[i] is wanted."""
    shape: tuple[int, int, int] = (0, 0, 0)
    """Of the input array; trailing zeros are no dimensions."""
    slot: int = 0
    """Offset of the slot in the arena."""
    input_bytes: int = 0
    output_bytes: int = 0
    deadline: float = 0.0
    """`time.monotonic()`, which all processes of a machine share."""

    def pack(self) -> bytes:
        return _SUBMIT.pack(
            self.kind,
            self.attempt,
            self.modality,
            self.dtype,
            self.model,
            self.job,
            self.outputs,
            *self.shape,
            self.slot,
            self.input_bytes,
            self.output_bytes,
            self.deadline,
        )

    @classmethod
    def unpack(cls, frame: bytes) -> Submit:
        kind, attempt, modality, dtype, model, job, outputs, *rest = _SUBMIT.unpack(frame)
        d0, d1, d2, slot, input_bytes, output_bytes, deadline = rest
        return cls(
            kind, job, model, attempt, modality, dtype, outputs, (d0, d1, d2), slot, input_bytes, output_bytes, deadline
        )

    @property
    def input_offset(self) -> int:
        return self.slot + SLOT_HEADER_BYTES

    @property
    def output_offset(self) -> int:
        return self.input_offset + aligned(self.input_bytes)

    @property
    def slot_bytes(self) -> int:
        return SLOT_HEADER_BYTES + aligned(self.input_bytes) + aligned(self.output_bytes)


class Reply(NamedTuple):
    job: int
    status: int
    nbytes: int = 0
    """Bytes written to the output region: the wanted outputs one after the other, or a text."""
    queue_s: float = 0.0
    inference_s: float = 0.0

    def pack(self) -> bytes:
        return _REPLY.pack(Kind.REPLY, self.status, self.job, self.nbytes, self.queue_s, self.inference_s)

    @classmethod
    def unpack(cls, frame: bytes) -> Reply:
        _, status, job, nbytes, queue_s, inference_s = _REPLY.unpack(frame)
        return cls(job, status, nbytes, queue_s, inference_s)


WELCOME = bytes([Kind.WELCOME]).ljust(FRAME_BYTES, b"\0")


class FrameBuffer:
    """Bytes in as they arrive, whole frames out."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._pending + data
        whole = len(data) - len(data) % FRAME_BYTES
        self._pending = data[whole:]
        return (data[start : start + FRAME_BYTES] for start in range(0, whole, FRAME_BYTES))


def outputs_mask(names: tuple[str, ...]) -> int:
    return sum(1 << OUTPUTS.index(name) for name in set(names))


def outputs_named(mask: int) -> tuple[str, ...]:
    return tuple(name for index, name in enumerate(OUTPUTS) if mask >> index & 1)


def pack_outputs(outputs: Mapping[str, npt.NDArray[np.float32]], names: Sequence[str]) -> bytes:
    """What an output region holds: the wanted outputs, one after the other, in the order of `names`."""
    return b"".join(outputs[name].tobytes() for name in names)


def unpack_outputs(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """What `pack_outputs` packed, given the shapes in the same order.

    Raises:
        ValueError: the content is not of these shapes.
    """
    values = np.frombuffer(content, np.float32)
    outputs: dict[str, npt.NDArray[np.float32]] = {}
    start = 0
    for name, shape in shapes.items():
        stop = start + prod(shape)
        outputs[name] = values[start:stop].reshape(shape)
        start = stop
    if start != len(values):
        raise ValueError(f"{len(values)} values are more than the {start} of {dict(shapes)}")
    return outputs


def packed_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return 4 * sum(map(prod, shapes.values()))


def aligned(nbytes: int) -> int:
    """Rounded up to a cache line, so that every region of a slot begins on one."""
    return (nbytes + 63) & ~63
