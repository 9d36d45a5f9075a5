"""Kills bulk jobs at random moments, and looks whether a row is lost, or there twice.

    uv run python -m benchmarks.bulk_kills [--kills 50] [--pictures 20000]

One job runs through, and one is killed (SIGKILL) again and again, each time at a random moment of its work, and then
runs to its end. Their rows must be the same: every picture once, in order, with the same vector.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine
from benchmarks.bulk_pictures import command, draw, write_tiny_model
from tests.servers import ROOT

RESULTS = ROOT / "benchmarks/results/bulk_kills.json"
PARTS = 100
START_S = 300


def main() -> None:
    """Prints what was seen, and writes it to `RESULTS`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iei-bulk-kills-") as name:
        figures = measured(Path(name), arguments.pictures, arguments.kills, random.Random(arguments.seed))
    where = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), **machine.describe()}
    RESULTS.write_text(json.dumps({"figures": figures, "where": where}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    if figures["lost"] or figures["twice"] or figures["other_vectors"] or figures["left_over"]:
        sys.exit("rows are not what they should be")


def measured(folder: Path, pictures: int, kills: int, chance: random.Random) -> dict[str, Any]:
    """What came of `kills` kills over `pictures` pictures."""
    draw(folder / "pictures", pictures)
    size = pictures // PARTS
    model = write_tiny_model(folder / "model")
    start = command(model, folder / "pictures", "--part-size", size, "--progress", "json")
    alone_s = run_through([*start, "-o", str(folder / "alone")])
    out = folder / "killed"
    done: list[int] = []
    for number in range(kills):
        # So that the last kill still finds work, on average; never longer than what is left.
        alive_s = chance.uniform(0, 2 * 0.8 * alone_s / kills)
        done.append(killed_after([*start, "-o", str(out)], out, alive_s))
        print(f"kill {number + 1}: {alive_s:.2f} s after its start, {done[-1]} of {PARTS} parts", file=sys.stderr)
    run_through([*start, "-o", str(out)])
    expected, found = rows(folder / "alone"), rows(out)
    ids = found["id"].to_pylist()
    return {
        "pictures": pictures,
        "part_size": size,
        "kills": kills,
        "kills_before_the_end": sum(parts < PARTS for parts in done),
        "seconds_alone": round(alone_s, 1),
        "lost": len(set(expected["id"].to_pylist()) - set(ids)),
        "twice": len(ids) - len(set(ids)),
        "in_order": ids == expected["id"].to_pylist(),
        "other_vectors": len(ids) if len(ids) != pictures else other_vectors(expected, found),
        "largest_difference": float(np.abs(vectors(expected) - vectors(found)).max()) if len(ids) == pictures else None,
        "left_over": [path.name for path in out.iterdir() if path.name != ".iei" and path.name[:5] != "part-"],
    }


def run_through(arguments: list[str]) -> float:
    """Seconds of a whole job, without its start."""
    done = subprocess.run(arguments, cwd=ROOT, check=True, stderr=subprocess.PIPE, text=True)
    return float(json.loads(done.stderr.splitlines()[-1])["seconds"])


def killed_after(arguments: list[str], out: Path, alive_s: float) -> int:
    """Kills a job `alive_s` after it has begun to work. Returns how many parts there are."""
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL) as job:
        deadline = time.monotonic() + START_S
        while not works(out) and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(alive_s)
        job.kill()
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
