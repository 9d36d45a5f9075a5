"""Routes chosen by the media type of the body, on paths that several dialects share."""

from __future__ import annotations

from fnmatch import fnmatchcase

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import Scope

from iei.dialects.wire import media_type

MULTIPART = "multipart/form-data"

IMAGES = {
    "image/*": "One image file",
    "application/x-image": "One image file",
    "application/octet-stream": "One image file",
}
"""Media types of bodies that are an image file → what `/docs` says of them. `application/x-image` is SageMaker's."""


def takes(*media_types: str) -> type[APIRoute]:
    """The class of routes that match only requests whose body is of one of `media_types`; `image/*` is a pattern.

    A router of such routes has to come before the one that takes all other bodies on the same path. Requests of other
    methods have no such body, so they belong to that one, too.
    """

    class MediaRoute(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            match, child_scope = super().matches(scope)
            if match != Match.NONE and not _is_any(media_type(Request(scope)), media_types):
                return Match.NONE, {}
            return match, child_scope

    return MediaRoute


def _is_any(content_type: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(content_type, pattern) for pattern in patterns)
