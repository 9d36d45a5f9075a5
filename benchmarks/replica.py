"""A server whose forwards take a known time and no CPU, so that several of them fit on one small machine.

    python -m benchmarks.replica --base-s 0.02 --each-s 0.01 --max-batch 8

IEI's own HTTP, service, decoding and batching, around a model that sleeps. Prints its port, and serves until it is
terminated.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Sequence
from dataclasses import replace

import uvicorn

from benchmarks.simulation import Forward
from iei.engine.inprocess import InProcessEngine
from iei.runtimes.api import Input
from tests.apps import app_around
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime


def model(forward: Forward) -> KnownRuntime:
    """The mean colour of each picture, after the seconds of `forward`."""

    def sleep(batch: Sequence[Input]) -> None:
        time.sleep(forward.seconds(len(batch)))

    known = KnownRuntime(sleep)
    known.spec = replace(SPEC, max_batch=forward.max_batch)
    return known


def main() -> None:
    """Serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-s", type=float, required=True)
    parser.add_argument("--each-s", type=float, required=True)
    parser.add_argument("--max-batch", type=int, required=True)
    app = app_around(InProcessEngine(model(Forward(**vars(parser.parse_args())))))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", loop="uvloop")).run([listening])


if __name__ == "__main__":
    main()
