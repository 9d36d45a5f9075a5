"""One Ray cluster for all tests that need one: nodes that are processes of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.servers import ROOT

NEEDS = "needs the extra ray: uv sync --group clients"
CORES = 4
"""Of the head. Only what Ray counts: nothing here computes for long."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with a head, which this process is connected to."""
    pytest.importorskip("ray", reason=NEEDS)
    variables = {
        "PYTHONPATH": str(ROOT),  # of engines, which replicas start
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": uuid4().hex,  # or one is written into the home
        "RAY_agent_register_timeout_ms": "100000",  # where the machine is busy
        "RAY_worker_niceness": "0",  # not below whatever else runs
        "RAY_prestart_worker_first_driver": "0",  # processes that nothing here uses
        "RAY_health_check_period_ms": "500",  # nodes that die are missed sooner
        "RAY_DEDUP_LOGS": "0",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("IEI_", "MODEL_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": CORES, "include_dashboard": False})
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
        ray.shutdown()
        nodes.shutdown()
