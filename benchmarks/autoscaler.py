"""The autoscaler of the chart, for the simulation: how many servers Kubernetes wants, from two numbers of them all."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """When servers are added and removed. The defaults are the values and templates of deploy/helm/iei."""

    drain_s: float = 10.0
    """`autoscaling.drainSeconds`; infinity: the queue is not looked at."""
    busy: float = 0.7
    """`autoscaling.busy`; infinity: it is not looked at."""
    least: int = 2
    """`autoscaling.min`."""
    start_s: float = 60.0
    """From the decision to a server that is ready: a node, the image, the model."""
    every_s: float = 15.0
    """Between decisions. The numbers are as old."""
    rate_over_s: float = 60.0
    """The range of the rate in the query for `busy`."""
    up_percent: float = 100
    up_pods: int = 4
    up_period_s: float = 30.0
    down_percent: float = 10
    down_pods: int = 1
    down_period_s: float = 60.0
    down_window_s: float = 300.0
    """The largest recommendation of so long is what counts for going down."""
    tolerance: float = 0.1
    """Kubernetes' own: a recommendation that is nearer to the present number than this changes nothing."""


@dataclass(frozen=True)
class Scrape:
    """What Prometheus knows of all servers at one moment."""

    at_s: float
    drain_s: float
    """The sum of `iei_drain_seconds`: the work that waits, in seconds of one server."""
    forward_s: float
    """The sum of `iei_forward_seconds_sum`."""


@dataclass(frozen=True)
class Decision:
    """What was wanted at one moment."""

    at_s: float
    recommended: int
    """By the numbers."""
    wanted: int
    """After the limits on changes."""


class Autoscaler:
    """As the HorizontalPodAutoscaler that KEDA makes of the chart's ScaledObject."""

    def __init__(self, policy: Policy, servers: int) -> None:
        self._policy = policy
        self._scrapes: deque[Scrape] = deque(maxlen=2 + math.ceil(policy.rate_over_s / policy.every_s))
        self.decisions = [Decision(0.0, servers, servers)]

    def decide(self, scrape: Scrape) -> int:
        """The number of servers that is wanted from now on, by the scrapes before this one."""
        policy, present = self._policy, self.decisions[-1].wanted
        recommended = self._recommended(present)
        highest = max(recommended, *(each.recommended for each in self._since(scrape.at_s - policy.down_window_s)))
        if recommended > present:
            past = min(each.wanted for each in self._since(scrape.at_s - policy.up_period_s))
            limit = max(past * (1 + policy.up_percent / 100), past + policy.up_pods)
            wanted = max(present, min(recommended, math.ceil(limit)))
        else:
            past = max(each.wanted for each in self._since(scrape.at_s - policy.down_period_s))
            limit = min(past * (1 - policy.down_percent / 100), past - policy.down_pods)
            wanted = min(present, max(highest, math.floor(limit), policy.least))
        self._scrapes.append(scrape)
        self.decisions.append(Decision(scrape.at_s, recommended, wanted))
        return wanted

    def _recommended(self, present: int) -> int:
        if len(self._scrapes) < 2:
            return present
        first, last = self._scrapes[0], self._scrapes[-1]
        running = (last.forward_s - first.forward_s) / (last.at_s - first.at_s)
        return max(
            self._count(ask, present) for ask in (last.drain_s / self._policy.drain_s, running / self._policy.busy)
        )

    def _count(self, ask: float, present: int) -> int:
        return present if abs(ask / present - 1) <= self._policy.tolerance else math.ceil(ask)

    def _since(self, moment: float) -> Iterator[Decision]:
        """Decisions, the newest first, up to the one that held at `moment`."""
        for each in reversed(self.decisions):
            yield each
            if each.at_s <= moment:
                return
