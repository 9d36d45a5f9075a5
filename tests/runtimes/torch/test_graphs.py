from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from iei.errors import StartupError
from iei.runtimes.torch.graphs import Graphs, Replay, batch_sizes, trials
from iei.runtimes.torch.vision_model import Hidden
from tests.runtimes.torch.recorders import ReplayedCalls

PICTURES = torch.from_numpy(np.stack(list(trials(8, 6, 6))))


def _forward(pixels: Tensor) -> Hidden:
    """Tokens of three pixels each; the mean colour as the model's own pooling."""
    values = pixels.to(torch.float32)
    return Hidden(values.view(len(values), 12, 9), values.mean((1, 2)))


def _outputs(hidden: Hidden) -> Mapping[str, Tensor]:
    assert hidden.pooled is not None
    return {"mean": hidden.tokens.mean(1), "pooler": hidden.pooled}


def _graphs(recorder: ReplayedCalls, forward: Callable[[Tensor], Hidden] = _forward) -> Graphs:
    graphs = Graphs(forward, recorder)
    graphs.record(PICTURES[:5], _outputs, torch.float32)
    return graphs


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (1, [1]),
        (2, [1, 2]),
        (5, [1, 2, 4, 5]),
        (12, [1, 2, 4, 8, 12]),
        (64, [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]),
        (100, [1, 2, 4, 8, *range(16, 97, 8), 100]),
        (256, [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256]),
    ],
)
def test_sizes_grow_by_powers_and_then_by_steps(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


def test_the_largest_size_is_recorded_first() -> None:
    recorder = ReplayedCalls()
    assert _graphs(recorder).recorded == [1, 2, 4]
    assert recorder.recorded == [4, 2, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_batch_is_padded_and_has_its_own_results(count: int) -> None:
    recorder = ReplayedCalls()
    graphs = _graphs(recorder)
    before = recorder.replays
    for batch in (PICTURES[:count], PICTURES[4 : 4 + count]):
        for ours, eager in zip(graphs(batch), _forward(batch), strict=True):
            assert ours is not None
            torch.testing.assert_close(ours, eager)
    assert recorder.replays == before + 2


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(5, 6, 6, 3, dtype=torch.uint8),
        torch.zeros(1, 6, 9, 3, dtype=torch.uint8),
        torch.zeros(1, 6, 6, 3, dtype=torch.float32),
    ],
    ids=["more than recorded", "another size", "another type"],
)
def test_what_was_not_recorded_is_computed_eagerly(pixels: Tensor) -> None:
    recorder = ReplayedCalls()

    def forward(pixels: Tensor) -> Hidden:
        return Hidden(pixels.to(torch.float32).flatten(2), pixels.to(torch.float32).mean((1, 2)))

    graphs = _graphs(recorder, forward)
    before = recorder.replays
    torch.testing.assert_close(graphs(pixels).tokens, forward(pixels).tokens)
    assert recorder.replays == before


class Forgetful(ReplayedCalls):
    """Batches of two always give what they gave when they were recorded."""

    def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
        results, replay = super().record(work)
        return results, (lambda: None) if len(results.tokens) == 2 else replay


class Inexact(ReplayedCalls):
    """Batches of two are a hundredth off."""

    def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
        results, replay = super().record(work)

        def off() -> None:
            replay()
            results.tokens.mul_(1.01)

        return results, off if len(results.tokens) == 2 else replay


class NotANumber(ReplayedCalls):
    """Batches of two are NaN."""

    def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
        results, replay = super().record(work)
        return results, (lambda: results.tokens.fill_(torch.nan)) if len(results.tokens) == 2 else replay  # type: ignore[return-value]


@pytest.mark.parametrize("recorder", [Forgetful(), Inexact(), NotANumber()])
def test_a_size_that_differs_stays_eager(recorder: ReplayedCalls, caplog: pytest.LogCaptureFixture) -> None:
    graphs = _graphs(recorder)
    assert graphs.recorded == [1, 4]
    assert "batches of 2 stay eager: " in caplog.text
    assert " differs by " in caplog.text
    torch.testing.assert_close(graphs(PICTURES[4:6]).tokens, _forward(PICTURES[4:6]).tokens)


@pytest.mark.parametrize(("recorder", "sizes"), [(ReplayedCalls(), [1, 2, 4]), (Forgetful(), [1, 4])])
def test_an_output_that_is_nearly_the_same_for_all_pictures_is_not_asked_which_it_is_of(
    recorder: ReplayedCalls, sizes: list[int]
) -> None:
    def steady(pixels: Tensor) -> Hidden:
        hidden = _forward(pixels)
        assert hidden.pooled is not None
        return Hidden(hidden.tokens, 1 + 1e-6 * hidden.pooled)

    def rounded(pixels: Tensor) -> Hidden:
        hidden = steady(pixels)
        assert hidden.pooled is not None
        return Hidden(hidden.tokens, hidden.pooled * (1 + 5e-4))

    graphs = Graphs(steady, recorder)
    graphs.record(PICTURES[:5], _outputs, torch.float32, rounded)
    assert graphs.recorded == sizes


def test_neighbouring_trials_differ_in_kind() -> None:
    pictures = [picture.astype(float) for picture in trials(7, 24, 32)]
    assert {picture.shape for picture in pictures} == {(24, 32, 3)}
    is_plain = [np.ptp(picture, (0, 1)).max() == 0 for picture in pictures]
    is_noisy = [np.abs(np.diff(picture, 2, 0)).max() > 64 for picture in pictures]
    assert is_plain == [True, False, False, True, False, False, True]
    assert is_noisy == [False, False, True, False, False, True, False]


def test_a_size_that_cannot_be_recorded_ends_the_recording(caplog: pytest.LogCaptureFixture) -> None:
    class Full(ReplayedCalls):
        def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
            if len(self.recorded) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().record(work)

    caplog.set_level(logging.INFO, "iei.engine")
    graphs = _graphs(Full())
    assert graphs.recorded == [4]
    assert "graphs: 1 of 3 batch sizes (4) after" in caplog.text
    assert "batches of up to 2 stay eager: OutOfMemoryError: CUDA out of memory" in caplog.text
    torch.testing.assert_close(graphs(PICTURES[:2]).tokens, _forward(PICTURES[:2]).tokens)


def test_a_failed_recording_after_which_no_memory_can_be_freed_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unrecordable(ReplayedCalls):
        def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
            raise RuntimeError("operation not permitted when stream is capturing")

    def empty_cache() -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    assert _graphs(Unrecordable()).recorded == []
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    with pytest.raises(StartupError, match="set IEI_GPU_FORWARD=eager"):
        _graphs(Unrecordable())


def test_what_is_recorded_may_be_another_forward_that_gives_nearly_the_same() -> None:
    calls = []

    def compiled(pixels: Tensor) -> Hidden:
        calls.append(len(pixels))
        hidden = _forward(pixels)
        return Hidden(hidden.tokens * (1 + 1e-5), hidden.pooled)

    graphs = Graphs(_forward, ReplayedCalls())
    graphs.record(PICTURES[:5], _outputs, torch.float32, compiled)
    assert graphs.recorded == [1, 2, 4]
    torch.testing.assert_close(graphs(PICTURES[:1]).tokens, _forward(PICTURES[:1]).tokens * (1 + 1e-5))
    assert set(calls) == {1, 2, 4}
