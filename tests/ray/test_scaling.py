from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from iei.ray.scaling import INPUTS, ByInputs


@dataclass
class Deployment:
    """What Ray Serve's controller knows of one."""

    reported: dict[str, float]
    running_replicas: list[Any] = field(default_factory=lambda: ["a", "b", "c"])
    total_num_requests: float = 0.0

    @property
    def aggregated_metrics(self) -> dict[str, dict[str, float]]:
        return {INPUTS: self.reported} if self.reported else {}


@pytest.mark.parametrize(
    ("deployment", "replicas"),
    [
        (Deployment({}), 0),
        (Deployment({}, total_num_requests=1), 1),  # nobody is there to report: it starts from none
        (Deployment({"a": 1.0}), 1),
        (Deployment({"a": 32.0}), 1),
        (Deployment({"a": 1000.0}, total_num_requests=1), 32),  # one request of a thousand inputs
        (Deployment({"a": 20.0, "b": 20.0, "c": 30.0}), 3),
        (Deployment({"a": 20.0, "gone": 500.0}), 1),
    ],
)
def test_replicas_for_inputs(deployment: Deployment, replicas: int) -> None:
    assert ByInputs(inputs_per_replica=32)(deployment) == (replicas, {})
