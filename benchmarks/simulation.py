"""A simulation of many servers: inputs arrive, wait, are computed in batches; an autoscaler adds and removes servers.

Discrete events: the arrival of each input, the end of each forward, each decision of the autoscaler, each server that
becomes ready. What is simulated of a server is its batching (an engine that is free takes all that waits, up to the
largest batch; as on a GPU, one batch at a time), and how long a forward takes.

Plain Python and a heap: a library's processes and events take several times as long, and there are millions of them.
"""

from __future__ import annotations

import heapq
import math
import random
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from benchmarks.autoscaler import Autoscaler, Policy, Scrape


@dataclass(frozen=True)
class Forward:
    """How long a model takes: `base_s` for each forward, and `each_s` for each of its inputs."""

    base_s: float
    each_s: float
    max_batch: int

    def seconds(self, inputs: int) -> float:
        """Of one forward."""
        return self.base_s + self.each_s * inputs

    @property
    def rate(self) -> float:
        """Inputs per second of a server that is never idle."""
        return self.max_batch / self.seconds(self.max_batch)


@dataclass(frozen=True)
class Moment:
    """How many servers there were."""

    at_s: float
    ready: int
    wanted: int


@dataclass(frozen=True)
class Outcome:
    """What happened to the inputs, in the order of their answers, and to the fleet."""

    arrived_s: npt.NDArray[np.float64]
    """float64[inputs]."""
    latency_s: npt.NDArray[np.float64]
    """float64[inputs]."""
    moments: list[Moment]

    def percentile(self, percent: float, since_s: float = 0.0, until_s: float = math.inf) -> float:
        """Of the latencies of those that arrived in this time, in seconds."""
        chosen = self.latency_s[(self.arrived_s >= since_s) & (self.arrived_s < until_s)]
        return float(np.percentile(chosen, percent)) if len(chosen) else math.nan


@dataclass(slots=True, eq=False)
class _Server:
    waiting: deque[float] = field(default_factory=deque)
    running: list[float] = field(default_factory=list)
    """When the inputs of its forward arrived."""
    forward_s: float = 0.0
    """Of the forwards that have ended."""

    @property
    def inputs(self) -> int:
        return len(self.waiting) + len(self.running)


class Fleet:
    """Servers, and the balancer before them."""

    def __init__(self, forward: Forward, servers: int, choices: int, seed: int) -> None:
        """A fleet that waits for inputs.

        Args:
            forward: of each server.
            servers: that are ready.
            choices: of so many servers that are drawn, the one with the fewest inputs gets the next. 1: any, as
                kube-proxy does it. As many as there are: the least loaded of all.
            seed: of the draws.
        """
        self.servers = [_Server() for _ in range(servers)]
        self._forward = forward
        self._choices = choices
        self._draw = random.Random(seed).random
        self._ends: list[tuple[float, int, _Server]] = []
        self._order = count()
        self._removed_forward_s = 0.0
        self.arrived_s = array("d")
        self.latency_s = array("d")

    def take(self, now: float) -> None:
        """An input arrives."""
        servers, draw = self.servers, self._draw
        if self._choices == 1:
            chosen = servers[int(draw() * len(servers))]
        elif self._choices < len(servers):
            drawn = [servers[int(draw() * len(servers))] for _ in range(self._choices)]
            chosen = min(drawn, key=lambda server: server.inputs)
        else:
            chosen = min(servers, key=lambda server: (server.inputs, draw()))
        chosen.waiting.append(now)
        if not chosen.running:
            self._begin(chosen, now)

    def advance(self, until: float) -> None:
        """Ends the forwards that end before `until`, and begins those that follow."""
        while self._ends and self._ends[0][0] <= until:
            now, _, server = heapq.heappop(self._ends)
            server.forward_s += self._forward.seconds(len(server.running))
            self.arrived_s.extend(server.running)
            self.latency_s.extend([now - arrived for arrived in server.running])
            server.running = []
            if server.waiting:
                self._begin(server, now)

    def _begin(self, server: _Server, now: float) -> None:
        inputs = min(len(server.waiting), self._forward.max_batch)
        server.running = [server.waiting.popleft() for _ in range(inputs)]
        heapq.heappush(self._ends, (now + self._forward.seconds(inputs), next(self._order), server))

    def add(self, servers: int) -> None:
        """New ones are ready."""
        self.servers += [_Server() for _ in range(servers)]

    def remove(self, servers: int) -> None:
        """The newest get no more inputs, and finish what they have."""
        self._removed_forward_s += sum(server.forward_s for server in self.servers[-servers:])
        del self.servers[-servers:]

    def scrape(self, now: float) -> Scrape:
        """What Prometheus would find."""
        waiting = sum(len(server.waiting) for server in self.servers)
        forward_s = self._removed_forward_s + sum(server.forward_s for server in self.servers)
        return Scrape(now, waiting / self._forward.rate, forward_s)


def arrivals(phases: Sequence[tuple[float, float]], seed: int) -> Iterator[float]:
    """The moments at which inputs arrive: a Poisson process whose rate is constant in each phase.

    Args:
        phases: seconds, and inputs per second, of one after the other.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    begin = 0.0
    for seconds, rate in phases:
        moments = begin + seconds * np.sort(generator.random(generator.poisson(seconds * rate)))
        for few in np.array_split(moments, 1 + len(moments) // 10_000):
            yield from few.tolist()
        begin += seconds


def simulate(
    forward: Forward,
    phases: Sequence[tuple[float, float]],
    servers: int,
    policy: Policy | None = None,
    *,
    choices: int = 1,
    seed: int = 0,
) -> Outcome:
    """One run.

    Args:
        forward: of each server.
        phases: of the load: seconds, and inputs per second.
        servers: that are there at the start.
        policy: of the autoscaler; None: there is none.
        choices: of the balancer, as `Fleet` has them.
        seed: of the random numbers.
    """
    fleet = Fleet(forward, servers, choices, seed)
    scaler = Autoscaler(policy, servers) if policy else None
    moments = [Moment(0.0, servers, servers)]
    starting: deque[tuple[float, int]] = deque()
    """When so many more are ready."""
    decide_at = policy.every_s if policy else math.inf
    for now in arrivals(phases, seed):
        while policy and scaler and now >= (due := min(decide_at, starting[0][0] if starting else math.inf)):
            fleet.advance(due)
            if due < decide_at:
                fleet.add(starting.popleft()[1])
            else:
                decide_at += policy.every_s
                wanted = scaler.decide(fleet.scrape(due))
                _change(fleet, starting, wanted - moments[-1].wanted, due + policy.start_s)
                moments.append(Moment(due, len(fleet.servers), wanted))
        fleet.advance(now)
        fleet.take(now)
    fleet.advance(math.inf)
    return Outcome(np.asarray(fleet.arrived_s), np.asarray(fleet.latency_s), moments)


def _change(fleet: Fleet, starting: deque[tuple[float, int]], servers: int, ready_s: float) -> None:
    """Starts servers; or removes some, those first that are not ready yet."""
    if servers > 0:
        starting.append((ready_s, servers))
    while servers < 0 and starting:
        begin, number = starting.pop()
        if number + servers > 0:
            starting.append((begin, number + servers))
        servers = min(0, number + servers)
    if servers < 0:
        fleet.remove(-servers)
