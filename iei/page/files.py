"""Files that browsers load: read once, at the start, and sent with a policy of what they may do.

They hold no data: what a page shows, it gets from the API, with a key where the server has keys. So they are open to
all, as a browser can't send a key when it opens a page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""What pages consist of."""

METHODS = ["GET", "HEAD"]
"""By which files are asked for."""

POLICY: Mapping[str, str] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "worker-src": "'self'",
    "img-src": "'self' blob:",  # pictures that are about to be sent
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
"""The Content-Security-Policy: nothing inline, nothing from another host."""

HEADERS: Mapping[str, str] = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # kept, and asked for again each time: the answer is mostly 304
}


class File:
    """A file, and how it is sent.

    Args:
        name: its media type is that of its ending, one of `MEDIA_TYPES`.
        content: of the file.
        policy: what the browser allows it.
    """

    def __init__(self, name: str, content: bytes, policy: Mapping[str, str] = POLICY) -> None:
        self._content = content
        self._media_type = MEDIA_TYPES[PurePath(name).suffix]
        self._headers = {
            **HEADERS,
            "content-security-policy": "; ".join(f"{what} {where}" for what, where in policy.items()),
            "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        }

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


def files_in(folder: str, policy: Mapping[str, str] = POLICY) -> Iterator[tuple[str, File]]:
    """Name and file of all in a folder of this package that belong to a page; licences and the like do not.

    Args:
        folder: its name.
        policy: what browsers allow them.
    """
    for path in files("iei.page").joinpath(folder).iterdir():
        if PurePath(path.name).suffix in MEDIA_TYPES:
            yield path.name, File(path.name, path.read_bytes(), policy)
