"""Recorders of graphs for machines without a GPU."""

from __future__ import annotations

from collections.abc import Callable

from iei.runtimes.torch.graphs import Replay
from iei.runtimes.torch.vision_model import Hidden


class ReplayedCalls:
    """Implements `Recorder`: a replay calls the work again, and copies its results to where the first ones were."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        """The batch sizes, in order."""
        self.replays = 0

    def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
        results = Hidden(*(None if part is None else part.clone() for part in work()))  # type: ignore[arg-type]
        self.recorded.append(len(results.tokens))

        def replay() -> None:
            self.replays += 1
            for old, new in zip(results, work(), strict=True):
                if old is not None and new is not None:
                    old.copy_(new)

        return results, replay
