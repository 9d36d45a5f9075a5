"""How servers stop: alone, behind balancers, and while they still start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests import pictures
from tests.servers import PATIENCE_S, ROOT, Server, runs, serve, until
from tests.serving.balancers import HAPROXY, NGINX, free_port, haproxy, nginx

pytestmark = pytest.mark.server

WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all")
PICTURE = {"inputs": [pictures.base64_of(pictures.png())]}


def status(url: str, path: str = "/health") -> int | None:
    """None: the port is closed."""
    try:
        return httpx.get(f"{url}{path}", timeout=PATIENCE_S).status_code
    except httpx.ConnectError:
        return None


@contextlib.contextmanager
def drained(demo_cache: str, drain_s: float, port: int = 0, workers: int = 2) -> Iterator[Server]:
    """`iei serve` with a drain."""
    env = {"IEI_CACHE_DIR": demo_cache, "IEI_DRAIN_S": str(drain_s), "IEI_THREADS": "1"}
    command = f"python -m iei serve --demo --workers {workers} --bind 127.0.0.1:{port}"
    with serve(env, command=command.split()) as server:
        yield server


# a rolling restart


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(not (NGINX and HAPROXY), reason="needs nginx and HAProxy: apt-get install nginx-light haproxy")
def test_a_rolling_restart_behind_nginx_and_haproxy_loses_no_request(tmp_path: Path, demo_cache: str) -> None:
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        with ThreadPoolExecutor() as threads:  # both load at the same time
            for each, port in zip((first, second), ports, strict=True):
                threads.submit(stack.enter_context(each).enter_context, drained(demo_cache, 4, port))
        urls = [stack.enter_context(balancer(tmp_path, ports)) for balancer in (nginx, haproxy)]
        until(lambda: all(status(url) == 200 for url in urls))
        done, failures = asyncio.run(_load_while(urls, lambda: _restart(demo_cache, (first, second), ports)))
    assert failures == []
    assert min(done.values()) > 100


def _restart(demo_cache: str, servers: tuple[contextlib.ExitStack, ...], ports: list[int]) -> None:
    for server, port in zip(servers, ports, strict=True):
        server.close()  # SIGTERM, and the end
        server.enter_context(drained(demo_cache, 4, port))


async def _load_while(urls: list[str], work: Callable[[], None]) -> tuple[dict[str, int], list[str]]:
    """How many requests to each of `urls` succeeded while `work` ran in a thread, and what the others met with."""
    done = dict.fromkeys(urls, 0)
    failures: list[str] = []
    is_over = False

    async def client(url: str) -> None:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as session:
            while not is_over:
                try:
                    response = await session.post(f"{url}/embed", json=PICTURE)
                except httpx.HTTPError as error:
                    failures.append(f"{url}: {error!r}")
                    continue
                if response.status_code == 200:
                    done[url] += 1
                else:
                    failures.append(f"{url}: {response.status_code} {response.text[:200]}")
                await asyncio.sleep(0.02)  # connections are idle at times, as in production

    async with asyncio.TaskGroup() as tasks:
        for url in urls * 8:
            tasks.create_task(client(url))
        await asyncio.to_thread(work)
        is_over = True
    return done, failures


# one server


def test_a_server_that_stops_answers_until_its_port_closes(demo_cache: str) -> None:
    with drained(demo_cache, 5) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        assert "connection" not in client.get("/ping").headers
        with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as idle:
            idle.sendall(b"GET /ping HTTP/1.1\r\nHost: iei\r\n\r\n")
            idle.settimeout(PATIENCE_S)
            received = b""
            while b"pong" not in received:
                received += idle.recv(9999)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: {status(server.url) for _ in range(20)} == {503})  # the signal has reached both workers
            assert status(server.url, "/v2/health/ready") == 503
            assert status(server.url, "/ping") == 200
            response = client.post("/embed", json=PICTURE)  # over a connection from before
            assert (response.status_code, response.headers["connection"]) == (200, "close")
            assert httpx.post(f"{server.url}/embed", json=PICTURE, timeout=PATIENCE_S).status_code == 200
            idle.settimeout(0)
            with pytest.raises(BlockingIOError):
                idle.recv(1)
            until(lambda: status(server.url) is None)
            idle.settimeout(PATIENCE_S)
            assert idle.recv(1) == b""
        assert server.process.wait(PATIENCE_S) == 0


def test_a_server_without_capabilities_closes_its_port(demo_cache: str) -> None:
    """As in a container: its kernel may refuse the filter that keeps new clients from connecting."""
    python = [*WITHOUT_CAPABILITIES, sys.executable] if os.geteuid() == 0 else [sys.executable]
    command = [*python, "-m", "iei", "serve", "--demo", "--workers", "2", "--bind", "127.0.0.1:0"]
    with serve({"IEI_CACHE_DIR": demo_cache, "IEI_THREADS": "1"}, command=command) as server:
        assert status(server.url) == 200
        assert server.stop() == 0
        assert "Traceback" not in server.log


@pytest.mark.long
@pytest.mark.parametrize("command", ["gunicorn", "iei serve"])
def test_sigint_to_the_master_alone_stops_at_once_and_quietly(command: str, demo_cache: str) -> None:
    env = {"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache, "IEI_DRAIN_S": "60"}
    iei_serve = ["python", "-m", "iei", "serve", "--workers", "1", "--bind", "127.0.0.1:0"]
    # One worker, which has answered: gunicorn loses signals to a worker that has just been forked.
    with serve(env, workers=1, command=None if command == "gunicorn" else iei_serve) as server:
        assert status(server.url) == 200
        started = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 25  # of gunicorn's 30 s
        assert "out of memory" not in server.log
        assert "was sent" not in server.log


@pytest.mark.long
def test_sighup_replaces_the_workers_and_loses_no_request(demo_cache: str) -> None:
    with drained(demo_cache, 1) as server:
        before = set(server.all_workers(2))
        (engine,) = server.running("iei.engine.process")

        def reload() -> None:
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(server.workers()) == 2 and not before & set(server.workers()))

        done, failures = asyncio.run(_load_while([server.url], reload))
        assert failures == []
        assert done[server.url]
        assert server.running("iei.engine.process") == [engine]


# while it loads

PID_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
needs_unshare = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="process 1 needs root, and unshare of util-linux"
)


@pytest.mark.parametrize(
    ("before", "program", "number"),
    [
        pytest.param((), "iei serve", signal.SIGINT, id="iei serve, SIGINT"),
        pytest.param((), "gunicorn server:app --preload", signal.SIGTERM, id="gunicorn, SIGTERM"),
        pytest.param(PID_1, "iei serve", signal.SIGTERM, id="iei serve as process 1", marks=needs_unshare),
        pytest.param(
            PID_1, "gunicorn server:app --preload", signal.SIGTERM, id="gunicorn as process 1", marks=needs_unshare
        ),
    ],
)
def test_a_signal_ends_a_server_that_still_loads(
    before: tuple[str, ...], program: str, number: signal.Signals, tmp_path: Path
) -> None:
    """It waits for a hub that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {
            "IMAGE_EMBEDDING_MODEL": "nobody/nothing",
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "IEI_BIND": "127.0.0.1:0",
        }
        command = [*before, sys.executable, "-m", *program.split()]
        family: list[psutil.Process] = []
        process = psutil.Popen(command, cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.DEVNULL)
        try:
            until(lambda: any(runs(each, "iei.engine.supervisor") for each in process.children(recursive=True)))
            family = process.children(recursive=True)
            master = family[0] if before else process
            master.send_signal(number)
            assert process.wait(PATIENCE_S) == 128 + number
            _, left = psutil.wait_procs(family, PATIENCE_S)
            assert not left
        finally:
            for each in [*family, process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
