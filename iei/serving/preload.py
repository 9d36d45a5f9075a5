"""What each worker would import when it first needs it: before the fork it is read once, and its memory is shared."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from uvicorn.loops.auto import auto_loop_factory

NEEDED = ("uvicorn.lifespan.on", "uvicorn.protocols.http.auto", "anyio._backends._asyncio")


def preload() -> None:
    """Imports it. Nothing of it starts a thread, or opens anything."""
    auto_loop_factory()  # imports uvloop, where it is installed
    for name in NEEDED:
        with suppress(ModuleNotFoundError):  # another release may have no such module: then nobody needs it
            import_module(name)
