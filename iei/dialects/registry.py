"""The definition of a dialect, and the choice of the dialect that a request belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, request_response
from starlette.types import Scope

from iei.errors import IEIError

ErrorBody = Callable[[IEIError], bytes]
"""Formats an error as the JSON body of its response."""


@dataclass(frozen=True)
class Dialect:
    """One HTTP API: its routes and the format of its errors."""

    name: str
    error_body: ErrorBody
    router: APIRouter | None = None
    """Routes that a guard, such as authentication, protects."""
    health_router: APIRouter | None = None
    """Routes that report the state of the server, and others that hold no data. Guards let requests to them through."""
    prefix: str | None = None
    """Errors on paths that begin with this but match no route have this dialect's format."""
    about: str = ""
    """For whom it is, in a sentence: the heading of its routes at /docs."""

    def __post_init__(self) -> None:
        for route in self.routes:
            if isinstance(route, APIRoute):
                route.tags = [self.name]
                if _does_all(route):
                    # Nothing is left for FastAPI to do, which it takes 0.1 ms to find out.
                    route.app = request_response(route.endpoint)

    @property
    def routes(self) -> list[BaseRoute]:
        """Those of both routers."""
        return [route for router in self.routers for route in router.routes]

    @property
    def routers(self) -> tuple[APIRouter, ...]:
        """Both routers, without those that are None."""
        return tuple(router for router in (self.router, self.health_router) if router)

    @property
    def is_documented(self) -> bool:
        """Whether /docs shows any of its routes. Those that share their paths are shown with the other dialect."""
        return any(isinstance(route, APIRoute) and route.include_in_schema for route in self.routes)


class Dialects:
    """All dialects of a server.

    Args:
        dialects: at least one; the first formats errors on paths that belong to none of them.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._dialects = tuple(dialects)

    def __iter__(self) -> Iterator[Dialect]:
        return iter(self._dialects)

    def owner(self, scope: Scope) -> Dialect:
        """The dialect that formats the errors of a request.

        It is the dialect of the route that the request matches (a full match before one in which only the method
        differs), then the one whose prefix the path has, then the first. This works before the app has routed the
        request, so that errors raised by middleware have the same format as those of the route.

        Args:
            scope: the ASGI scope of the request.
        """
        found = [(_match(dialect.routers, scope), dialect) for dialect in self._dialects]
        for wanted in (Match.FULL, Match.PARTIAL):
            for match, dialect in found:
                if match == wanted:
                    return dialect
        path = scope["path"]
        return next(
            (dialect for dialect in self._dialects if dialect.prefix and path.startswith(dialect.prefix)),
            self._dialects[0],
        )

    def is_health(self, scope: Scope) -> bool:
        """Whether a health route will answer the request with this ASGI scope.

        The app has the routers in the same order, and the first match answers. A path alone is not enough: `GET /` may
        be a health route, and `POST /` not.
        """
        for dialect in self._dialects:
            for router in dialect.routers:
                if _match([router], scope) == Match.FULL:
                    return router is dialect.health_router
        return False

    @property
    def health_routes(self) -> frozenset[tuple[str, str]]:
        """Method and template of every health route."""
        return frozenset(
            (method, route.path)
            for dialect in self._dialects
            if dialect.health_router
            for route in dialect.health_router.routes
            if isinstance(route, Route)
            for method in route.methods or ()
        )


def _does_all(route: APIRoute) -> bool:
    """Whether a route's endpoint takes nothing but the request, makes the response, and depends on nothing."""
    found = signature(route.endpoint)
    takes_request = list(found.parameters) == ["request"]
    return takes_request and found.return_annotation in ("Response", Response) and not route.dependencies


def _match(routers: Sequence[APIRouter], scope: Scope) -> Match:
    """The best match among all routes: FULL, PARTIAL (only the method differs) or NONE."""
    matches = (route.matches(scope)[0] for router in routers for route in router.routes)
    return max(matches, key=lambda match: match.value, default=Match.NONE)
