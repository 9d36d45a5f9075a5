"""How fast inputs leave while some wait, and so how long those that wait now will take.

Any process samples the numbers of the whole server; one sample a second is kept. A second counts as much as inputs
waited in it: with a thousand waiting the server shows what it can do, and with one only what it is sent. While nothing
waits, nothing changes.
"""

from __future__ import annotations

import math
from collections import defaultdict

from iei.telemetry.counters import Counters, Labels, Reading
from iei.telemetry.metrics import (
    BATCHES,
    FAILED,
    FORWARD_SECONDS,
    IN_WORK,
    INPUTS,
    RATE,
    RATE_LEFT,
    RATE_SECONDS,
    RUNNING,
    SAMPLED_AT,
    SAMPLED_LEFT,
    SAMPLED_WAITING,
)

EVERY_S = 1.0
MEMORY_S = 30.0
"""Samples lose weight with this time constant, of time in which inputs wait."""


def waiting(reading: Reading) -> dict[Labels, float]:
    """(model, priority) → inputs that have been admitted and are not in a forward, wherever they are.

    A forward may go on for inputs whose client has gone: then it seems that fewer wait, until it ends.
    """
    running = reading.values(RUNNING)
    return {labels: max(0.0, count - running.get(labels, 0.0)) for labels, count in reading.values(IN_WORK).items()}


def drain_seconds(reading: Reading) -> dict[str, float]:
    """Model → how long the inputs that wait now will take: their number ÷ the rate at which inputs leave.

    The rate is the measured one; before the first measurement that of the forwards so far, and before the first forward
    one input a second.
    """
    rates = {**_rates_of_forwards(reading), **{model: rate for (model,), rate in reading.values(RATE).items() if rate}}
    return {model: count / rates.get(model, 1.0) for model, count in _by_model(waiting(reading)).items()}


def sample(counters: Counters, now: float) -> None:
    """Measures the rates anew, if it is time.

    Args:
        counters: of all processes.
        now: `time.monotonic()`.
    """
    with counters.exclusive():
        since = counters.get_for_all(SAMPLED_AT)
        if now - since < 0.9 * EVERY_S:  # another process has just done it
            return
        reading = counters.read()
        counters.set_for_all(SAMPLED_AT, (), now)
        left = _by_model(reading.values(INPUTS), reading.values(FAILED))
        for model, count in _by_model(waiting(reading)).items():
            weight = min(count, counters.get_for_all(SAMPLED_WAITING, (model,)))
            if weight:
                fade = math.exp((since - now) / MEMORY_S)
                gone = left[model] - counters.get_for_all(SAMPLED_LEFT, (model,))
                total = counters.get_for_all(RATE_LEFT, (model,)) * fade + gone * weight
                seconds = counters.get_for_all(RATE_SECONDS, (model,)) * fade + (now - since) * weight
                counters.set_for_all(RATE_LEFT, (model,), total)
                counters.set_for_all(RATE_SECONDS, (model,), seconds)
                counters.set_for_all(RATE, (model,), total / seconds)
            counters.set_for_all(SAMPLED_WAITING, (model,), count)
            counters.set_for_all(SAMPLED_LEFT, (model,), left[model])


def _rates_of_forwards(reading: Reading) -> dict[str, float]:
    inputs, seconds = (
        _by_model({labels: float(cells[-1]) for labels, cells in reading.histograms(metric).items()})
        for metric in (BATCHES, FORWARD_SECONDS)
    )
    return {model: inputs[model] / seconds[model] for model in inputs if inputs[model] and seconds[model]}


def _by_model(*series: dict[Labels, float]) -> defaultdict[str, float]:
    """The sums over all labels but the first, which is the model."""
    sums: defaultdict[str, float] = defaultdict(float)
    for numbers in series:
        for (model, *_), number in numbers.items():
            sums[model] += number
    return sums
