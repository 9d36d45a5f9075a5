"""What would be imported when it is first needed.

Before the fork it is read once, and its memory is shared; while an engine loads its models, it takes nobody's time.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from fastapi import APIRouter
from uvicorn.loops.auto import auto_loop_factory

NEEDED = ("uvicorn.lifespan.on", "uvicorn.protocols.http.auto", "anyio._backends._asyncio")


def preload() -> None:
    """Imports it. Nothing of it starts a thread, or opens anything."""
    auto_loop_factory()  # imports uvloop, where it is installed
    for name in NEEDED:
        with suppress(ModuleNotFoundError):  # another release may have no such module: then nobody needs it
            import_module(name)
    APIRouter().add_api_route("/", lambda: None)  # FastAPI imports more for its first route
