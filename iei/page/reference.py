"""`/docs`: the routes, described and tried out by Swagger UI, whose files the server has itself.

The files are open to all; `/openapi.json`, which they show, is not: the page asks for a key.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from iei.dialects.registry import Dialect
from iei.dialects.tei_errors import error_body
from iei.page.files import METHODS, POLICY, files_in

SWAGGER_POLICY = {
    **POLICY,
    "img-src": "'self' data:",  # the icons of Swagger UI's style sheet
}


def dialect() -> Dialect:
    """The routes of `/docs`."""
    site = {**dict(files_in("swagger_ui", SWAGGER_POLICY)), **dict(files_in("docs", SWAGGER_POLICY))}
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/docs", methods=METHODS)
    async def docs(request: Request) -> Response:
        """The page itself."""
        return site["index.html"].response(request)

    @routes.api_route("/docs/{name}", methods=METHODS)
    async def part(name: str, request: Request) -> Response:
        """A file that the page loads."""
        if name not in site:
            raise HTTPException(404)
        return site[name].response(request)

    @routes.api_route("/redoc", methods=METHODS)
    async def redoc() -> Response:
        """Where FastAPI has its other viewer."""
        return RedirectResponse("docs")

    return Dialect("Docs", error_body, health_router=routes)
