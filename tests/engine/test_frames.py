from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.engine.answers import Forward, Status
from iei.engine.frames import (
    DTYPES,
    FRAME_BYTES,
    Cancel,
    Describe,
    Frame,
    FrameBuffer,
    Hello,
    Reply,
    Slot,
    Submit,
    Welcome,
    aligned,
    outputs_mask,
    outputs_named,
    pack_outputs,
    packed_bytes,
    unpack,
    unpack_outputs,
)
from iei.models.spec import MODALITIES, OUTPUTS
from iei.priority import Priority

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
SECONDS = st.floats(0, 1e9)
SUBMIT = Submit(1, 0, "image", DTYPES[0], (8, 8, 3), ("mean",), Slot(192, 64), deadline=0.0).pack()


def changed(frame: bytes, place: int, value: int) -> bytes:
    """The frame with another byte at `place`."""
    return frame[:place] + bytes([value]) + frame[place + 1 :]


SLOTS = st.builds(Slot, input_bytes=U64, output_bytes=U64, offset=U64)
FORWARDS = st.builds(Forward, SECONDS, SECONDS, U32, U32)
FRAMES = st.one_of(
    st.builds(Hello, arena_bytes=U64, pid=U64),
    st.builds(Welcome, st.booleans()),
    st.builds(
        Submit,
        job=U64,
        model=U16,
        modality=st.sampled_from(MODALITIES),
        dtype=st.sampled_from(DTYPES),
        shape=st.tuples(U32.filter(bool), U32.filter(bool), U32.filter(bool)) | st.tuples(U32),
        outputs=st.sets(st.sampled_from(OUTPUTS)).map(lambda names: tuple(sorted(names, key=OUTPUTS.index))),
        slot=SLOTS,
        deadline=SECONDS,
        attempt=U8,
        priority=st.sampled_from(Priority),
    ),
    st.builds(Cancel, job=U64),
    st.builds(Describe, job=U64, model=U32, slot=st.builds(Slot, st.just(0), U64, U64)),
    st.builds(Reply, job=U64, status=st.sampled_from(Status), nbytes=U64, forward=FORWARDS),
)


@given(FRAMES)
def test_a_frame_arrives_as_it_was_sent(frame: Frame) -> None:
    assert len(frame.pack()) == FRAME_BYTES
    received = unpack(frame.pack())
    assert type(received) is type(frame)
    assert received == frame


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        Welcome().pack()[:-1],
        Welcome().pack() + b"\0",
        b"\0" * FRAME_BYTES,
        b"\xff" * FRAME_BYTES,
        changed(SUBMIT, 2, len(MODALITIES)),
        changed(SUBMIT, 3, len(DTYPES)),
        changed(SUBMIT, 6, len(Priority)),
        changed(SUBMIT, 19, 255),
        changed(Reply(1, Status.OK).pack(), 1, len(Status)),
    ],
    ids=["empty", "short", "long", "kind 0", "kind 255", "modality", "dtype", "priority", "outputs", "status"],
)
def test_what_makes_no_sense_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match=r"frame|modality|outputs|Status"):
        unpack(frame)


@given(st.integers(0, 5), st.lists(st.integers(1, 200), max_size=10))
def test_frames_survive_being_cut_anywhere(count: int, cuts: list[int]) -> None:
    sent = [Reply(job=number, status=Status.OK).pack() for number in range(count)]
    stream = b"".join(sent)
    buffer = FrameBuffer()
    received: list[bytes] = []
    for cut in [*cuts, len(stream)]:
        received += buffer.feed(stream[:cut])
        stream = stream[cut:]
    assert received == sent


@given(st.sets(st.sampled_from(OUTPUTS)))
def test_wanted_outputs_come_in_the_order_of_the_table(names: set[str]) -> None:
    assert outputs_named(outputs_mask(names)) == tuple(name for name in OUTPUTS if name in names)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_regions_of_a_slot_follow_each_other_aligned(slot: int, inputs: int, outputs: int) -> None:
    taken = Slot(inputs, outputs, aligned(slot))
    assert taken.input_offset % 64 == taken.output_offset % 64 == taken.nbytes % 64 == 0
    assert taken.offset < taken.input_offset
    assert taken.input_offset + inputs <= taken.output_offset
    assert taken.output_offset + outputs <= taken.offset + taken.nbytes


@given(st.dictionaries(st.sampled_from(OUTPUTS), st.tuples(st.integers(1, 5)) | st.tuples(*[st.integers(0, 4)] * 2)))
def test_outputs_arrive_as_they_were_sent(shapes: dict[str, tuple[int, ...]]) -> None:
    sent = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in shapes.items()}
    content = pack_outputs(sent)
    assert len(content) == packed_bytes(shapes)
    received = unpack_outputs(content, dict(reversed(shapes.items())))  # the order of `shapes` does not matter
    assert received.keys() == sent.keys()
    for name, array in sent.items():
        np.testing.assert_array_equal(received[name], array)


@pytest.mark.parametrize("nbytes", [0, 20, 21, 28])
def test_content_of_another_size_is_refused(nbytes: int) -> None:
    with pytest.raises(ValueError, match=r"values|size|multiple"):
        unpack_outputs(bytes(nbytes), {"mean": (2,), "tokens": (2, 2)})
