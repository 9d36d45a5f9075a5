from __future__ import annotations

import os
import signal
import subprocess
import sys
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


@pytest.mark.server
def test_an_engine_that_can_not_be_started_for_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life_reader, life_writer = os.pipe()
    status_reader, status_writer = os.pipe()
    tries: list[list[str]] = []

    def start(command: list[str], pass_fds: list[int]) -> subprocess.Popen[bytes]:
        tries.append(command)
        if len(tries) == 3:
            os.close(life_writer)  # nobody is left to serve
            return real_popen([sys.executable, "-c", ""])
        raise BlockingIOError(11, "Resource temporarily unavailable")

    real_popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    with (tmp_path / "config").open("w") as config:
        monkeypatch.setattr(sys, "stdin", config)
        fds = {"life": life_reader, "status": status_writer}
        supervise(start_engine(fds), fds)
    assert os.read(status_reader, 1) == b""  # whoever waits for the first engine knows
    assert ["--status" in command for command in tries] == [True, False, False]
    assert caplog.text.count("Resource temporarily unavailable") == 2
    for fd in (life_reader, status_reader):
        os.close(fd)
