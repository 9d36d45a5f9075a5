"""Long runs (FUZZ_SECONDS): harnesses go on, with other examples, until the time is over."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fuzz.effort import SECONDS

_rounds: dict[str, int] = {}
"""Harness → how many rounds it has had."""


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """The time of a harness that keeps to it by itself; 0 in the suite."""
    return _share(request.session)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SECONDS and _is_harness(item):
            item.add_marker(pytest.mark.timeout(0))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Repeats a harness until its share of the time is over. Each round begins with a seed of its own."""
    result = yield
    if SECONDS and _is_hypothesis_test(pyfuncitem):
        ends = time.monotonic() + _share(pyfuncitem.session)
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        _rounds[pyfuncitem.nodeid] = 1
        while time.monotonic() < ends:
            pyfuncitem.obj(**arguments)
            _rounds[pyfuncitem.nodeid] += 1
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for harness, rounds in _rounds.items():
        terminalreporter.write_line(f"{harness}: {rounds} rounds")


def _share(session: pytest.Session) -> float:
    return SECONDS / max(1, sum(map(_is_harness, session.items)))


def _is_harness(item: pytest.Item) -> bool:
    return _is_hypothesis_test(item) or "seconds" in getattr(item, "fixturenames", ())


def _is_hypothesis_test(item: pytest.Item) -> bool:
    """Of this folder, or of another that is tested together with it: those are not repeated."""
    return getattr(getattr(item, "obj", None), "is_hypothesis_test", False) and item.path.parent.name == "fuzz"
