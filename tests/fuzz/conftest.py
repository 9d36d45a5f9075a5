"""Long runs (IEI_FUZZ_SECONDS): harnesses go on, with other examples, until the time is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.effort import SECONDS

_FOLDER = Path(__file__).parent
_rounds: dict[str, int] = {}
"""Harness → how many rounds it has had."""


def _is_harness(item: pytest.Item) -> bool:
    return _FOLDER in item.path.parents and getattr(getattr(item, "obj", None), "is_hypothesis_test", False)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SECONDS and _is_harness(item):
            item.add_marker(pytest.mark.timeout(0))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Repeats a harness until its share of the time is over. Each round begins with a seed of its own."""
    result = yield
    harnesses = [item for item in pyfuncitem.session.items if _is_harness(item)]
    if SECONDS and pyfuncitem in harnesses:
        ends = time.monotonic() + SECONDS / len(harnesses)
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        _rounds[pyfuncitem.nodeid] = 1
        while time.monotonic() < ends:
            pyfuncitem.obj(**arguments)
            _rounds[pyfuncitem.nodeid] += 1
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for harness, rounds in _rounds.items():
        terminalreporter.write_line(f"{harness}: {rounds} rounds")
