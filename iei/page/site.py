"""Serves the files of the page, which are read once, at the start.

They hold no data: what the page shows, it gets from the API, with a key where the server has keys. So they are open to
all, as a browser can't send a key when it opens a page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import PurePath

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

MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""What the page consists of."""

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "img-src 'self' blob:",  # pictures that are about to be sent
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""The Content-Security-Policy: nothing inline, nothing from another host."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # kept, and asked for again each time: the answer is mostly 304
}


class File:
    """A file of the page, and how it is sent."""

    def __init__(self, name: str, content: bytes) -> None:
        self._content = content
        self._media_type = MEDIA_TYPES[PurePath(name).suffix]
        self._headers = {**HEADERS, "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}

    def response(self, request: Request, **headers: str) -> Response:
        """The file, or 304 where the browser has it.

        Args:
            request: what asks for it.
            **headers: further headers, with _ for -.
        """
        sent = {**self._headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if sent["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=sent)
        return Response(self._content, headers=sent, media_type=self._media_type)


class _ForBrowsers(APIRoute):
    """Matches only requests that ask for HTML: `GET /` is a health route, too, and its clients want JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match == Match.FULL and "text/html" in Headers(scope=scope).get("accept", "").lower():
            return match, child_scope
        return Match.NONE, {}


def dialect() -> Dialect:
    """The page's routes, which have to come before any other `GET /`."""
    site = dict(_files())
    routes = APIRouter(include_in_schema=False)

    async def page(request: Request) -> Response:
        """The page itself."""
        return site["index.html"].response(request, vary="accept")

    @routes.api_route("/page/{name}", methods=_METHODS)
    async def part(name: str, request: Request) -> Response:
        """A file that the page loads."""
        if name not in site:
            raise HTTPException(404)
        return site[name].response(request)

    routes.add_api_route("/", page, methods=_METHODS, route_class_override=_ForBrowsers)
    return Dialect("Page", error_body, health_router=routes)


_METHODS = ["GET", "HEAD"]


def _files() -> Iterator[tuple[str, File]]:
    for path in files("iei.page").joinpath("static").iterdir():
        if PurePath(path.name).suffix in MEDIA_TYPES:
            yield path.name, File(path.name, path.read_bytes())
