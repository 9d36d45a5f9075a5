from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from iei.engine.supervisor import LONGEST_DELAY_S, Backoff, End, cause, start_engine, supervise


def test_engines_that_fail_to_start_are_followed_ever_later_and_others_at_once() -> None:
    backoff = Backoff()
    failed, served = End("exit code 1", was_ready=False), End("SIGKILL", was_ready=True)
    assert [backoff.after(failed) for _ in range(5)] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert max(backoff.after(failed) for _ in range(10)) == LONGEST_DELAY_S
    assert [backoff.after(served) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_causes_in_words() -> None:
    assert cause(1) == "exit code 1"
    assert cause(-signal.SIGSEGV) == "SIGSEGV"
    assert "out of memory" in cause(-signal.SIGKILL)


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What engines get as their standard input."""
    with (tmp_path / "config").open("w") as config:
        monkeypatch.setattr(sys, "stdin", config)
        yield


@pytest.mark.server
@pytest.mark.usefixtures("configuration")
def test_an_engine_that_can_not_be_started_for_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life_reader, life_writer = os.pipe()
    tries: list[list[str]] = []

    def start(command: list[str], pass_fds: list[int]) -> subprocess.Popen[bytes]:
        tries.append(command)
        if len(tries) == 3:
            os.close(life_writer)  # nobody is left to serve
            return real_popen([sys.executable, "-c", ""])
        raise BlockingIOError(11, "Resource temporarily unavailable")

    real_popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    supervise(lambda: End("SIGKILL", was_ready=True), {"life": life_reader})
    assert ["--status" in command for command in tries] == [False, False, False]
    assert caplog.text.count("Resource temporarily unavailable") == 2
    os.close(life_reader)


@pytest.mark.usefixtures("configuration")
def test_no_engine_follows_a_first_one_that_never_had_its_models(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life_reader, life_writer = os.pipe()
    status_reader, status_writer = os.pipe()
    tries: list[list[str]] = []

    def start(command: list[str], pass_fds: list[int]) -> None:
        tries.append(command)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", start)
    fds = {"life": life_reader, "status": status_writer}
    supervise(start_engine(fds), fds)
    assert os.read(status_reader, 1) == b""  # whoever waits for it knows
    for no_surprise in ("exit code 1", "exit code 0"):
        supervise(partial(End, no_surprise, was_ready=False), fds)
    assert ["--status" in command for command in tries] == [True]
    assert [record.getMessage() for record in caplog.records] == [
        "the engine ended ([Errno 11] Resource temporarily unavailable) before it had its models"
    ]
    for fd in (life_reader, life_writer, status_reader):
        os.close(fd)
