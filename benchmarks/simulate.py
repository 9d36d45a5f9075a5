"""Ten, a hundred and a thousand servers: how long inputs wait at a steady load, and when the load doubles.

    uv run python -m benchmarks.simulate                 # some minutes; writes the section "simulate" of docs/scale.md
    uv run python -m benchmarks.simulate --check         # two minutes: one to three real servers behind HAProxy, too
    uv run --group plots python -m benchmarks.simulate --plot

The model is a ViT-B/16 on two cores. Figures in forwards hold for other models, too. Results:
benchmarks/results/simulate.json and simulate-check.json.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.autoscaler import Policy
from benchmarks.report import ROOT, progress, table, write_down
from benchmarks.simulation import Forward, Outcome, simulate
from tests import pictures
from tests.serving.balancers import haproxy

PAGE = ROOT / "docs" / "scale.md"
PLOT = ROOT / "docs" / "images" / "scale.svg"
VIT_B = Forward(base_s=0.03, each_s=0.085, max_batch=8)
"""As measured on two cores of a server CPU: 8.8 pictures a second one at a time, 11.3 in batches of eight."""
BEFORE_S, AFTER_S = 60.0, 600.0
"""Of a load that doubles."""
WINDOW_S = 10.0
"""Percentiles of a time are over the inputs that arrived in so long."""
LONE_RATE = 2.0
"""Requests per second that find a server idle."""
SLOW_S = 5.0
"""Who waited for longer waited for a server."""


@dataclass(frozen=True)
class Plan:
    """What is simulated."""

    fleets: tuple[int, ...] = (10, 100, 1000)
    loads: tuple[float, ...] = (0.5, 0.7, 0.9)
    """Parts of what the servers can do."""
    drains: tuple[float, ...] = (2, 5, 10, 30)
    starts: tuple[float, ...] = (20, 60, 180)
    seed: int = 0


@dataclass(frozen=True)
class Steady:
    """A fleet at a constant load without an autoscaler; latencies in forwards of a full batch."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Scaled:
    """A fleet with an autoscaler."""

    fewest: int
    most: int
    p99_s: float
    worst_s: float
    """The 99th percentile of the worst ten seconds."""
    recovered_s: float
    """From the change of the load until no ten seconds have a 99th percentile over `SLOW_S`."""
    slow: float
    """The part of the inputs that took longer than `SLOW_S`."""
    server_minutes: float
    """Of all servers that were paid for, from the decision to the removal."""


def steady(plan: Plan) -> Iterator[tuple[str, Steady]]:
    """Without an autoscaler."""
    for servers in plan.fleets:
        for load in plan.loads:
            for choices in (1, 2):
                rate = load * servers * VIT_B.rate
                outcome = simulate(VIT_B, [(60 + 60_000 / rate, rate)], servers, choices=choices, seed=plan.seed)
                unit = VIT_B.seconds(VIT_B.max_batch)
                p50, p99 = (outcome.percentile(percent, since_s=20) / unit for percent in (50, 99))
                yield f"{servers} servers, load {load}, best of {choices}", Steady(p50, p99)


def scaled(outcome: Outcome, changed_s: float, end_s: float) -> Scaled:
    """What is said of a run whose load changed at `changed_s`."""
    windows = np.arange(changed_s, end_s, WINDOW_S).tolist()
    worst = [outcome.percentile(99, begin, begin + WINDOW_S) for begin in windows]
    late = [begin for begin, p99 in zip(windows, worst, strict=True) if p99 > SLOW_S]
    wanted = [moment.wanted for moment in outcome.moments if moment.at_s >= changed_s]
    return Scaled(
        fewest=min(wanted),
        most=max(wanted),
        p99_s=outcome.percentile(99, changed_s),
        worst_s=max(worst),
        recovered_s=late[-1] + WINDOW_S - changed_s if late else 0.0,
        slow=float((outcome.latency_s[outcome.arrived_s >= changed_s] > SLOW_S).mean()),
        server_minutes=sum(wanted) * Policy.every_s / 60,
    )


SIGNALS = {
    "the queue alone": Policy(busy=math.inf),
    "busy engines alone": Policy(drain_s=math.inf),
    "both": Policy(),
}


def signals(plan: Plan) -> Iterator[tuple[str, Scaled]]:
    """An hour of a constant load that seven of ten servers can serve, by what is scaled on."""
    for name, policy in SIGNALS.items():
        outcome = simulate(VIT_B, [(3600, 7 * VIT_B.rate)], 10, policy, seed=plan.seed)
        yield name, scaled(outcome, 0, 3600)


def doubled(servers: int, policy: Policy, seed: int, after_s: float = AFTER_S) -> Outcome:
    """A load that the servers are right for, and then twice as much."""
    rate = servers * policy.busy * VIT_B.rate
    return simulate(VIT_B, [(BEFORE_S, rate), (after_s, 2 * rate)], servers, policy, seed=seed)


def steps(plan: Plan) -> Iterator[tuple[str, Scaled]]:
    """The load doubles: by number of servers, by threshold, by how long a server takes to start."""
    policies = [
        *((servers, Policy()) for servers in plan.fleets),
        *((plan.fleets[1], Policy(drain_s=drain_s)) for drain_s in plan.drains if drain_s != Policy.drain_s),
        *((plan.fleets[1], Policy(start_s=start_s)) for start_s in plan.starts if start_s != Policy.start_s),
        (plan.fleets[1], Policy(start_s=plan.starts[-1], drain_s=plan.drains[-1])),
    ]
    for servers, policy in policies:
        outcome = doubled(servers, policy, plan.seed)
        name = f"{servers} servers, drain {policy.drain_s:g} s, start {policy.start_s:g} s"
        yield name, scaled(outcome, BEFORE_S, BEFORE_S + AFTER_S)


def run(plan: Plan) -> list[dict[str, Steady | Scaled]]:
    """All of it: the steady loads, the signals, the loads that double."""
    parts: list[dict[str, Steady | Scaled]] = []
    kinds: Sequence[Callable[[Plan], Iterator[tuple[str, Steady | Scaled]]]] = (steady, signals, steps)
    for kind in kinds:
        parts.append({})
        for name, row in kind(plan):
            progress(f"{name}: {row}")
            parts[-1][name] = row
    return parts


def summary(plan: Plan, parts: Sequence[dict[str, Steady | Scaled]]) -> str:
    """The tables."""
    still, kept, moved = parts
    rates = table(
        ["servers", "load", "any: p50", "p99", "the better of two: p50", "p99"],
        [
            [
                str(servers),
                f"{load:.0%}",
                *(
                    f"{figure:.2f}"
                    for choices in (1, 2)
                    if isinstance(row := still[f"{servers} servers, load {load}, best of {choices}"], Steady)
                    for figure in (row.p50, row.p99)
                ),
            ]
            for servers in plan.fleets
            for load in plan.loads
        ],
    )
    constant = table(
        ["scaled on", "servers wanted", "p99, s", "worst 10 s: p99, s", "server hours"],
        [
            [
                name,
                f"{row.fewest}–{row.most}",
                f"{row.p99_s:.1f}",
                f"{row.worst_s:.1f}",
                f"{row.server_minutes / 60:.1f}",
            ]
            for name, row in kept.items()
            if isinstance(row, Scaled)
        ],
    )
    doubling = table(
        [
            "servers, threshold, time to start",
            "most wanted",
            "worst p99, s",
            f"until p99 < {SLOW_S:g} s, s",
            "slow",
            "cost",
        ],
        [
            [
                name,
                str(row.most),
                f"{row.worst_s:.0f}",
                f"{row.recovered_s:.0f}",
                f"{row.slow:.0%}",
                f"{row.server_minutes / (2 * int(name.split()[0]) * AFTER_S / 60):.2f}",
            ]
            for name, row in moved.items()
            if isinstance(row, Scaled)
        ],
    )
    return "\n\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}; one server: a forward of n pictures takes {VIT_B.base_s * 1e3:g} + "
            f"{VIT_B.each_s * 1e3:g} n ms, n ≤ {VIT_B.max_batch}, so {VIT_B.rate:.1f} pictures a second at most.",
            "**A constant load, no autoscaler.** Latencies in forwards of a full batch "
            f"({VIT_B.seconds(VIT_B.max_batch):.2f} s here), by which server gets a picture.",
            rates,
            "**An hour of a load that seven servers could just serve**, from ten servers on.",
            constant,
            f"**The load doubles** within a moment, for {AFTER_S / 60:g} minutes. *Slow*: pictures that took longer "
            f"than {SLOW_S:g} s. *Cost*: servers wanted × time ÷ that of twice the servers, which are enough.",
            doubling,
        ]
    )


@dataclass(frozen=True)
class CheckPlan:
    """What is compared with real servers."""

    base_s: float = 0.02
    each_s: float = 0.01
    max_batch: int = 8
    fleets: tuple[int, ...] = (1, 2, 3)
    loads: tuple[float, ...] = (0.5, 0.8)
    seconds: float = 15.0

    @property
    def forward(self) -> Forward:
        """Of each server."""
        return Forward(self.base_s, self.each_s, self.max_batch)


@dataclass(frozen=True)
class Checked:
    """Real servers, and the simulation of the same arrivals."""

    requests: int
    p50_s: float
    p99_s: float
    simulated_p50_s: float
    simulated_p99_s: float
    late_s: float
    """The latest that a request was sent after its moment: how busy the machine was with other things."""


def check(plan: CheckPlan) -> dict[str, Checked]:
    """Real servers behind HAProxy whose forwards sleep, with an open-loop load."""
    rows = {}
    with tempfile.TemporaryDirectory(prefix="iei-simulate-") as name, ExitStack() as stack:
        folder = Path(name)
        body = folder / "body"
        body.write_text(json.dumps({"inputs": [pictures.base64_of(pictures.png(8, 8))]}))
        servers = [stack.enter_context(replica(plan)) for _ in range(max(plan.fleets))]
        ports = [int(server.stdout.readline()) for server in servers if server.stdout]  # started side by side
        lone = measured(f"http://127.0.0.1:{ports[0]}", body, LONE_RATE, plan.seconds)["latencies_s"]
        besides_s = float(np.median(lone)) - plan.forward.seconds(1)
        progress(f"besides its forward, a request takes {besides_s * 1e3:.1f} ms")
        for number in plan.fleets:
            with haproxy(folder, ports[:number]) as url:
                for load in plan.loads:
                    rate = load * number * plan.forward.rate
                    real = measured(url, body, rate, plan.seconds)
                    latencies = np.array(real["latencies_s"])
                    simulated = simulate(plan.forward, [(plan.seconds, rate)], number, choices=number)
                    rows[f"{number}, {load:.0%}"] = row = Checked(
                        requests=len(latencies),
                        p50_s=float(np.percentile(latencies, 50)),
                        p99_s=float(np.percentile(latencies, 99)),
                        simulated_p50_s=simulated.percentile(50) + besides_s,
                        simulated_p99_s=simulated.percentile(99) + besides_s,
                        late_s=real["late_s"],
                    )
                    progress(f"{number} servers at {load:.0%}: {row}")
    return rows


@contextmanager
def replica(plan: CheckPlan) -> Iterator[subprocess.Popen[str]]:
    """A real server, which prints its port when it has one."""
    options = {"--base-s": plan.base_s, "--each-s": plan.each_s, "--max-batch": plan.max_batch}
    command = [sys.executable, "-m", "benchmarks.replica", *(str(part) for each in options.items() for part in each)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def measured(url: str, body: Path, rate: float, seconds: float) -> dict[str, Any]:
    """What benchmarks.open_load prints."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.open_load",
        url,
        str(body),
        "--rate",
        str(rate),
        "--seconds",
        str(seconds),
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=4 * seconds + 60, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def check_summary(plan: CheckPlan, rows: dict[str, Checked]) -> str:
    """The table of `check`."""
    where = machine.describe()
    cells = [
        [
            name,
            str(row.requests),
            *(f"{seconds * 1e3:.0f}" for seconds in (row.p50_s, row.simulated_p50_s, row.p99_s, row.simulated_p99_s)),
            f"{row.late_s * 1e3:.0f}",
        ]
        for name, row in rows.items()
    ]
    return "\n\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}, {where['cpu']}, {where['cores']} cores; forwards that sleep for "
            f"{plan.base_s * 1e3:g} + {plan.each_s * 1e3:g} n ms, n ≤ {plan.max_batch}; {plan.seconds:g} s each; "
            "all times in milliseconds.",
            table(["servers, load", "requests", "p50", "simulated", "p99", "simulated", "sent late by"], cells),
        ]
    )


def plot(plan: Plan) -> None:
    """Draws a load that doubles: servers, and the 99th percentile of every ten seconds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "iei"  # the same file each time
    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    servers = plan.fleets[1]
    for drain_s in plan.drains:
        outcome = doubled(servers, Policy(drain_s=drain_s), plan.seed)
        times = [moment.at_s - BEFORE_S for moment in outcome.moments]
        label = f"drainSeconds={drain_s:g}"
        (line,) = above.step(times, [each.wanted for each in outcome.moments], where="post", label=label)
        above.step(times, [each.ready for each in outcome.moments], where="post", color=line.get_color(), linestyle=":")
        windows = np.arange(0, BEFORE_S + AFTER_S, WINDOW_S)
        below.plot(windows - BEFORE_S, [outcome.percentile(99, each, each + WINDOW_S) for each in windows])
    above.axhline(2 * servers, color="grey", linewidth=0.8)
    above.set_ylabel("servers wanted (dotted: ready)")
    above.legend()
    below.set_ylabel("p99 of 10 s, in s")
    below.set_xlabel(f"seconds since the load doubled ({Policy.start_s:g} s from a decision to a server)")
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    """Simulates, and writes the tables down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with real servers instead")
    parser.add_argument("--plot", action="store_true", help="draw docs/images/scale.svg instead; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="smaller, to see that it works; keeps no figures")
    options = parser.parse_args()
    if options.plot:
        plot(Plan())
    elif options.check:
        compared = CheckPlan(fleets=(1,), seconds=3.0) if options.quick else CheckPlan()
        rows = check(compared)
        text = check_summary(compared, rows)
        print(text)
        if not options.quick:
            write_down("simulate-check", compared, [rows], text, PAGE)
    else:
        plan = Plan(fleets=(5, 10), loads=(0.5,), drains=(10,), starts=(20,)) if options.quick else Plan()
        parts = run(plan)
        text = summary(plan, parts)
        print(text)
        if not options.quick:
            write_down("simulate", plan, parts, text, PAGE)


if __name__ == "__main__":
    main()
