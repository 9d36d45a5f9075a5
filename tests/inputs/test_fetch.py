"""`Fetcher` against servers on loopback, with invented names: what it takes, and what it must never reach."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpcore2
import pytest
import uvloop

from iei.errors import InvalidInput, StartupError
from iei.inputs.addresses import UrlPolicy
from iei.inputs.fetch import Fetcher
from iei.priority import PRIORITY, Priority

LIMIT = 100_000
PUBLIC = "93.184.215.14"
AUTHORITIES = httpcore2.default_ssl_context()
"""What a fetcher has by default. Reading the authorities' certificates takes longer than most tests here."""

Run = Callable[[Coroutine[Any, Any, None]], None]
Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def in_loop(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return in_loop


def answer(body: bytes = b"pixels", status: str = "200 OK", **headers: object) -> bytes:
    headers = {"content_length": len(body), "connection": "close"} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items() if value is not None)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return answer(b"", f"{status} Elsewhere", location=location)


@dataclass
class Internet:
    """One server behind every name and every port, and a diary."""

    answers: dict[str, Answer]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    port: int = 0
    heads: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        if host not in self.names:
            raise OSError("unknown name")
        return self.names[host]

    async def dial(self, address: str, port: int, timeout_s: float) -> httpcore2.AsyncNetworkStream:
        self.dialled.append((address, port))
        return await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", self.port, timeout=timeout_s)

    def fetcher(self, policy: str = "public", timeout_s: float = 5.0, **options: Any) -> Fetcher:
        given = {"resolve": self.resolve, "dial": self.dial, "ssl_context": AUTHORITIES, **options}
        return Fetcher(UrlPolicy.parse(policy), LIMIT, timeout_s, **given)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            found: Answer = b"connection: keep-alive"
            while isinstance(found, bytes) and b"connection: keep-alive" in found:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                found = self.answers[head.split()[1]]
                if isinstance(found, bytes):
                    writer.write(found)
                    await writer.drain()
                else:
                    await found(writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.closed.set()
        finally:
            writer.close()


@asynccontextmanager
async def internet(
    answers: dict[str, Answer], names: Mapping[str, Sequence[str]] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Internet]:
    world = Internet(answers, {"example.com": [PUBLIC]} if names is None else names)
    server = await asyncio.start_server(world.serve, "127.0.0.1", 0, ssl=tls)
    world.port = server.sockets[0].getsockname()[1]
    try:
        yield world
    finally:
        server.close()


async def refusal(fetcher: Fetcher, url: str) -> str:
    """The message with which `url` is refused."""
    try:
        with pytest.raises(InvalidInput) as caught:
            await fetcher.fetch(url)
    finally:
        await fetcher.aclose()
    assert caught.value.status == 400
    assert len(str(caught.value)) < 250
    return str(caught.value)


# What it takes


def test_a_picture_comes_back_whatever_its_content_type_says(run: Run) -> None:
    async def work() -> None:
        async with internet({"/cat.png?a=1": answer(b"\x89PNG", content_type="text/html")}) as world:
            fetcher = world.fetcher()
            assert await fetcher.fetch("http://Example.COM/cat.png?a=1#part") == b"\x89PNG"
            await fetcher.aclose()
            assert world.dialled == [(PUBLIC, 80)]
            head = world.heads[0].lower()
            assert "host: example.com\r\n" in head
            assert "accept-encoding: identity\r\n" in head
            assert "cookie" not in head
            assert "authorization" not in head

    run(work())


def test_chunked_and_unframed_bodies_come_back_whole(run: Run) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def work() -> None:
        async with internet({"/chunked": chunked, "/unframed": answer(b"x" * 999, content_length=None)}) as world:
            fetcher = world.fetcher()
            assert await fetcher.fetch("http://example.com/chunked") == b"abcde"
            assert await fetcher.fetch("http://example.com/unframed") == b"x" * 999
            await fetcher.aclose()

    run(work())


def test_a_name_is_resolved_once_per_connection_and_connections_are_kept(run: Run) -> None:
    async def work() -> None:
        async with internet({"/": answer(connection="keep-alive"), "/last": answer()}) as world:
            fetcher = world.fetcher()
            for path in ("/", "/", "/last", "/"):
                assert await fetcher.fetch(f"http://example.com{path}") == b"pixels"
            await fetcher.aclose()
            assert world.resolved == ["example.com"] * 2
            assert world.dialled == [(PUBLIC, 80)] * 2

    run(work())


@pytest.mark.parametrize("url", ["http://example.com./", "http://EXAMPLE.com:80/", "http://example.com"])
def test_spellings_of_a_host_are_one_host(run: Run, url: str) -> None:
    async def work() -> None:
        async with internet({"/": answer()}) as world:
            fetcher = world.fetcher()
            assert await fetcher.fetch(url) == b"pixels"
            await fetcher.aclose()
            assert "host: example.com\r\n" in world.heads[0].lower()

    run(work())


def test_international_names_are_asked_for_in_their_ascii_form(run: Run) -> None:
    async def work() -> None:
        async with internet({"/": answer()}, {"xn--bcher-kva.example": [PUBLIC]}) as world:
            fetcher = world.fetcher()
            assert await fetcher.fetch("http://bücher.example/") == b"pixels"
            await fetcher.aclose()
            assert world.resolved == ["xn--bcher-kva.example"]

    run(work())


def test_ipv6_literals_keep_their_brackets(run: Run) -> None:
    literal = "2606:4700::6810:84e5"

    async def work() -> None:
        async with internet({"/": answer()}, {literal: [literal]}) as world:
            fetcher = world.fetcher()
            assert await fetcher.fetch(f"http://[{literal}]/") == b"pixels"
            await fetcher.aclose()
            assert f"host: [{literal}]\r\n" in world.heads[0].lower()
            assert world.dialled == [(literal, 80)]

    run(work())


def test_a_second_address_is_tried_when_the_first_does_not_answer(run: Run) -> None:
    addresses = ["2606:4700::6810:84e5", PUBLIC]

    async def work() -> None:
        async with internet({"/": answer()}, {"example.com": addresses}) as world:

            async def dial(address: str, port: int, timeout_s: float) -> httpcore2.AsyncNetworkStream:
                if ":" in address:
                    raise httpcore2.ConnectError("no route")
                return await world.dial(address, port, timeout_s)

            fetcher = world.fetcher(dial=dial)
            assert await fetcher.fetch("http://example.com/") == b"pixels"
            await fetcher.aclose()

    run(work())


# What it must never reach


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::a00:1"],
        [PUBLIC, "10.0.0.1"],
    ],
    ids=str,
)
def test_a_name_with_a_private_address_is_refused_like_an_unknown_one(run: Run, addresses: list[str]) -> None:
    async def work() -> None:
        async with internet({"/": answer()}, {"inside.example": addresses}) as world:
            private = await refusal(world.fetcher(), "http://inside.example/")
            unknown = await refusal(world.fetcher(), "http://absent.example/")
            assert private.replace("inside", "absent") == unknown
            assert world.dialled == []

    run(work())


LOOPBACK = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://127.1/",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://127.0.0.1./",
    "http://127。0。0。1/",
    "http://0177.0.0.1/",
    "http://①②⑦.0.0.1/",
]


@pytest.mark.parametrize("url", LOOPBACK)
def test_loopback_is_refused_in_every_spelling_by_the_real_resolver(run: Run, url: str) -> None:
    async def work() -> None:
        async with internet({"/": answer(b"secret")}) as world:
            message = await refusal(Fetcher(UrlPolicy.parse("public"), LIMIT, 5, dial=world.dial), url)
            assert "can be reached from here" in message or "is not a URL" in message
            assert world.dialled == []

    run(work())


def test_the_address_that_was_checked_is_the_one_that_is_dialled(run: Run) -> None:
    """A name that rebinds, public for the check and private for the connection, gets no second chance."""
    rebinding = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])

    async def work() -> None:
        async with internet({"/": answer()}) as world:

            async def resolve(host: str, port: int) -> Sequence[str]:
                return next(rebinding)

            fetcher = world.fetcher(resolve=resolve)
            assert await fetcher.fetch("http://rebind.example/") == b"pixels"
            assert world.dialled == [(PUBLIC, 80)]
            await refusal(fetcher, "http://rebind.example/")  # a new connection is checked anew
            assert world.dialled == [(PUBLIC, 80)]

    run(work())


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/secret",
        "http://[::1]/secret",
        "http://inside.example/secret",
        "//inside.example/secret",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "http://example.com:22/",
        "http://user@example.com/",
        "http://exa\x7fmple.com/",
        "http://[",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
    ],
)
def test_each_redirect_is_checked_again(run: Run, location: str) -> None:
    names = {"example.com": [PUBLIC], "inside.example": ["10.0.0.1"], "127.0.0.1": ["127.0.0.1"], "::1": ["::1"]}

    async def work() -> None:
        async with internet({"/": redirect(location), "/secret": answer(b"secret")}, names) as world:
            await refusal(world.fetcher(), "http://example.com/")
            assert world.dialled == [(PUBLIC, 80)]

    run(work())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_three_redirects_are_followed(run: Run, status: int) -> None:
    steps: dict[str, Answer] = {
        "/": redirect("/a?b", status),
        "/a?b": redirect("http://other.example/c", status),
        "/c": redirect("//example.com/d", status),
        "/d": answer(b"found"),
    }

    async def work() -> None:
        async with internet(steps, {"example.com": [PUBLIC], "other.example": ["8.8.8.8"]}) as world:
            fetcher = world.fetcher()
            assert await fetcher.fetch("http://example.com/") == b"found"
            await fetcher.aclose()

    run(work())


def test_a_fourth_redirect_is_not_followed(run: Run) -> None:
    async def work() -> None:
        async with internet({"/": redirect("/")}) as world:
            assert "redirects more than 3 times" in await refusal(world.fetcher(), "http://example.com/")
            assert len(world.heads) == 4

    run(work())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://user:password@example.com/", "a user name or a password"),
        ("http://example.com@evil.example/", "a user name or a password"),
        ("http://a\\@example.com/", "a user name or a password"),
        ("http://example.com:22/", "port 22 is not taken"),
        ("http://example.com:0/", "port 0 is not taken"),
        ("https://example.com:99999/", "port 99999 is not taken"),
        ("http://example.com:abc/", "is not a URL"),
        ("http://", "no valid host"),
        ("http:///path", "no valid host"),
        ("http:example.com", "no valid host"),
        ("http://ex%61mple.com/", "no valid host"),
        ("http://exa mple.com/", "no valid host"),
        ("http://a..b/", "no valid host"),
        ("http://./", "no valid host"),
        ("http://" + "a" * 64 + ".com/", "no valid host"),
        ("http://[fe80::1%25eth0]/", "no valid host"),
        ("http://example.com\r\nX: y/", "is not a URL"),
        ("http://example.com/" + "a" * 9000, "is longer than 8192"),
        ("ftp://example.com/", "only http:// and https://"),
    ],
)
def test_odd_urls_are_refused_before_anything_is_asked(run: Run, url: str, reason: str) -> None:
    async def work() -> None:
        async with internet({"/": answer()}) as world:
            message = await refusal(world.fetcher(), url)
            assert reason in message
            assert "password@" not in message
            assert world.resolved == []

    run(work())


# Policies


def test_a_listed_domain_may_be_private_and_on_any_port(run: Run) -> None:
    async def work() -> None:
        async with internet({"/": answer(b"inside")}, {"images.internal": ["127.0.0.1"]}) as world:
            fetcher = world.fetcher("internal", dial=None)
            assert await fetcher.fetch(f"http://images.internal:{world.port}/") == b"inside"
            await fetcher.aclose()
            assert f"host: images.internal:{world.port}\r\n" in world.heads[0].lower()
            assert "none of the hosts" in await refusal(world.fetcher("internal"), "http://example.com/")

    run(work())


def test_a_listed_domain_can_not_lead_to_credentials_or_away(run: Run) -> None:
    names = {"images.internal": ["169.254.169.254"], "a.images.internal": ["127.0.0.1"], "db.internal": ["127.0.0.1"]}

    async def work() -> None:
        async with internet({"/": redirect("http://db.internal/")}, names) as world:
            assert "can be reached" in await refusal(world.fetcher("images.internal"), "http://images.internal/")
            assert world.dialled == []
            assert "none of the hosts" in await refusal(world.fetcher("images.internal"), "http://a.images.internal/")
            assert world.resolved == ["images.internal", "a.images.internal"]

    run(work())


def test_off_takes_no_url_at_all(run: Run) -> None:
    async def work() -> None:
        async with internet({}) as world:
            assert await refusal(world.fetcher("off"), "http://example.com/") == (
                "is a URL, and this server takes none (IEI_URL_INPUTS)"
            )
            assert world.resolved == []

    run(work())


def test_a_policy_that_is_none_stops_the_start() -> None:
    with pytest.raises(StartupError, match="IEI_URL_INPUTS"):
        UrlPolicy.parse("http://example.com")


def test_proxies_of_the_environment_are_ignored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def work() -> None:
        async with internet({"/": answer()}) as world:
            fetcher = world.fetcher()
            assert await fetcher.fetch("http://example.com/") == b"pixels"
            await fetcher.aclose()

    run(work())


# Limits and bad manners


def test_a_body_that_announces_too_much_is_refused_unread(run: Run) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(30)

    async def work() -> None:
        async with internet({"/": endless}) as world:
            started = time.monotonic()
            message = await refusal(world.fetcher(), "http://example.com/")
            assert "more than the limit of 100000 bytes (IEI_MAX_IMAGE_BYTES)" in message
            assert time.monotonic() - started < 2

    run(work())


def test_a_body_without_end_is_cut_off_at_the_limit(run: Run) -> None:
    sent = [0]

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent[0] < 1000 * LIMIT:
            writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
            await writer.drain()
            sent[0] += 0x1000

    async def work() -> None:
        async with internet({"/": endless}) as world:
            assert "IEI_MAX_IMAGE_BYTES" in await refusal(world.fetcher(), "http://example.com/")
            await asyncio.wait_for(world.closed.wait(), 5)

    run(work())
    assert sent[0] < 500 * LIMIT


def test_a_body_at_the_limit_is_taken(run: Run) -> None:
    async def work() -> None:
        async with internet(
            {"/": answer(bytes(LIMIT)), "/more": answer(bytes(LIMIT + 1), content_length=None)}
        ) as world:
            fetcher = world.fetcher()
            assert len(await fetcher.fetch("http://example.com/")) == LIMIT
            assert "IEI_MAX_IMAGE_BYTES" in await refusal(fetcher, "http://example.com/more")

    run(work())


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def endless_informational(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("behaviour", [trickle, silence, endless_informational])
def test_a_slow_server_is_left_after_the_total_time(run: Run, behaviour: Answer) -> None:
    async def work() -> None:
        async with internet({"/": behaviour}) as world:
            started = time.monotonic()
            message = await refusal(world.fetcher(timeout_s=0.3), "http://example.com/")
            assert message.endswith("took longer than 0.3 s to download (IEI_URL_TIMEOUT_S)") or "in time" in message
            assert time.monotonic() - started < 2

    run(work())


def test_a_resolver_that_hangs_is_left_too(run: Run) -> None:
    async def hang(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(30)
        return []

    async def work() -> None:
        assert "took longer" in await refusal(
            Fetcher(UrlPolicy.parse("public"), LIMIT, 0.2, resolve=hang), "http://example.com/"
        )

    run(work())


def test_a_compressed_answer_is_not_unpacked(run: Run) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < LIMIT

    async def work() -> None:
        async with internet({"/": answer(bomb, content_encoding="gzip")}) as world:
            assert "compressed" in await refusal(world.fetcher(), "http://example.com/")

    run(work())


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(b"no such cat", "404 Not Found"), "answered 404, not 200"),
        (answer(b"internal secret", "500 Oops"), "answered 500, not 200"),
        (answer(b"", "304 Not Modified"), "answered 304, not 200"),
        (answer(b"", "302 Found"), "answered 302, not 200"),
        (b"220 smtp.example.com ESMTP secret\r\n", "does not speak HTTP properly"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsecret", "does not speak HTTP properly"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: secret\r\n" * 100_000, "does not speak HTTP properly"),
        (b"", "does not speak HTTP properly"),
    ],
    ids=["404", "500", "304", "302 to nowhere", "smtp", "cut short", "endless header", "nothing"],
)
def test_other_answers_are_refused_without_repeating_them(run: Run, reply: bytes, reason: str) -> None:
    async def work() -> None:
        async with internet({"/": reply}) as world:
            message = await refusal(world.fetcher(), "http://example.com/")
            assert reason in message
            assert "secret" not in message

    run(work())


def test_nobody_listening_is_an_input_error(run: Run) -> None:
    async def work() -> None:
        async with internet({}) as world:
            port = world.port
        fetcher = Fetcher(UrlPolicy.parse("127.0.0.1"), LIMIT, 5)
        assert "could not be connected to" in await refusal(fetcher, f"http://127.0.0.1:{port}/")

    run(work())


async def slow(writer: asyncio.StreamWriter) -> None:
    """Answers after a while."""
    await asyncio.sleep(0.2)
    writer.write(answer())
    await writer.drain()


def test_a_url_is_not_to_blame_for_those_ahead_of_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.inputs.fetch.MAX_DOWNLOADS", 1)

    async def work() -> None:
        async with internet({"/": slow}) as world:
            fetcher = world.fetcher(timeout_s=0.9)  # less than five take one after the other

            async def fetched() -> bytes:
                async with fetcher.fetched("http://example.com/") as body:
                    return body

            assert await asyncio.gather(*(fetched() for _ in range(5))) == [b"pixels"] * 5
            await fetcher.aclose()

    run(work())


def test_bulk_leaves_downloads_to_what_is_urgent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.inputs.fetch.MAX_DOWNLOADS", 4)

    async def work() -> None:
        async with internet({"/": answer()}) as world:
            fetcher = world.fetcher()
            done = asyncio.Event()

            async def keep() -> None:
                async with fetcher.fetched("http://example.com/"):
                    await done.wait()

            PRIORITY.set(Priority.BULK)
            bulk = [asyncio.create_task(keep()) for _ in range(5)]
            PRIORITY.set(Priority.INTERACTIVE)
            await asyncio.sleep(0)  # they have taken what they may have
            async with asyncio.timeout(20), fetcher.fetched("http://example.com/") as body:
                assert body == b"pixels"
            assert not any(task.done() for task in bulk)
            done.set()
            await asyncio.gather(*bulk)
            await fetcher.aclose()

    run(work())


def test_names_that_nobody_knows_hold_up_no_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    known = threading.Event()

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        assert host == "good.example" or known.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    async def work() -> None:
        async with internet({"/": answer()}) as world:
            monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
            fetcher = world.fetcher(resolve=None)
            silent = [asyncio.create_task(fetcher.fetch(f"http://silent-{number}.example/")) for number in range(8)]
            assert await fetcher.fetch("http://good.example/") == b"pixels"
            known.set()
            assert await asyncio.gather(*silent) == [b"pixels"] * 8
            await fetcher.aclose()

    run(work())


def test_many_downloads_run_side_by_side(run: Run) -> None:
    async def work() -> None:
        all_are_there = asyncio.Barrier(20)

        async def answer_all(writer: asyncio.StreamWriter) -> None:
            await asyncio.wait_for(all_are_there.wait(), 20)
            writer.write(answer())
            await writer.drain()

        async with internet({"/": answer_all}) as world:
            fetcher = world.fetcher()
            bodies = await asyncio.gather(*(fetcher.fetch("http://example.com/") for _ in range(20)))
            assert bodies == [b"pixels"] * 20
            await fetcher.aclose()

    run(work())


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for example.com that signs itself."""
    path = tmp_path_factory.mktemp("tls") / "example.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=example.com", "-addext", "subjectAltName=DNS:example.com"]
    key = path.with_suffix(".key")
    try:
        subprocess.run([*command, *names, "-keyout", key, "-out", path], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the openssl command makes the test's certificate, and it is not installed")
    path.write_text(key.read_text() + path.read_text())
    return path


@pytest.mark.parametrize(
    ("url", "trusted", "expected"),
    [
        ("https://example.com/", True, b"pixels"),
        ("https://example.com./", True, b"pixels"),
        ("https://example.com/", False, None),
        ("https://other.example/", True, None),
    ],
    ids=["right name", "trailing dot", "unknown issuer", "wrong name"],
)
def test_certificates_are_checked_against_the_name(
    run: Run, certificate: Path, url: str, trusted: bool, expected: bytes | None
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    asked: list[str | None] = []
    server.sni_callback = lambda connection, name, context: asked.append(name)
    client = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    names = {"example.com": [PUBLIC], "other.example": [PUBLIC]}

    async def work() -> None:
        async with internet({"/": answer()}, names, tls=server) as world:
            fetcher = world.fetcher(ssl_context=client)
            if expected is None:
                assert "no valid certificate" in await refusal(fetcher, url)
                assert world.heads == []
            else:
                assert await fetcher.fetch(url) == expected
                await fetcher.aclose()
                assert asked == ["example.com"]
            assert world.dialled == [(PUBLIC, 443)]

    run(work())
