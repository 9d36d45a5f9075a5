"""mosec, as its documentation writes a server: pictures are decoded in processes of their own, or beside the model.

BENCHMARK_MODEL=… BENCHMARK_STAGES=2 BENCHMARK_WORKERS=2 python -m benchmarks.contenders.mosec --port PORT
"""

from __future__ import annotations

import os
from typing import Any

import torch
from mosec import Server, Worker

from benchmarks.contenders.embedder import Decoder, Model

STAGES = os.environ.get("BENCHMARK_STAGES")
WORKERS = int(os.environ.get("BENCHMARK_WORKERS", "1"))
MAX_BATCH, MAX_WAIT_MS = 16, 10


class Decode(Worker):  # type: ignore[misc]  # mosec is installed in its own environment only
    """The first of two stages."""

    def __init__(self) -> None:
        self.decode = Decoder()
        torch.set_num_threads(1)  # it runs beside others of its kind

    def forward(self, data: dict[str, Any]) -> torch.Tensor:
        """The pictures of one request."""
        return self.decode(data["inputs"])


class Embed(Worker):  # type: ignore[misc]
    """The second of two stages."""

    def __init__(self) -> None:
        self.model = Model()

    def forward(self, data: list[torch.Tensor]) -> list[Any]:
        """The vectors of several requests."""
        return self.model.embed_requests(data)


class Whole(Worker):  # type: ignore[misc]
    """The only stage."""

    def __init__(self) -> None:
        self.decode, self.model = Decoder(), Model()

    def forward(self, data: dict[str, Any]) -> list[list[float]]:
        """The vectors of one request."""
        vectors: list[list[float]] = self.model(self.decode(data["inputs"])).tolist()
        return vectors


if __name__ == "__main__":
    server = Server()
    if STAGES == "2":
        server.append_worker(Decode, num=WORKERS, route="/embed")
        server.append_worker(Embed, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS, route="/embed")
    else:
        server.append_worker(Whole, num=WORKERS, route="/embed")
    server.run()
