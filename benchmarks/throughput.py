"""Requests per second: IEI, the usual server, and a bare loop, on the same machine with the same model and photos.

    uv run python -m benchmarks.throughput [--quick]

Each round starts each system afresh, one after the other, so that a machine that slows down slows down all of them;
ratios are taken within a round, and the medians over the rounds are reported. Writes benchmarks/results/throughput.json
and the section "throughput" of docs/benchmarks.md (not with --quick).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import machine, memory
from benchmarks.report import progress, table, write_down
from benchmarks.workload import bodies, write_model
from tests.servers import ROOT, serve

WORKER_CLASS = "uvicorn_worker.UvicornWorker"


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    rounds: int
    seconds: float
    warmup: float
    connections: int
    workers: int
    device: str


@dataclass(frozen=True)
class Measurement:
    """One system in one round."""

    rate: float
    """Pictures per second."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    client_cpu: float | None = None
    """CPU seconds of the load client per second: its share of one core."""
    batch: int | None = None
    """Of the bare loop: the fastest of several."""
    pss_mib: dict[str, list[float]] = field(default_factory=dict)
    """Role → MiB of each of its processes, right after the load."""


Round = dict[str, Measurement]


def measure(plan: Plan) -> list[Round]:
    """All rounds: the bare loop, then each server, in each."""
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="iei-benchmark-") as folder:
        model, load = Path(folder, "model"), Path(folder, "bodies")
        write_model(model)
        load.write_text("\n".join(bodies()))
        for number in range(1, plan.rounds + 1):
            this = bare_loop(plan, model)
            for name in SERVERS:
                this[name] = served(plan, name, model, load)
            rounds.append(this)
            rates = ", ".join(f"{name} {result.rate:.1f}" for name, result in this.items())
            progress(f"round {number} of {plan.rounds}: {rates} pictures/s")
    return rounds


def bare_loop(plan: Plan, model: Path) -> Round:
    """Both variants of the bare loop."""
    progress("bare loop …")
    options = ["--seconds", str(plan.seconds), "--device", plan.device]
    result = run("benchmarks.bare_loop", str(model), *options, timeout_s=4 * plan.seconds + 180)
    batch = int(result["batch"])
    return {
        "bare loop": Measurement(result["plain"], batch=batch),
        "bare loop, overlapped": Measurement(result["overlapped"], batch=batch),
    }


BASELINE = "benchmarks.baseline_server:app"
SERVERS: dict[str, tuple[str, dict[str, str]]] = {
    "baseline": (BASELINE, {}),
    "baseline, one thread": (BASELINE, {"BASELINE_THREADS": "1"}),
    "IEI": ("server:app --preload", {}),
}
"""System → its part of gunicorn's command line, and of its environment."""


def served(plan: Plan, name: str, model: Path, load: Path) -> Measurement:
    """One server: started, loaded, measured and stopped."""
    progress(f"{name} …")
    gunicorn = ["python", "-m", "gunicorn", "--workers", str(plan.workers), "--worker-class", WORKER_CLASS]
    app, environment = SERVERS[name]
    environment = {
        "IMAGE_EMBEDDING_MODEL": str(model),
        "IEI_DEVICE": plan.device,
        "BASELINE_DEVICE": plan.device,
        **environment,
    }
    options = {"--connections": plan.connections, "--warmup": plan.warmup, "--seconds": plan.seconds}
    arguments = [str(part) for option in options.items() for part in option]
    with serve(environment, command=[*gunicorn, "--bind", "127.0.0.1:0", *app.split()]) as server:
        timeout_s = plan.warmup + plan.seconds + 60
        result = run("benchmarks.load", server.url, str(load), *arguments, timeout_s=timeout_s)
        return Measurement(
            rate=result["rate"],
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            client_cpu=result["client_cpu"],
            pss_mib=memory.by_role(server.process.pid, server.processes()),
        )


def run(module: str, *arguments: str, timeout_s: float) -> dict[str, float]:
    """Runs a module of ours in a process of its own, and returns the JSON that it prints."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=timeout_s, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def summary(plan: Plan, rounds: list[Round]) -> str:
    """The two tables, and what they were measured on."""

    def ratio(name: str, to: str) -> str:
        return f"{median(this[name].rate / this[to].rate for this in rounds):.2f}"

    def middle(name: str, figure: Callable[[Measurement], float | None], form: str) -> str:
        figures = [value for this in rounds if (value := figure(this[name])) is not None]
        return format(median(figures), form) if figures else "–"

    rates = [
        [
            name,
            middle(name, lambda result: result.rate, ".1f"),
            middle(name, lambda result: result.p50_ms, ".0f"),
            middle(name, lambda result: result.p99_ms, ".0f"),
            ratio(name, "baseline"),
            ratio(name, "bare loop"),
            middle(name, lambda result: result.client_cpu, ".0%"),
        ]
        for name in rounds[0]
    ]
    sizes = [memory_row(name, rounds[-1][name].pss_mib) for name in SERVERS]
    batches = sorted({str(this["bare loop"].batch) for this in rounds}, key=int)
    where = machine.describe()
    versions = ", ".join(f"{name} {value}" for name, value in where.items() if name not in ("cpu", "cores"))
    return "\n\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}, {where['cpu']}, {where['cores']} cores, device {plan.device}; {versions}.",
            f"{plan.connections} connections, {plan.workers} workers, medians of {plan.rounds} rounds of "
            f"{plan.seconds:g} s after {plan.warmup:g} s of warm-up; the bare loop's best batch: {', '.join(batches)}.",
            table(
                ["system", "req/s", "p50 ms", "p99 ms", "× baseline", "× bare loop", "client's share of a core"],
                rates,
            ),
            table(["PSS in MiB", "master", "each worker", "engine", "supervisor", "all together"], sizes),
        ]
    )


def memory_row(name: str, roles: Mapping[str, list[float]]) -> list[str]:
    """A row of the table of memory."""

    def span(role: str) -> str:
        sizes = sorted({f"{size:.0f}" for size in roles.get(role, [])}, key=int)
        return "–".join(dict.fromkeys((sizes[0], sizes[-1]))) if sizes else "–"

    total = sum(sum(sizes) for sizes in roles.values())
    return [name, span("master"), span("worker"), span("engine"), span("supervisor"), f"{total:.0f}"]


def main() -> None:
    """Measures, prints the tables and, without `--quick`, writes them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works; keeps no figures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: %(default)s)")
    parser.add_argument("--warmup", type=float, default=3, help="seconds before it (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    options = vars(parser.parse_args())
    quick = options.pop("quick")
    if quick:
        options |= {"rounds": 1, "seconds": 2.0, "warmup": 1.0}
    plan = Plan(**options)
    rounds = measure(plan)
    text = summary(plan, rounds)
    print(text)
    if not quick:
        write_down("throughput", plan, rounds, text)


if __name__ == "__main__":
    main()
