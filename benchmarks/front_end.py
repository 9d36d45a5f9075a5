"""What a request costs in CPU time besides its picture, by process, and how evenly connections are served.

    python -m benchmarks.front_end [--quick]

The model has next to no size, so what is left is the server: HTTP, JSON, base64, decoding, resizing, queues, frames.
The CPU time of its processes is read from /proc before and after each load; decoding and resizing alone are measured in
the same run, in as many processes as there are cores. Writes benchmarks/results/front_end.json and the section
"front_end" of docs/benchmarks.md (not with --quick).
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import machine, memory
from benchmarks.decoding import LIMITS
from benchmarks.load import JSON
from benchmarks.report import progress, table, write_down
from benchmarks.workload import SIZE, bodies, pictures
from iei.inputs.decode import configure_pillow, decoded
from iei.inputs.geometry import to_pixels
from iei.machine import cores
from iei.models.spec import Geometry
from tests.servers import ROOT, Server, serve

GEOMETRY = Geometry(resize="exact", height=224, width=224, resample=2)


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    rounds: int
    seconds: float
    workers: int
    connections: tuple[int, ...]


@dataclass(frozen=True)
class Measurement:
    """One load in one round."""

    rate: float
    """Requests per second."""
    p50_ms: float
    p99_ms: float
    cpu_ms: dict[str, float]
    """Role → milliseconds of CPU time for each request. The engine's main thread is `engine`, others `model`."""
    picture_ms: float
    """CPU time of decoding and resizing alone, in the same round."""

    @property
    def beyond_ms(self) -> float:
        """What workers and engine take besides decoding, resizing and the model's forward."""
        return self.cpu_ms["worker"] + self.cpu_ms["engine"] - self.picture_ms


def write_model(folder: Path) -> None:
    """Writes a seeded ViT of one narrow layer over four patches of 112 pixels."""
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTModel(ViTConfig(**size, image_size=224, patch_size=112)).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)


def picture_ms(seconds: float) -> float:
    """CPU milliseconds that decoding and resizing take for each picture, with every core busy."""
    with ProcessPoolExecutor(cores()) as pool:
        return median(pool.map(_picture_ms, [seconds] * cores()))


def _picture_ms(seconds: float) -> float:
    configure_pillow(LIMITS.max_pixels)
    files = [base64.b64decode(picture) for picture in pictures()]
    done, began = 0, time.process_time()
    while (taken := time.process_time() - began) < seconds:
        for file in files:
            with decoded(file, LIMITS) as image:
                to_pixels(image, GEOMETRY)
        done += len(files)
    return 1e3 * taken / done


TYPES = {"JSON": JSON, "file": "image/jpeg"}
"""How a picture is sent → the Content-Type of its request."""


def measure(plan: Plan) -> list[dict[str, Measurement]]:
    """All rounds."""
    rounds = []
    with tempfile.TemporaryDirectory(prefix="iei-front-end-") as folder:
        model = Path(folder, "model")
        write_model(model)
        loads = {"JSON": Path(folder, "json"), "file": Path(folder, "files")}
        loads["JSON"].write_text("\n".join(bodies()))
        loads["file"].write_text("\n".join(pictures()))
        with serve({"IMAGE_EMBEDDING_MODEL": str(model), "IEI_DEVICE": "cpu"}, workers=plan.workers) as server:
            for form in TYPES:
                loaded(server, loads[form], form, max(plan.connections), 2.0)
            for number in range(1, plan.rounds + 1):
                bare = picture_ms(plan.seconds / 2)
                this = {}
                for form in TYPES:
                    for connections in plan.connections:
                        name = f"{form}, {connections}"
                        this[name] = measured(server, loads[form], form, connections, plan.seconds, bare)
                        progress(f"round {number} of {plan.rounds}, {name}: {this[name]}")
                rounds.append(this)
    return rounds


def measured(server: Server, load: Path, form: str, connections: int, seconds: float, bare: float) -> Measurement:
    """One load, and the CPU time of the server's processes meanwhile."""
    before = cpu_s(server)
    result = loaded(server, load, form, connections, seconds)
    requests = result["rate"] * seconds
    taken = {role: 1e3 * (after - before[role]) / requests for role, after in cpu_s(server).items()}
    return Measurement(result["rate"], result["p50_ms"], result["p99_ms"], taken, bare)


def loaded(server: Server, load: Path, form: str, connections: int, seconds: float) -> dict[str, float]:
    """What benchmarks.load says."""
    options = {"--connections": connections, "--warmup": 0, "--seconds": seconds, "--type": TYPES[form]}
    arguments = [str(part) for option in options.items() for part in option]
    command = [sys.executable, "-m", "benchmarks.load", server.url, str(load), *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=seconds + 60, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def cpu_s(server: Server) -> defaultdict[str, float]:
    """Role → seconds of CPU time of its processes so far."""
    taken: defaultdict[str, float] = defaultdict(float)
    for process in server.processes():
        role = memory.role(process, server.process.pid)
        for thread in process.threads():
            computes = role == "engine" and thread.id != process.pid
            taken["model" if computes else role] += thread.user_time + thread.system_time
    return taken


def summary(plan: Plan, rounds: Sequence[dict[str, Measurement]]) -> str:
    """The table, and what it was measured on."""
    where = machine.describe()
    versions = ", ".join(f"{name} {where[name]}" for name in ("python", "torch", "pillow", "uvicorn", "fastapi"))
    rows = []
    for name in rounds[0]:
        each = [this[name] for this in rounds]
        figures = [
            (f"{median(one.rate for one in each):.0f}"),
            *(f"{median(one.cpu_ms[role] for one in each):.2f}" for role in ("worker", "engine", "model")),
            f"{median(one.picture_ms for one in each):.2f}",
            f"{median(one.beyond_ms for one in each):.2f}",
            f"{median(one.p50_ms for one in each):.1f}",
            f"{median(one.p99_ms for one in each):.1f}",
            f"{median(one.p99_ms / one.p50_ms for one in each):.1f}",
        ]
        rows.append([name, *figures])
    return "\n\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}, {where['cpu']}, {where['cores']} cores; {versions}.",
            f"One JPEG of {SIZE[0]}×{SIZE[1]} pixels in a request, {plan.workers} workers, medians of {plan.rounds} "
            f"rounds of {plan.seconds:g} s; milliseconds of CPU time for each request.",
            table(HEADER, rows),
        ]
    )


HEADER = [
    "sent as, connections",
    "req/s",
    "workers",
    "engine",
    "forward",
    "the picture alone",
    "beyond",
    "p50 ms",
    "p99 ms",
    "p99 ÷ p50",
]


def main() -> None:
    """Measures, prints the table and, without `--quick`, writes it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round; keeps no figures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--connections", type=int, nargs="+", default=(1, 16, 64))
    options = parser.parse_args()
    plan = Plan(1 if options.quick else options.rounds, options.seconds, options.workers, tuple(options.connections))
    rounds = measure(plan)
    text = summary(plan, rounds)
    print(text)
    if not options.quick:
        write_down("front_end", plan, rounds, text)


if __name__ == "__main__":
    main()
