"""Jobs in processes that are killed, stopped, or have no disk left."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.bulk.jobs import Listed, names_in, numbers, rows_in, run
from tests.servers import ROOT

pytestmark = pytest.mark.server

ROWS = 2000
PROGRAM = f"""
import sys
from pathlib import Path
from tests.bulk.jobs import Known, Listed, numbers, run
run(Path(sys.argv[1]), Listed(numbers({ROWS})), Known(pause_s=0.02), part_size=100)
"""


def started(folder: Path, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def finished(folder: Path) -> int:
    return len(list(folder.glob("part-*.parquet")))


def test_killed_at_any_time_it_loses_no_row_and_has_none_twice(tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(3):
        before = finished(tmp_path)
        with started(tmp_path) as process:
            goal = before + chance.randrange(1, 6)
            deadline = time.monotonic() + 60
            while finished(tmp_path) < goal and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.05)  # anywhere between two parts
            process.kill()
        for file in tmp_path.glob("part-*.parquet"):
            assert pq.ParquetFile(file).metadata.num_rows == 100
        assert finished(tmp_path) >= before
    assert finished(tmp_path) < ROWS / 100
    made = run(tmp_path, Listed(numbers(ROWS)), part_size=100)
    assert made.tally.passed > 0
    assert [row["id"] for row in rows_in(tmp_path)] == [str(place) for place in range(ROWS)]
    assert all(name == ".iei" or name.startswith("part-") for name in names_in(tmp_path))


def test_without_room_on_the_disk_there_is_no_part_that_looks_whole(tmp_path: Path) -> None:
    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    with started(tmp_path, small) as process:
        assert process.stderr is not None
        log = process.stderr.read()
    assert process.returncode == 1
    assert "OSError: [Errno 27]" in log
    assert names_in(tmp_path) == [".iei"]
    run(tmp_path, Listed(numbers(ROWS)), part_size=100)
    assert len(rows_in(tmp_path)) == ROWS
