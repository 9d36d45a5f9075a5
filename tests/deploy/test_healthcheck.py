from __future__ import annotations

import http.server
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.server

HEALTHCHECK = Path(__file__).parents[2] / "deploy" / "healthcheck.py"


class Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Starting(Health):
    status = 503


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def check(bind: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEALTHCHECK)],
        env={**os.environ, "IEI_BIND": bind, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost", ""])
def test_a_ready_server_is_healthy(host: str) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    with serving(server):
        result = check(f"{host}:{server.server_port}")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("bind", ["0.0.0.0:1", "0.0.0.0", ":1"])
@pytest.mark.parametrize("variable", ["IEI_PORT", "PORT", "AIP_HTTP_PORT"])
def test_the_port_is_that_of_the_settings(variable: str, bind: str) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    with serving(server):
        result = check(bind, IEI_HOST="127.0.0.1", **{variable: str(server.server_port)})
    assert (result.returncode, result.stderr) == (0, "")


def test_a_proxy_of_the_environment_is_not_asked() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    with serving(server):
        result = check(
            f"0.0.0.0:{server.server_port}", http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9"
        )
    assert result.returncode == 0, result.stderr


def test_a_server_on_a_unix_socket_is_healthy(tmp_path: Path) -> None:
    path = tmp_path / "iei.sock"
    with serving(socketserver.UnixStreamServer(str(path), Health)):
        result = check(f"unix:{path}")
    assert result.returncode == 0, result.stderr


def test_a_server_without_its_engine_is_not_healthy() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Starting)
    with serving(server):
        result = check(f"0.0.0.0:{server.server_port}")
    assert result.returncode == 1
    assert result.stderr.strip() == "/health answers 503"


def test_no_server_is_not_healthy() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        result = check(f"0.0.0.0:{probe.getsockname()[1]}")
    assert result.returncode == 1
    assert result.stderr.startswith("no answer from the server")
