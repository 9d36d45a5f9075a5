"""The app below a path of Ray Serve's proxy: what the proxy does differs a little from what servers do."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = b"x-request-id"


class Mounted:
    """Serves several applications at one port, each under its `route_prefix`.

    The prefix is removed from the path, which is all that routes, keys and the prefixes of models look at; it stays in
    `root_path`, for the addresses at /docs. And the proxy sets `X-Request-Id` on every answer, to the value that it has
    put into the request and that IEI has taken: once is enough.

    Args:
        app: the ASGI app inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root) or "/"
        # Starlette would remove a `root_path` that the rest of the path begins with once more.
        inner = {**scope, "path": path, "root_path": "" if path.startswith(root) else root}

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0].lower() != REQUEST_ID]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(inner, receive, send_without_id)
