"""Workers that send frames which are sound in form only: an engine drops them, and answers the others as before."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.engine.answers import NOT_RUN, Status
from iei.engine.frames import DTYPES, FRAME_BYTES, Cancel, Describe, Frame, Hello, Reply, Slot, Submit, Welcome, unpack
from iei.engine.loaded_models import LoadedModels
from iei.engine.process import EngineProcess
from iei.engine.scheduler import Scheduler
from iei.models.spec import MODALITIES, OUTPUTS
from iei.priority import Priority
from tests.engine.runtimes_for_tests import DIM, KnownRuntime
from tests.fuzz.damage import damaged
from tests.fuzz.effort import examples

ARENA = 2**16
SIDE = 8
SLOT = Slot(SIDE * SIDE * 3, 4 * DIM)


def sound(job: int) -> bytes:
    """The frame of a job that can be done."""
    return Submit(job, 0, "image", DTYPES[0], (SIDE, SIDE, 3), ("mean",), SLOT, time.monotonic() + 60).pack()


NUMBERS = st.sampled_from((0, 1, 2, 3, 4, 8, 64, 192, ARENA - 64, ARENA, 2**31, 2**32 - 1))
WIDE = NUMBERS | st.sampled_from((2**63, 2**64 - 64, 2**64 - 1))
SLOTS = st.just(SLOT) | st.builds(Slot, WIDE, WIDE, WIDE)
FRAMES = st.one_of(
    st.builds(
        Submit,
        job=st.integers(0, 3),
        model=st.just(0) | st.sampled_from((1, 2**16 - 1)),
        modality=st.sampled_from(MODALITIES),
        dtype=st.sampled_from(DTYPES),
        shape=st.just((SIDE, SIDE, 3)) | st.lists(NUMBERS, min_size=1, max_size=3).map(tuple),
        outputs=st.lists(st.sampled_from(OUTPUTS), unique=True).map(tuple),
        slot=SLOTS,
        deadline=st.sampled_from((0.0, -1.0, 1e18, float("inf"), float("nan"))),
        attempt=st.integers(0, 255),
        priority=st.sampled_from(Priority),
    ),
    st.builds(Cancel, job=st.integers(0, 3)),
    st.builds(Describe, job=st.integers(0, 3), model=st.just(0) | NUMBERS, slot=SLOTS | st.just(Slot(0, 4096))),
    st.builds(Reply, job=st.integers(0, 3), status=st.sampled_from(Status), nbytes=NUMBERS, forward=st.just(NOT_RUN)),
)


class Engine:
    """An engine that serves in a thread of this process, until it ends."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._path)
        listener.listen()
        process = EngineProcess(listener, Scheduler(LoadedModels.of(KnownRuntime())))
        threading.Thread(target=process.serve_forever, daemon=True).start()

    def connect(self) -> socket.socket:
        """A worker that has sent its HELLO."""
        worker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        worker.settimeout(10)
        worker.connect(self._path)
        arena = os.memfd_create("arena")
        os.ftruncate(arena, ARENA)
        socket.send_fds(worker, [Hello(ARENA, os.getpid()).pack()], [arena])
        os.close(arena)
        return worker


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine") / "socket")
    logger = logging.getLogger("iei.engine")
    logger.disabled = True  # or a failure would come with thousands of lines about dropped connections
    yield engine
    logger.disabled = False


def received(worker: socket.socket) -> Iterator[Frame]:
    """Frames that arrive, until the engine closes the connection."""
    with contextlib.suppress(ConnectionError), worker.makefile("rb") as stream:
        while frame := stream.read(FRAME_BYTES):
            yield unpack(frame)


@examples(100)
@given(
    st.lists(FRAMES.map(lambda frame: frame.pack()) | FRAMES.flatmap(lambda frame: damaged(frame.pack())), max_size=6)
)
def test_an_engine_outlives_any_worker(engine: Engine, stream: list[bytes]) -> None:
    with engine.connect() as stranger, engine.connect() as friend:
        with contextlib.suppress(ConnectionError):
            for frame in stream:
                stranger.sendall(frame)
            stranger.shutdown(socket.SHUT_WR)
        friend.sendall(sound(5))
        answers = received(friend)
        assert next(answers) == Welcome()
        assert next(answers)[:2] == (5, Status.OK)
        # A worker that is gone is forgotten with its jobs: those that were answered before then are.
        assert all(isinstance(frame, Reply | Welcome) for frame in received(stranger))
