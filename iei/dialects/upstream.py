"""Requests that another server answers: sent on as they came, and its answer returned."""

from __future__ import annotations

import logging

import httpcore2
from starlette.requests import Request
from starlette.responses import Response

from iei.errors import UpstreamFailed

log = logging.getLogger(__name__)

CONNECT_S = 5.0
ANSWER_S = 300.0
"""The other server may have to load a model first. Node's `fetch` waits as long."""
MAX_CONNECTIONS = 32

_FORWARDED = ("content-type", "accept", "x-request-id")
"""Headers that are sent on. The body is sent unpacked, so those about its encoding and length are made anew."""

_FAILURES = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)


class Upstream:
    """Another server. Made before the workers are forked: it opens nothing until it is used.

    Args:
        url: where its routes begin, without a slash at the end.
        setting: the variable that has the URL, for messages.
    """

    def __init__(self, url: str, setting: str) -> None:
        self._url = url
        self._setting = setting
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpcore2.default_ssl_context() if url.startswith("https:") else None,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=0,  # one that the other server has just closed would fail a request
        )

    async def answer(self, request: Request) -> Response:
        """The other server's answer to `request`, whatever its status.

        Raises:
            UpstreamFailed: there is none.
        """
        seconds = {"connect": CONNECT_S, "read": ANSWER_S, "write": ANSWER_S, "pool": ANSWER_S}
        try:
            response = await self._pool.request(
                request.method,
                self._url + request.scope["path"],
                headers=[(name, value) for name in _FORWARDED if (value := request.headers.get(name))],
                content=await request.body(),
                extensions={"timeout": seconds},
            )
        except _FAILURES as error:
            log.warning("%s=%s: %s %s", self._setting, self._url, type(error).__name__, error)
            raise UpstreamFailed(
                f"the server that this request is forwarded to ({self._setting}) did not answer: {type(error).__name__}"
            ) from error
        headers = {name.lower(): value for name, value in response.headers}
        media_type = headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
        return Response(response.content, response.status, {"content-type": media_type})
