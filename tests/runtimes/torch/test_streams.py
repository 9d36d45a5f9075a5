from __future__ import annotations

from itertools import cycle

import pytest
import torch

from iei.errors import StartupError
from iei.runtimes.torch.streams import RING, own_stream

GPU = torch.device("cuda", 0)


class RingStream:
    """A stream from a ring, as torch hands them out."""

    _handles = cycle(range(RING))

    def __init__(self, device: torch.device) -> None:
        self.cuda_stream = next(self._handles)


@pytest.fixture(autouse=True)
def ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", RingStream)


def test_a_stream_in_use_is_not_given_away_again() -> None:
    kept = own_stream(GPU)
    for _ in range(2 * RING):
        assert own_stream(GPU).cuda_stream != kept.cuda_stream


def test_when_all_are_in_use_the_next_load_fails_until_one_is_free() -> None:
    streams = [own_stream(GPU) for _ in range(RING)]
    assert len({stream.cuda_stream for stream in streams}) == RING
    with pytest.raises(StartupError, match="all 32 streams of cuda:0: lower IEI_MAX_LOADED_MODELS"):
        own_stream(GPU)
    free = streams.pop().cuda_stream
    assert own_stream(GPU).cuda_stream == free
