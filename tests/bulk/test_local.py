from __future__ import annotations

import pytest

from iei.bulk import local
from iei.bulk.local import _TimedOverlapping
from tests.engine.runtimes_for_tests import OverlappingRuntime, picture
from tests.engine.test_in_flight import Clock


class Stopwatch(Clock):
    def perf_counter(self) -> float:
        return self.now


def test_seconds_in_which_batches_overlap_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Stopwatch()
    monkeypatch.setattr(local, "time", clock)
    known = OverlappingRuntime()
    model = _TimedOverlapping(known, known)
    first = model.begin("image", [picture(1)], ["mean"])
    clock.now += 1
    second = model.begin("image", [picture(2)], ["mean"])
    clock.now += 2
    assert first.finish()[0]["mean"][0] == 1
    assert model.busy.seconds == 3
    clock.now += 2
    assert second.finish()[0]["mean"][0] == 2
    assert model.busy.seconds == 5
    clock.now += 10
    model.begin("image", [picture(3)], ["mean"]).finish()
    model.run("image", [picture(4)], ["mean"])
    assert model.busy.seconds == 5
