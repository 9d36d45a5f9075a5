"""How long one picture waits under a full queue of bulk, and what that costs bulk.

    uv run python -m benchmarks.priority [--quick]

One server; each round has four phases, so that a machine that slows down slows down all of them:

- *alone*: one client sends one picture, waits for its answer, pauses, and so on;
- *bulk alone*: connections that are never idle, each with requests of many pictures;
- *one priority*: both at the same time, and nobody says how urgent a request is;
- *bulk*: both, and the connections say `X-IEI-Priority: bulk`.

A picture's waiting is given in forwards: the median duration of a forward in the same phase. Ratios of throughput are
taken within a round, and medians over the rounds are reported. Writes benchmarks/results/priority.json and the section
"priority" of docs/benchmarks.md (not with --quick).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np

from benchmarks import machine
from benchmarks.report import progress, table, write_down
from benchmarks.workload import pictures, write_model
from tests.servers import ROOT, serve

BULK = "X-IEI-Priority: bulk"
SEED = 0


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    rounds: int
    seconds: float
    warmup: float
    pause: float
    connections: int
    pictures: int
    workers: int
    device: str


@dataclass(frozen=True)
class Answer:
    """What the headers of one answer say, in milliseconds."""

    total: float
    preprocess: float
    queue: float
    inference: float


@dataclass(frozen=True)
class Phase:
    """What one phase of one round measured."""

    answers: list[Answer]
    """To the client that sends one picture at a time."""
    rate: float | None
    """Pictures of bulk per second."""


@dataclass(frozen=True)
class Kind:
    """What happens in a phase."""

    name: str
    lone: bool
    """Whether one client sends one picture at a time."""
    headers: tuple[str, ...] | None
    """Of bulk; None: there is none."""


KINDS = (
    Kind("alone", lone=True, headers=None),
    Kind("bulk alone", lone=False, headers=(BULK,)),
    Kind("one priority", lone=True, headers=()),
    Kind("bulk", lone=True, headers=(BULK,)),
)

Round = dict[str, Phase]


def measure(plan: Plan) -> list[Round]:
    """All rounds, on one server."""
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="iei-benchmark-") as folder:
        model, bodies = Path(folder, "model"), Path(folder, "bodies")
        write_model(model)
        photos = pictures()
        bodies.write_text(json.dumps({"inputs": (photos * plan.pictures)[: plan.pictures]}))
        environment = {"IMAGE_EMBEDDING_MODEL": str(model), "IEI_DEVICE": plan.device}
        command = f"python -m gunicorn server:app --preload --workers {plan.workers} --bind 127.0.0.1:0"
        with serve(environment, command=[*command.split(), "--worker-class", "uvicorn_worker.UvicornWorker"]) as server:
            for number in range(1, plan.rounds + 1):
                rounds.append({kind.name: phase(plan, kind, server.url, bodies, photos[0]) for kind in KINDS})
                progress(f"round {number} of {plan.rounds}: {said(rounds[-1])}")
    return rounds


def phase(plan: Plan, kind: Kind, url: str, bodies: Path, photo: str) -> Phase:
    """One phase: bulk in a process of its own, the lone client in this one."""
    bulk = None if kind.headers is None else started(plan, url, bodies, kind.headers)
    try:
        time.sleep(plan.warmup)
        until = time.perf_counter() + plan.seconds
        answers = lone(url, photo, plan.pause, until) if kind.lone else []
        if bulk is None:
            return Phase(answers, None)
        output, _ = bulk.communicate(timeout=plan.warmup + plan.seconds + 60)
        if bulk.returncode:
            raise RuntimeError(f"the load failed with exit status {bulk.returncode}, see above")
        return Phase(answers, json.loads(output)["rate"] * plan.pictures)
    finally:
        if bulk:
            bulk.kill()
            bulk.wait()


def started(plan: Plan, url: str, bodies: Path, headers: Sequence[str]) -> subprocess.Popen[bytes]:
    """The process that makes the load of bulk."""
    options = {"--connections": plan.connections, "--warmup": plan.warmup, "--seconds": plan.seconds}
    arguments = [str(part) for option in options.items() for part in option]
    arguments += [part for header in headers for part in ("--header", header)]
    command = [sys.executable, "-m", "benchmarks.load", url, str(bodies), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def lone(url: str, photo: str, pause: float, until: float) -> list[Answer]:
    """Answers to one picture at a time, with pauses of random length between them: no beat with bulk's forwards.

    Each request has a connection of its own, so that all workers serve some.
    """
    body = json.dumps({"inputs": [photo]})
    pauses = random.Random(SEED)
    answers: list[Answer] = []
    while time.perf_counter() < until:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        connection.request("POST", "/embed", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"an answer is not 200: {content[:400]!r}")
        answers.append(Answer(*(float(response.headers[f"x-{name}-time"]) for name in Answer.__dataclass_fields__)))
        time.sleep(pauses.uniform(0.5, 1.5) * pause)
    return answers


Figure = Callable[[Answer], float]
FIGURES: dict[str, Figure] = {
    "in the engine's queue": lambda answer: answer.queue,
    "in all": lambda answer: answer.total - answer.inference,
}
"""Two ways to say how long a picture has waited: for the engine alone, or for anything but its own forward."""


def summary(plan: Plan, rounds: list[Round]) -> str:
    """The tables, and what they were measured on."""
    where = machine.describe()
    versions = ", ".join(f"{name} {value}" for name, value in where.items() if name not in ("cpu", "cores"))
    waits = [waiting(kind.name, [this[kind.name] for this in rounds]) for kind in KINDS if kind.lone]
    rates = [throughput(kind.name, rounds) for kind in KINDS if kind.headers is not None]
    percentiles = [f"{name}, {percentile}" for name in FIGURES for percentile in ("p50", "p99")]
    return "\n\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}, {where['cpu']}, {where['cores']} cores, device {plan.device}; {versions}.",
            f"{plan.connections} connections with {plan.pictures} pictures in each request, {plan.workers} workers, "
            f"{plan.rounds} rounds of {plan.seconds:g} s for each phase after {plan.warmup:g} s of warm-up.",
            table(["one picture", "answers", "forward, ms", "total p50, ms", "total p99, ms", *percentiles], waits),
            table(["bulk", "pictures/s", "× bulk alone"], rates),
        ]
    )


def waiting(name: str, phases: Sequence[Phase]) -> list[str]:
    """A row: how long one picture waits, in milliseconds and in forwards of the same round."""
    answers = [answer for each in phases for answer in each.answers]
    forwards = [median(answer.inference for answer in each.answers) for each in phases]
    forward = median(forwards)
    totals = np.percentile([answer.total for answer in answers], (50, 99))
    waits = []
    for figure in FIGURES.values():
        of_rounds = zip(phases, forwards, strict=True)
        waited = [figure(answer) / forward_ms for each, forward_ms in of_rounds for answer in each.answers]
        waits.append(np.percentile(waited, (50, 99)))
    return [
        name,
        str(len(answers)),
        f"{forward:.0f}",
        *(f"{each:.0f}" for each in totals),
        *(f"{each:.2f}" for pair in waits for each in pair),
    ]


def throughput(name: str, rounds: Sequence[Round]) -> list[str]:
    """A row: what bulk gets."""
    rates = [(this[name].rate or 0.0, this["bulk alone"].rate or 1.0) for this in rounds]
    return [name, f"{median(rate for rate, _ in rates):.1f}", f"{median(rate / most for rate, most in rates):.2f}"]


def said(this: Round) -> str:
    """A round in a line, to see how it goes."""
    parts = []
    for name, each in this.items():
        rate = f"{each.rate:.1f} pictures/s" if each.rate is not None else ""
        total = f"{median(answer.total for answer in each.answers):.0f} ms" if each.answers else ""
        parts.append(f"{name}: " + " and ".join(filter(None, (rate, total))))
    return "; ".join(parts)


def main() -> None:
    """Measures, prints the tables and, without `--quick`, writes them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works; keeps no figures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="of each phase (default: %(default)s)")
    parser.add_argument("--warmup", type=float, default=8, help="seconds before it (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two pictures (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="of bulk (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=8, help="in each request of bulk (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    options = vars(parser.parse_args())
    quick = options.pop("quick")
    if quick:
        options |= {"rounds": 1, "seconds": 8.0, "warmup": 6.0}
    plan = Plan(**options)
    rounds = measure(plan)
    text = summary(plan, rounds)
    print(text)
    if not quick:
        write_down("priority", plan, rounds, text)


if __name__ == "__main__":
    main()
