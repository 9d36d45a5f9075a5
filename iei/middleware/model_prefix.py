"""Middleware that lets a URL choose the model: `/m/{model}/…` is `…` with that model as the default."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/m/"


class ModelPrefix:
    """Removes the prefix from the path and puts the name of the model into the request's state, as `model`.

    It is for clients whose protocol has no field for the model, but whose base URL is free. A request that names a
    model itself gets the one that it names. Names may contain slashes: the shortest part that is a served name counts.

    Args:
        app: the ASGI app inside.
        is_served: whether a model of this name is served.
    """

    def __init__(self, app: ASGIApp, is_served: Callable[[str], bool]) -> None:
        self._app = app
        self._is_served = is_served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            model, path = self._split(scope["path"].removeprefix(PREFIX))
            scope = {**scope, "path": path, "state": {**scope.get("state", {}), "model": model}}
        await self._app(scope, receive, send)

    def _split(self, path: str) -> tuple[str, str]:
        """`a/b/embed` → the model and the route. Of an unknown model the service says so, in the form of the route."""
        parts = path.split("/")
        names = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        model = next((name for name in names if self._is_served(name)), parts[0])
        return model, path[len(model) :] or "/"
