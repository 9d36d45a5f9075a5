from __future__ import annotations

import faulthandler

import pytest

from iei.engine.execute import Failure, execute
from iei.engine.watchdog import Timer, Watchdog
from tests.engine.runtimes_for_tests import KnownRuntime
from tests.engine.test_execute import CULPRIT, fails_on_the_culprit, tasks


def test_every_forward_has_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def later(timeout: float, exit: bool) -> None:
        events.append(f"{timeout:g} s" if exit else "without an end")

    monkeypatch.setattr(faulthandler, "dump_traceback_later", later)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: events.append("over"))
    outcomes = execute(Watchdog(KnownRuntime(fails_on_the_culprit), Timer(9.0)), tasks(1, CULPRIT))
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True]
    assert events == ["9 s", "over"] * 3  # both together, then each alone
