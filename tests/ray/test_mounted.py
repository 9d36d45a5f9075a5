from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from iei.ray.mounted import Mounted


async def _seen(request: Request) -> JSONResponse:
    seen = {"path": request.scope["path"], "root": request.scope["root_path"]}
    return JSONResponse(seen, headers={"X-Request-Id": "7", "x-other": "8"})


@pytest.mark.parametrize(
    ("prefix", "path", "root"),
    [
        ("", "/embed", ""),
        ("/clip", "/embed", "/clip"),
        ("/embed", "/embed", ""),  # Starlette would remove it a second time
        ("/clip", "/m/x/embed", "/clip"),
        ("/clip", "/", "/clip"),
    ],
)
def test_the_prefix_is_no_part_of_the_path(prefix: str, path: str, root: str) -> None:
    routes = [Route(each, _seen) for each in ("/", "/embed", "/m/x/embed")]
    app = Mounted(Starlette(routes=routes))

    async def server(scope: dict[str, object], receive: object, send: object) -> None:
        await app({**scope, "root_path": prefix, "path": f"{prefix}{scope['path']}"}, receive, send)  # type: ignore[arg-type]

    answer = TestClient(server).get(path)  # type: ignore[arg-type]
    assert answer.json() == {"path": path, "root": root}
    assert ("x-request-id" in answer.headers, answer.headers["x-other"]) == (False, "8")
