"""The port of `iei serve`: taken before models are loaded, or a sentence at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iei.commands.address import reserved
from iei.errors import StartupError
from iei.settings import read_settings
from tests.servers import ROOT


@pytest.fixture
def taken() -> Iterator[str]:
    """An address at which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


def test_the_port_is_taken_and_nobody_can_connect_yet() -> None:
    scheme, _, fd = reserved(read_settings(bind="127.0.0.1:0").server).partition("://")
    with socket.socket(fileno=int(fd)) as held:
        assert scheme == "fd"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(held.getsockname(), timeout=5)
        held.listen()
        socket.create_connection(held.getsockname(), timeout=5).close()


@pytest.mark.parametrize(
    ("bind", "why"),
    [
        ("127.0.0.1:80999", "ports end at 65535"),
        ("192.0.2.1:8000", "assign"),
        ("unix:/no/such/folder/iei", "no socket"),
    ],
)
def test_where_nothing_can_listen_is_told(bind: str, why: str) -> None:
    with pytest.raises(StartupError, match=f"can't listen on .*{why}"):
        reserved(read_settings(bind=bind).server)


def test_a_unix_socket_is_gunicorns_own(tmp_path: Path) -> None:
    assert reserved(read_settings(bind=f"unix:{tmp_path}/iei").server) == f"unix:{tmp_path}/iei"


@pytest.mark.server
@pytest.mark.parametrize("flag", ["--bind", "--port"])
def test_a_port_in_use_ends_the_start_before_anything_is_loaded(taken: str, flag: str) -> None:
    address = ["--bind", taken] if flag == "--bind" else ["--host", "127.0.0.1", "--port", taken.rpartition(":")[2]]
    done = subprocess.run(
        [sys.executable, "-m", "iei", "serve", "--demo", *address],
        cwd=ROOT,
        env={**os.environ, "IEI_LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"iei: can't listen on {taken} (IEI_BIND, IEI_PORT): Address already in use. "
        "Stop what listens there, or choose another port.\n"
    )
