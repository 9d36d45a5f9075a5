"""What both clients are told of a server, as arguments of httpx2's clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

import httpx2

from iei import __version__
from iei.client.answers import NPY

CONNECT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a server is, and how it is asked."""

    url: str
    api_key: str | None = field(repr=False)
    batch_size: int
    concurrency: int
    timeout_s: float
    retry_s: float
    verify: ssl.SSLContext | bool

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url} is not the address of a server: give one like http://localhost:8000")
        try:
            httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise ValueError(f"{self.url} is not the address of a server: {error}") from None
        for name in ("batch_size", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and must be at least 1")

    def arguments(self) -> dict[str, Any]:
        """Of `httpx2.Client` and `httpx2.AsyncClient`."""
        headers = {"accept": NPY, "user-agent": f"iei-client/{__version__}"}
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.url,
            "headers": headers,
            # A request waits for a connection as long as it must: nothing is wrong when all of them are in use.
            "timeout": httpx2.Timeout(self.timeout_s, connect=CONNECT_S, pool=None),
            "limits": httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency),
            "verify": self.verify,
        }
