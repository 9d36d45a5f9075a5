"""Bulk jobs: memory at 1,000 and at 100,000 pictures, and throughput beside that of a saturated server.

    uv run python -m benchmarks.bulk [--quick]

Memory: peak resident set of `iei embed`, with small drawn pictures and the smallest model. Throughput: a ViT-Tiny and
500×375 JPEGs; in each round, first a server gets all of them by `iei.client` (8 requests of 32 pictures at a time), and
then `iei embed` reads the same files. The start of either is not counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.bulk_pictures import command, draw, write_tiny_model
from benchmarks.workload import SIZE, write_model
from iei.client import Client
from tests.pictures import jpeg, photos
from tests.servers import ROOT, serve

RESULTS = ROOT / "benchmarks/results/bulk.json"


def main() -> None:
    """Prints what was seen, and writes it to `RESULTS`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures; nothing is written")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory(prefix="iei-bulk-") as name:
        folder = Path(name)
        figures = {
            "memory": memory(folder, [200, 2_000] if quick else [1_000, 100_000]),
            "throughput": throughput(folder, pictures=64 if quick else 1920, rounds=1 if quick else 3),
        }
    print(json.dumps(figures, indent=1))
    if not quick:
        where = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), **machine.describe()}
        RESULTS.write_text(json.dumps({**figures, "where": where}, indent=1) + "\n")


def memory(folder: Path, counts: list[int]) -> list[dict[str, Any]]:
    """Peak resident set of a job with so many pictures."""
    model = write_tiny_model(folder / "tiny")
    found = []
    for count in counts:
        draw(folder / "drawn", count)
        end, peak_bytes = run([*command(model, folder / "drawn", "-o", folder / "out"), "--progress", "json"])
        found.append({"pictures": count, "peak_mb": round(peak_bytes / 1e6), "rate": end["rate"]})
        for used in ("drawn", "out"):
            shutil.rmtree(folder / used)
    return found


def throughput(folder: Path, pictures: int, rounds: int) -> dict[str, Any]:
    """Pictures a second of a server and of a job, on the same files."""
    write_model(folder / "vit")
    (folder / "photos").mkdir()
    files = [jpeg(*SIZE, name) for name in photos()]
    for number in range(pictures):
        (folder / f"photos/{number:05}.jpg").write_bytes(files[number % len(files)])
    paths = sorted((folder / "photos").iterdir())
    server_rates, job_rates = [], []
    for _ in range(rounds):
        settings = {"IMAGE_EMBEDDING_MODEL": str(folder / "vit"), "IEI_CACHE_DIR": str(folder / "cache")}
        with serve(settings) as server, Client(server.url) as client:
            client.embed_images(paths[:64])  # so that nothing happens for the first time
            began = time.perf_counter()
            client.embed_images(paths)
            server_rates.append(len(paths) / (time.perf_counter() - began))
        arguments = ("--cache-dir", folder / "cache", "-o", folder / "out", "--progress", "json")
        end, _ = run(command(folder / "vit", folder / "photos", *arguments))
        job_rates.append(end["rate"])
        shutil.rmtree(folder / "out")
    return {
        "pictures": pictures,
        "server": [round(rate, 1) for rate in server_rates],
        "job": job_rates,
        "ratio": round(median(job / server for job, server in zip(job_rates, server_rates, strict=True)), 2),
    }


def run(arguments: list[str]) -> tuple[dict[str, Any], int]:
    """The summary of a job, and its peak resident set in bytes."""
    with tempfile.TemporaryFile("w+") as log:
        job = subprocess.Popen(arguments, cwd=ROOT, stderr=log)
        _, status, usage = os.wait4(job.pid, 0)
        job.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        lines = log.read().splitlines()
    if job.returncode:
        raise SystemExit("\n".join(lines))
    end: dict[str, Any] = json.loads(lines[-1])
    return end, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
