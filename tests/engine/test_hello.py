"""What a connection may begin with: a HELLO that makes no sense costs its connection, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence

import psutil
import pytest

from iei.engine.frames import FRAME_BYTES, Hello, Welcome
from tests.engine.known_engines import SUBMIT, KnownEngines, ask, assert_answered, connected
from tests.engine.waiting import until

pytestmark = pytest.mark.server

ARENA = 4096
HELLO = Hello(ARENA, 1).pack()


def file_of(nbytes: int) -> int:
    """A new anonymous file."""
    fd = os.memfd_create("arena")
    os.ftruncate(fd, nbytes)
    return fd


def read_only() -> int:
    """A file that can be mapped for reading only."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(ARENA)
        return os.open(file.name, os.O_RDONLY)


def end_of_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def end_of_socket() -> int:
    one, other = socket.socketpair()
    other.close()
    return one.detach()


def folder() -> int:
    return os.open(tempfile.gettempdir(), os.O_RDONLY)


Descriptor = Callable[[], int]


def arena() -> int:
    return file_of(ARENA)


REFUSED: dict[str, tuple[bytes, Sequence[Descriptor]]] = {
    "no descriptor": (HELLO, []),
    "two descriptors": (HELLO, [arena, arena]),
    "many descriptors": (HELLO, [arena] * 100),
    "kind": (b"\xff" * FRAME_BYTES, [arena]),
    "another frame": (SUBMIT.pack(), [arena]),
    "a welcome": (Welcome().pack(), [arena]),
    "no bytes in the arena": (Hello(0, 1).pack(), [arena]),
    "an empty file": (HELLO, [lambda: file_of(0)]),
    "more bytes than the file": (Hello(2**20, 1).pack(), [arena]),
    "one byte more than the file": (Hello(ARENA + 1, 1).pack(), [arena]),
    "more bytes than can be mapped": (Hello(2**62, 1).pack(), [lambda: file_of(2**62)]),
    "more bytes than can be counted": (Hello(2**64 - 1, 1).pack(), [arena]),
    "a pipe": (HELLO, [end_of_pipe]),
    "a socket": (HELLO, [end_of_socket]),
    "a folder": (HELLO, [folder]),
    "a file that can't be written": (HELLO, [read_only]),
}


def descriptors(engines: KnownEngines) -> int:
    return psutil.Process(engines.process.pid).num_fds()


def greet(engines: KnownEngines, hello: bytes, made: Sequence[Descriptor]) -> socket.socket:
    """A connection that has begun with `hello` and these descriptors."""
    fds = [make() for make in made]
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stranger.settimeout(10)
    stranger.connect(str(engines.address.path))
    socket.send_fds(stranger, [hello], fds)
    for fd in fds:
        os.close(fd)
    return stranger


def is_closed(stranger: socket.socket) -> bool:
    """Whether the engine answers with EOF; a reset is one, too, where it has left bytes unread."""
    try:
        return stranger.recv(FRAME_BYTES) == b""
    except ConnectionResetError:
        return True


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnownEngines]:
    engines = KnownEngines(tmp_path_factory.mktemp("hello") / "engine.sock")
    yield engines
    engines.stop()


def assert_costs_nothing(engines: KnownEngines, stranger: Callable[[], None]) -> None:
    """The same engine answers before and after, and has no descriptor more."""

    async def scenario() -> None:
        async with connected(engines) as client:
            assert_answered(1, await ask(client, 1))
            pid, before = engines.process.pid, descriptors(engines)
            await asyncio.to_thread(stranger)
            await until(lambda: descriptors(engines) == before)
            assert_answered(2, await ask(client, 2))
            assert (engines.process.pid, engines.started) == (pid, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("name", REFUSED)
def test_a_hello_that_makes_no_sense_closes_its_connection_only(engines: KnownEngines, name: str) -> None:
    def stranger() -> None:
        with greet(engines, *REFUSED[name]) as connection:
            assert is_closed(connection)

    assert_costs_nothing(engines, stranger)


@pytest.mark.parametrize("length", [0, 1, FRAME_BYTES - 1])
def test_a_worker_that_leaves_before_its_hello_is_complete_is_forgotten(engines: KnownEngines, length: int) -> None:
    def stranger() -> None:
        made = [arena, arena] if length else []
        with greet(engines, HELLO[:length], made) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert is_closed(connection)

    assert_costs_nothing(engines, stranger)


@pytest.mark.parametrize("length", [1, 8, FRAME_BYTES - 1])
def test_a_hello_may_arrive_in_pieces_and_with_what_follows(engines: KnownEngines, length: int) -> None:
    def stranger() -> None:
        with greet(engines, HELLO[:length], [arena]) as connection:
            connection.sendall(HELLO[length:] + SUBMIT.pack())
            received = b""
            while len(received) < 2 * FRAME_BYTES:
                received += connection.recv(2 * FRAME_BYTES)
            assert received[:FRAME_BYTES] == Welcome().pack()

    assert_costs_nothing(engines, stranger)


def test_descriptors_that_come_later_are_not_kept(engines: KnownEngines) -> None:
    def stranger() -> None:
        with greet(engines, HELLO, [arena]) as connection:
            assert connection.recv(FRAME_BYTES) == Welcome().pack()
            fds = [arena() for _ in range(3)]
            socket.send_fds(connection, [SUBMIT.pack()], fds)
            for fd in fds:
                os.close(fd)
            assert len(connection.recv(FRAME_BYTES)) == FRAME_BYTES

    assert_costs_nothing(engines, stranger)
