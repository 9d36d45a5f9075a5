"""How much every harness tries: short and the same each time in the suite, long and always new on demand."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""For how long all harnesses together look for faults. 0: a fixed number of examples each, in the suite."""


def examples(count: int) -> settings:
    """How a harness runs: decorates a test above `@given`.

    Args:
        count: its examples in the suite; in a long run, in each of its rounds.
    """
    unhurried = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    if SECONDS:  # failures are kept in .hypothesis/, and are tried first the next time
        return settings(max_examples=count, deadline=None, print_blob=True, suppress_health_check=unhurried)
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=unhurried)
