"""What the tests of clients compare with, and what they send wrong."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.pictures import data_uri, jpeg
from tests.servers import Server

NEEDS = "needs the clients group: uv sync --group clients"
TEXTS = ["a cat on a mat", "stocks fell"]
URIS = [data_uri(jpeg(name="chelsea")), data_uri(jpeg(name="coffee"))]
BAD_URI = "data:image/png;base64,AAAA"
LONG = "cat " * 1000


def expected(server: Server, inputs: list[str], model: str = "clip") -> NDArray[np.float32]:
    """Vectors of length 1, by IEI's own route."""
    body = {"inputs": inputs, "normalize": True}
    response = httpx.post(f"{server.url}/m/{model}/embed", json=body, timeout=60)
    return np.array(response.json(), np.float32)


def twice(call: Callable[[], object]) -> None:
    """Two calls: with the key `slow`, the second is too soon."""
    call()
    call()
