"""The routes of the page at `/`."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from iei.dialects.registry import Dialect
from iei.dialects.tei_errors import error_body
from iei.page.files import METHODS, files_in


class _ForBrowsers(APIRoute):
    """Matches only requests that ask for HTML: `GET /` is a health route, too, and its clients want JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match == Match.FULL and "text/html" in Headers(scope=scope).get("accept", "").lower():
            return match, child_scope
        return Match.NONE, {}


def dialect() -> Dialect:
    """The page's routes, which have to come before any other `GET /`."""
    site = dict(files_in("static"))
    routes = APIRouter(include_in_schema=False)

    async def page(request: Request) -> Response:
        """The page itself."""
        return site["index.html"].response(request, vary="accept")

    @routes.api_route("/page/{name}", methods=METHODS)
    async def part(name: str, request: Request) -> Response:
        """A file that the page loads."""
        if name not in site:
            raise HTTPException(404)
        return site[name].response(request)

    routes.add_api_route("/", page, methods=METHODS, route_class_override=_ForBrowsers)
    return Dialect("Page", error_body, health_router=routes)
