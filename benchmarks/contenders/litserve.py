"""LitServe, as its documentation writes a server with batches.

BENCHMARK_MODEL=… python -m benchmarks.contenders.litserve PORT MAX_BATCH WORKERS
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from litserve import LitAPI, LitServer

from benchmarks.contenders.embedder import Decoder, Model

BATCH_TIMEOUT_S = 0.01
TIMEOUT_S = 600
"""Of a request; LitServe's own 30 s end slow models with many connections."""


class Embedding(LitAPI):  # type: ignore[misc]  # LitServe is installed in its own environment only
    """`POST /embed`."""

    def setup(self, device: str) -> None:
        """Called in each process that has a model."""
        self.decode, self.model = Decoder(), Model()

    # LitServe takes annotations of these two for what FastAPI validates, which JSON of vectors need not be.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """float32[n, 3, height, width]: the pictures of one request."""
        return self.decode(request["inputs"])

    def batch(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Requests may have different numbers of pictures: they stay a list."""
        return inputs

    def predict(self, x: torch.Tensor | list[torch.Tensor]) -> list[Any]:
        """Vectors of one request or, where there are batches, of several."""
        return self.model.embed_requests(x) if isinstance(x, list) else self.model(x).tolist()

    def unbatch(self, output: list[Any]) -> list[Any]:
        """One item for each request."""
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """The body of the answer."""
        return output


if __name__ == "__main__":
    port, max_batch, workers = map(int, sys.argv[1:])
    batches = {"max_batch_size": max_batch, "batch_timeout": BATCH_TIMEOUT_S if max_batch > 1 else 0.0}
    api = Embedding(**batches, api_path="/embed")
    server = LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=TIMEOUT_S)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
