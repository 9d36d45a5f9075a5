"""Control frames between workers and the engine: whatever arrives, it is a frame or a ValueError."""

from __future__ import annotations

import contextlib
import gc
import os
import socket

import psutil
from hypothesis import given
from hypothesis import strategies as st

from iei.engine.answers import Status
from iei.engine.connection import Connection
from iei.engine.frames import (
    DTYPES,
    FRAME_BYTES,
    Cancel,
    Describe,
    FrameBuffer,
    Hello,
    Kind,
    Reply,
    Slot,
    Submit,
    Welcome,
    unpack,
)
from tests.fuzz.damage import damaged
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused

ARENA = 4096
SOUND = (
    Hello(ARENA, 1).pack(),
    Welcome().pack(),
    Submit(1, 0, "image", DTYPES[0], (8, 8, 3), ("mean",), Slot(192, 64), deadline=0.0).pack(),
    Cancel(1).pack(),
    Describe(2, 0, Slot(0, 1024)).pack(),
    Reply(1, Status.OK, 12).pack(),
)
NOISE = st.one_of(
    st.binary(max_size=2 * FRAME_BYTES),
    st.builds(
        lambda kind, rest: bytes([kind]) + rest,
        st.sampled_from(Kind),
        st.binary(min_size=FRAME_BYTES - 1, max_size=FRAME_BYTES - 1),
    ),
    st.sampled_from(SOUND).flatmap(damaged),
)


@examples(300)
@given(NOISE)
def test_any_bytes_are_a_frame_or_a_value_error(noise: bytes) -> None:
    with or_refused(ValueError):
        frame = unpack(noise)
        assert unpack(frame.pack())[:-1] == frame[:-1]  # the last field may be NaN, which equals nothing


@examples(200)
@given(st.lists(st.binary(max_size=3 * FRAME_BYTES), max_size=10))
def test_a_stream_is_cut_into_frames_wherever_it_arrives_in_pieces(pieces: list[bytes]) -> None:
    buffer = FrameBuffer()
    frames = [frame for piece in pieces for frame in buffer.feed(piece)]
    whole = b"".join(pieces)
    assert all(len(frame) == FRAME_BYTES for frame in frames)
    assert b"".join(frames) == whole[: len(whole) - len(whole) % FRAME_BYTES]


@examples(150)
@given(
    hello=st.just(SOUND[0]) | NOISE,
    stream=st.lists(st.sampled_from(SOUND) | NOISE, max_size=4),
    descriptors=st.sampled_from((1, 1, 1, 0, 2)),
)
def test_a_connection_yields_frames_or_a_value_error(hello: bytes, stream: list[bytes], descriptors: int) -> None:
    before = psutil.Process().num_fds()
    send_to_a_connection(hello, stream, descriptors)
    if psutil.Process().num_fds() > before:
        gc.collect()  # what an exception's traceback still refers to
    assert psutil.Process().num_fds() <= before  # fewer: the collector has closed what another test left


def send_to_a_connection(hello: bytes, stream: list[bytes], descriptors: int) -> None:
    """Sends a HELLO with the descriptors of so many arenas, and what follows it, until the connection is refused."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ours, Welcome())
    arenas = [os.memfd_create("arena") for _ in range(descriptors)]
    for arena in arenas:
        os.ftruncate(arena, ARENA)
    try:
        with theirs, or_refused(ValueError, ConnectionError):
            for piece, fds in ((hello, arenas), *((piece, []) for piece in stream)):
                if piece:
                    socket.send_fds(theirs, [piece], fds)
                with contextlib.suppress(BlockingIOError):
                    while (frames := connection.receive()) is not None:
                        assert all(len(frame.pack()) == FRAME_BYTES for frame in frames)
    finally:
        connection.close()
        for arena in arenas:
            os.close(arena)
