from __future__ import annotations

import pytest

from benchmarks.capacity import GBIT_S, Machine, Model, Pictures

SMALL, LARGE = Pictures("small", 0.004, 50e3), Pictures("large", 0.25, 4e6)
MODEL = Model("a model", per_core=6, per_gpu=3000)


@pytest.mark.parametrize(
    ("machine", "pictures", "limit", "rate"),
    [
        (Machine("cores", 32, 0, 10 * GBIT_S), SMALL, "model", 32 / (1 / 6 + 0.004)),
        (Machine("cores", 32, 0, 10 * GBIT_S), LARGE, "decoding", 32 / (1 / 6 + 0.25)),
        (Machine("a GPU", 16, 1, 10 * GBIT_S), SMALL, "model", 3000),
        (Machine("two GPUs", 16, 2, 10 * GBIT_S), SMALL, "decoding", 16 / 0.004),
        (Machine("a GPU", 4000, 1, 10 * GBIT_S), LARGE, "network", 10e9 / 8 / 4e6),
    ],
)
def test_the_least_rate_limits(machine: Machine, pictures: Pictures, limit: str, rate: float) -> None:
    limits = machine.limits(MODEL, pictures)
    assert min(limits, key=limits.__getitem__) == limit
    assert limits[limit] == pytest.approx(rate)
