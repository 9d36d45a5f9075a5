"""Which web pages may call this server from a browser: CORS, by Starlette's own middleware."""

from __future__ import annotations

import re

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from iei.errors import StartupError

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@*]+")

_EXPOSED = (
    "retry-after",
    "x-request-id",
    "x-iei-errors",
    "x-iei-failed",
    "x-iei-shape",
    "x-iei-warning",
    *(f"x-{name}-time" for name in ("total", "preprocess", "queue", "inference")),
)
"""Headers of responses that scripts may read."""


def cors(origins: str) -> list[Middleware]:
    """The middleware that the setting `cors_origins` asks for: none if it is empty.

    Keys are sent in headers that scripts set, so no credentials that browsers keep (cookies) are allowed.

    Args:
        origins: `*`, or origins separated by commas.

    Raises:
        StartupError: one of them is not an origin.
    """
    allowed = [origin.strip().lower() for origin in origins.split(",") if origin.strip()]
    for origin in allowed:
        if not _ORIGIN.fullmatch(origin) and allowed != ["*"]:
            raise StartupError(
                f"IEI_CORS_ORIGINS: {origin!r} is not an origin: write scheme://host or scheme://host:port, without a "
                "path, several separated by commas; or * alone."
            )
    if not allowed:
        return []
    return [
        Middleware(
            CORSMiddleware, allow_origins=allowed, allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED
        )
    ]
