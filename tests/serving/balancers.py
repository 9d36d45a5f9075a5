"""nginx and HAProxy, run with the configurations in deploy/."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.servers import ROOT

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
"""Where Debian has them, and not every user looks."""
NGINX, HAPROXY = shutil.which("nginx", path=_PATH), shutil.which("haproxy", path=_PATH)


@contextlib.contextmanager
def nginx(folder: Path, servers: Sequence[int]) -> Iterator[str]:
    """The URL of nginx with deploy/nginx.conf, before servers at these two ports of 127.0.0.1."""
    own = f"access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
    port, text = _with_ports(ROOT / "deploy" / "nginx.conf", servers)
    file = folder / "nginx.conf"
    file.write_text(text.replace("http {", f"http {{ {own}"))
    directives = f"daemon off; pid {folder}/pid; error_log {folder}/nginx.log;"
    with _running([str(NGINX), "-p", str(folder), "-c", str(file), "-g", directives], port) as url:
        yield url


@contextlib.contextmanager
def haproxy(folder: Path, servers: Sequence[int]) -> Iterator[str]:
    """The URL of HAProxy with deploy/haproxy.cfg, before servers at these ports of 127.0.0.1, however many."""
    port, text = _with_ports(ROOT / "deploy" / "haproxy.cfg", (8001, 8002))
    before, _, _ = text.partition("    server one ")
    file = folder / "haproxy.cfg"
    file.write_text(before + "".join(f"    server at{each} 127.0.0.1:{each}\n" for each in servers))
    with _running([str(HAPROXY), "-db", "-f", str(file)], port) as url:
        yield url


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _with_ports(file: Path, servers: Sequence[int]) -> tuple[int, str]:
    """A port for the balancer, and the configuration with it and with the servers' in place of those in deploy/."""
    ports = [free_port(), *servers]
    text = file.read_text()
    for example, port in zip((8000, 8001, 8002), ports, strict=True):
        assert text.count(f"127.0.0.1:{example}") == 1
        text = text.replace(f"127.0.0.1:{example}", f"127.0.0.1:{port}")
    return ports[0], text


@contextlib.contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        give_up_at = time.monotonic() + 20
        while not _listens(port):
            assert process.poll() is None, f"{command[0]} ended with status {process.returncode}"
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
