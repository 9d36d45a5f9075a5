from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.engine.frames import (
    FRAME_BYTES,
    WELCOME,
    FrameBuffer,
    Hello,
    Kind,
    Reply,
    Submit,
    aligned,
    outputs_mask,
    outputs_named,
    pack_outputs,
    packed_bytes,
    unpack_outputs,
)
from iei.models.spec import OUTPUTS

U8, U32, U64 = st.integers(0, 2**8 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SECONDS = st.floats(0, 1e9)


@given(
    st.builds(
        Submit,
        kind=st.sampled_from([Kind.SUBMIT, Kind.CANCEL, Kind.DESCRIBE]),
        job=U64,
        model=U32,
        attempt=U8,
        modality=U8,
        dtype=U8,
        outputs=U32,
        shape=st.tuples(U32, U32, U32),
        slot=U64,
        input_bytes=U64,
        output_bytes=U64,
        deadline=SECONDS,
    )
)
def test_a_job_arrives_as_it_was_sent(frame: Submit) -> None:
    assert len(frame.pack()) == FRAME_BYTES
    assert Submit.unpack(frame.pack()) == frame


@given(st.builds(Reply, job=U64, status=U8, nbytes=U64, queue_s=SECONDS, inference_s=SECONDS))
def test_a_reply_arrives_as_it_was_sent(frame: Reply) -> None:
    assert len(frame.pack()) == FRAME_BYTES
    assert Reply.unpack(frame.pack()) == frame


def test_a_hello_arrives_as_it_was_sent() -> None:
    assert Hello.unpack(Hello(arena_bytes=123, pid=7).pack()) == Hello(123, 7)
    assert len(WELCOME) == FRAME_BYTES


@given(st.integers(0, 5), st.lists(st.integers(1, 200), max_size=10))
def test_frames_survive_being_cut_anywhere(count: int, cuts: list[int]) -> None:
    sent = [Reply(job=number, status=0).pack() for number in range(count)]
    stream = b"".join(sent)
    buffer = FrameBuffer()
    received: list[bytes] = []
    for cut in [*cuts, len(stream)]:
        received += buffer.feed(stream[:cut])
        stream = stream[cut:]
    assert received == sent


@given(st.sets(st.sampled_from(OUTPUTS)))
def test_wanted_outputs_come_in_the_order_of_the_table(names: set[str]) -> None:
    assert outputs_named(outputs_mask(tuple(names))) == tuple(name for name in OUTPUTS if name in names)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_regions_of_a_slot_follow_each_other_aligned(slot: int, inputs: int, outputs: int) -> None:
    frame = Submit(Kind.SUBMIT, 1, slot=aligned(slot), input_bytes=inputs, output_bytes=outputs)
    assert frame.input_offset % 64 == frame.output_offset % 64 == frame.slot_bytes % 64 == 0
    assert frame.input_offset + inputs <= frame.output_offset
    assert frame.output_offset + outputs <= frame.slot + frame.slot_bytes


@given(st.dictionaries(st.sampled_from(OUTPUTS), st.tuples(st.integers(1, 5)) | st.tuples(*[st.integers(0, 4)] * 2)))
def test_outputs_arrive_as_they_were_sent(shapes: dict[str, tuple[int, ...]]) -> None:
    sent = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in shapes.items()}
    content = pack_outputs(sent, tuple(shapes))
    assert len(content) == packed_bytes(shapes)
    received = unpack_outputs(content, shapes)
    assert list(received) == list(sent)
    for name, array in sent.items():
        np.testing.assert_array_equal(received[name], array)


@pytest.mark.parametrize("nbytes", [0, 20, 21, 28])
def test_content_of_another_size_is_refused(nbytes: int) -> None:
    with pytest.raises(ValueError, match=r"values|size|multiple"):
        unpack_outputs(bytes(nbytes), {"mean": (2,), "tokens": (2, 2)})
