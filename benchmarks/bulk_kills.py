"""Kills bulk jobs at random moments, and looks whether a row is lost, or there twice.

    uv run python -m benchmarks.bulk_kills [--kills 50] [--pictures 20000] [--no-model]

Jobs are `iei embed` in processes of their own. One runs through, and one is killed (SIGKILL) again and again, each time
at a random moment of its work, and then runs to its end. Their rows must be the same: every picture once, in order,
with the same vector.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine
from benchmarks.bulk_pictures import draw, write_tiny_model
from iei.bulk.sources import open_source
from tests.bulk.jobs import Known, run
from tests.servers import ROOT

RESULTS = ROOT / "benchmarks/results/bulk_kills.json"
FORK = multiprocessing.get_context("fork")
PARTS = 200
LONGEST_S = 300

Job = Callable[[Path, int, Path], None]
"""Embeds the pictures in a folder into parts of so many items in another."""


def main() -> None:
    """Prints what was seen, and writes it to `RESULTS`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-model", action="store_true", help="vectors are made of the files' bytes: quick")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iei-bulk-kills-") as name:
        folder = Path(name)
        draw(folder / "pictures", arguments.pictures)
        job = without_model if arguments.no_model else with_model(folder / "model")
        figures = measured(folder, job, arguments.pictures, arguments.kills, random.Random(arguments.seed))
    where = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), **machine.describe()}
    RESULTS.write_text(json.dumps({"figures": figures, "where": where}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    if figures["lost"] or figures["twice"] or figures["other_vectors"] or figures["left_over"]:
        sys.exit("rows are not what they should be")


def with_model(model: Path) -> Job:
    """`iei embed` with the smallest model. What it imports is imported here, once for all processes."""
    from iei.commands import embed  # noqa: F401
    from iei.commands.main import main
    from iei.runtimes.torch import load  # noqa: F401

    in_a_process(write_tiny_model, model)  # nothing computes here: threads don't survive a fork

    def job(pictures: Path, size: int, out: Path) -> None:
        options = ("--model", model, "--device", "cpu", "--part-size", size, "--progress", "none", "-o", out)
        main(["embed", *map(str, options), str(pictures)])

    return job


def without_model(pictures: Path, size: int, out: Path) -> None:
    """The job of `iei embed` around a computer that needs no time."""
    run(out, open_source([str(pictures)], modality=None), Known(bad=None), part_size=size)


def measured(folder: Path, job: Job, pictures: int, kills: int, chance: random.Random) -> dict[str, Any]:
    """What came of `kills` kills over `pictures` pictures."""
    size = pictures // PARTS
    start = partial(job, folder / "pictures", size)
    began = time.monotonic()
    in_a_process(start, folder / "alone")
    alone_s = time.monotonic() - began
    out = folder / "killed"
    done: list[int] = []
    for number in range(kills):
        new = chance.randrange(PARTS // kills)  # so that the last kill finds work, too
        late_s = chance.uniform(0, alone_s / PARTS)
        done.append(killed_after(start, out, new, late_s))
        print(f"kill {number + 1}: {late_s:.3f} s after {new} new parts; {done[-1]} of {PARTS}", file=sys.stderr)
    in_a_process(start, out)
    expected, found = rows(folder / "alone"), rows(out)
    ids = found["id"].to_pylist()
    return {
        "pictures": pictures,
        "part_size": size,
        "kills": kills,
        "kills_before_the_end": sum(count < PARTS for count in done),
        "model": job is not without_model,
        "seconds_alone": round(alone_s, 1),
        "lost": len(set(expected["id"].to_pylist()) - set(ids)),
        "twice": len(ids) - len(set(ids)),
        "in_order": ids == expected["id"].to_pylist(),
        "other_vectors": len(ids) if len(ids) != pictures else other_vectors(expected, found),
        "largest_difference": float(np.abs(vectors(expected) - vectors(found)).max()) if len(ids) == pictures else None,
        "left_over": [path.name for path in out.iterdir() if path.name != ".iei" and path.name[:5] != "part-"],
    }


def in_a_process(call: Callable[..., object], *arguments: object) -> None:
    """Calls it in a process of its own. Raises RuntimeError unless it ends well."""
    process = FORK.Process(target=call, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"exit status {process.exitcode}")


def killed_after(start: Callable[[Path], None], out: Path, new: int, late_s: float) -> int:
    """Kills a job `late_s` after it has made `new` parts. Returns how many parts there are then."""
    before = parts(out)
    job = FORK.Process(target=start, args=(out,))
    job.start()
    deadline = time.monotonic() + LONGEST_S
    while not (works(out) and parts(out) >= before + new) and job.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(late_s)
    job.kill()
    job.join()
    return parts(out)


def parts(out: Path) -> int:
    """How many there are."""
    return len(list(out.glob("part-*.parquet")))


def works(out: Path) -> bool:
    """Whether a job has the folder."""
    lock = out / ".iei/0-of-1.lock"
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def rows(folder: Path) -> pa.Table:
    """All rows, in the order of the parts."""
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))])


def vectors(table: pa.Table) -> np.ndarray[Any, Any]:
    """float32[n, d]."""
    return np.stack(table["embedding"].to_numpy(zero_copy_only=False))


def other_vectors(expected: pa.Table, found: pa.Table) -> int:
    """Rows whose vectors differ by more than rounding: batches are not the same ones in both jobs."""
    return int((~np.isclose(vectors(expected), vectors(found), rtol=1e-4, atol=1e-5).all(-1)).sum())


if __name__ == "__main__":
    main()
