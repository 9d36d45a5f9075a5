"""What a route is called in logs and metrics: its template, never the path that a client wrote."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Scope


class RouteNames:
    """The templates of an app's routes, and whose they are. `read` it once all routes are there."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, str]] = {}
        """By the `id` of the route, which lives as long as the app: routes have no hash."""

    def read(self, app: FastAPI) -> None:
        """Learns the routes of `app`; each has its dialect as the first tag."""
        for route in app.routes:
            if isinstance(route, Route):
                tags: list[str] = getattr(route, "tags", [])
                self._names[id(route)] = (route.path_format, tags[0] if tags else "")

    def __call__(self, scope: Scope) -> tuple[str, str]:
        """The template and the dialect of the route that served a request; both empty if none did."""
        return self._names.get(id(scope.get("route")), ("", ""))
