"""How many replicas there should be: by the inputs that are in work, not by the requests.

A request has one picture or a thousand, so the number of requests says little about the work. Ray Serve's controller
runs this on the head node every tenth of a second. It is sent there by value, so this module imports nothing of IEI.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Protocol

INPUTS = "inputs_in_work"
"""The number that replicas report: inputs that have been admitted and are not done."""


class Context(Protocol):
    """What this needs of Ray Serve's `AutoscalingContext`."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        """Name → replica → mean over the look-back period."""
        ...

    @property
    def running_replicas(self) -> list[Any]:
        """Those that serve. Others may have reported before they were stopped."""
        ...

    @property
    def total_num_requests(self) -> float:
        """Those in replicas, and those that wait for one."""
        ...


class ByInputs:
    """A policy of Ray Serve: as many replicas as it takes for each to have `inputs_per_replica` in work.

    Inputs that are computed right now count, too. Were it only those that wait, then replicas that keep up would look
    idle, the last one added would be removed, and the queue would grow again. Bounds, delays and damping are Ray's.

    Args:
        inputs_per_replica: inputs that one replica should have in work.
    """

    def __init__(self, inputs_per_replica: float) -> None:
        self._inputs_per_replica = inputs_per_replica

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas that is wanted, and no state."""
        reported = (context.aggregated_metrics or {}).get(INPUTS, {})
        inputs = sum(reported.get(replica, 0.0) for replica in context.running_replicas)
        wanted = ceil(inputs / self._inputs_per_replica)
        return max(wanted, 1 if context.total_num_requests else 0), {}
