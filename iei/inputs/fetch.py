"""Downloads images from untrusted URLs, without access to the operator's network (SSRF protection).

A URL is parsed once, and that parse alone is used. Its host is resolved once, in the one place that opens sockets,
where every address found must be allowed; the connection goes to exactly such an address, while Host and TLS keep the
name. Redirects, DNS rebinding and unusual spellings of 127.0.0.1 all pass the same check. Proxies of the environment
are ignored.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from ipaddress import ip_address
from typing import Any

import httpcore2
import httpx2

from iei.errors import InvalidInput
from iei.inputs.addresses import Address, UrlPolicy
from iei.inputs.sources import excerpt
from iei.priority import BULK_SHARE, PRIORITY, Priority

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → IP addresses, as text."""
Dial = Callable[[str, int, float], Awaitable[httpcore2.AsyncNetworkStream]]
"""IP address, port and seconds → an open connection."""

MAX_REDIRECTS = 3
MAX_URL_LENGTH = 8192
MAX_DOWNLOADS = 32
"""Most downloads at a time in one process, including those still to be decoded: bounds connections and memory."""
_KEEPALIVE_S = 10.0
_DIAL_S = 3.0
"""Timeout for one address, so that a host with an unreachable IPv6 address has time for its IPv4 one."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_HEADERS = [
    (b"User-Agent", b"image-embedding-inference"),
    (b"Accept", b"image/*, */*;q=0.1"),
    (b"Accept-Encoding", b"identity"),
]

_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (httpcore2.TimeoutException, "did not answer in time"),
    (httpcore2.ConnectError, "could not be connected to, or has no valid certificate"),
    (httpcore2.NetworkError, "broke off the connection"),
    (httpcore2.ProtocolError, "does not speak HTTP properly"),
)


class Fetcher:
    """Downloads images on one event loop, and keeps connections open for reuse.

    Args:
        policy: the allowed hosts.
        max_bytes: largest download.
        timeout_s: limit on one download in seconds, redirects included.
        resolve: replaces DNS, in tests.
        dial: replaces TCP, in tests.
        ssl_context: replaces the default one, in tests.
    """

    def __init__(
        self,
        policy: UrlPolicy,
        max_bytes: int,
        timeout_s: float,
        *,
        resolve: Resolve | None = None,
        dial: Dial | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(MAX_DOWNLOADS)
        self._bulks = asyncio.Semaphore(int(BULK_SHARE * MAX_DOWNLOADS))
        # The event loop's default executor is small: a name server that does not respond would block other look-ups.
        self._resolvers = ThreadPoolExecutor(MAX_DOWNLOADS, thread_name_prefix="resolver")
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context or httpcore2.default_ssl_context(),  # the pool would make one per connection
            max_connections=MAX_DOWNLOADS,
            max_keepalive_connections=MAX_DOWNLOADS,
            keepalive_expiry=_KEEPALIVE_S,
            network_backend=_GuardedBackend(
                self._policy, resolve or partial(_getaddrinfo, self._resolvers), dial or _connect
            ),
        )

    @asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[bytes]:
        """Like `fetch`, but limited to `MAX_DOWNLOADS`, and bulk to its share of them.

        It counts until the block ends, so decode the result inside.

        Raises:
            InvalidInput: as `fetch` does.
        """
        share = self._bulks if PRIORITY.get() is Priority.BULK else nullcontext()
        async with share, self._free:  # before the timeout starts, so that queueing does not count
            yield await self.fetch(url)

    async def fetch(self, url: str) -> bytes:
        """The body of a response with status 200. Content-Type is ignored: decoding shows whether it is an image.

        Raises:
            InvalidInput: the URL is not allowed, or the download failed for any reason.
        """
        if self._policy.off:
            raise InvalidInput("is a URL, and this server takes none (IEI_URL_INPUTS)")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except TimeoutError as error:
            raise InvalidInput(
                f"{excerpt(url)} took longer than {self._timeout_s:g} s to download (IEI_URL_TIMEOUT_S)"
            ) from error

    async def aclose(self) -> None:
        """Closes the connections. Does not wait for name look-ups."""
        await self._pool.aclose()
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, url: str) -> bytes:
        target = self._checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(target)
            if isinstance(answer, bytes):
                return answer
            target = self._checked(answer)
        raise InvalidInput(f"{excerpt(url)} redirects more than {MAX_REDIRECTS} times")

    def _checked(self, url: str) -> httpx2.URL:
        """Parses `url`, drops a trailing dot of its host, and checks it against the policy."""
        if len(url) > MAX_URL_LENGTH:
            raise InvalidInput(f"{excerpt(url)} is longer than {MAX_URL_LENGTH} characters")
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise InvalidInput(f"{excerpt(url)} is not a URL: {str(error)[:100]}") from error
        host = parsed.raw_host.decode("ascii").lower().rstrip(".")
        if parsed.scheme not in _PORTS:
            raise InvalidInput(f"{excerpt(url)}: only http:// and https:// URLs are taken")
        if parsed.userinfo:
            raise InvalidInput(f"{excerpt(parsed.host)}: a URL with a user name or a password is not taken")
        if not (_HOST.fullmatch(host) or _is_ip(host)) or len(host) > 253:
            raise InvalidInput(f"{excerpt(url)} is not a URL: it has no valid host")
        rule = self._policy.rule_for(host)
        if rule is None:
            raise InvalidInput(f"{excerpt(host)} is none of the hosts that URLs may name here (IEI_URL_INPUTS)")
        port = _PORTS[parsed.scheme] if parsed.port is None else parsed.port
        if not 0 < port < 65536 or (rule.ports and port not in rule.ports):
            raise InvalidInput(f"{excerpt(host)}: port {port} is not taken, only 80 and 443 are")
        return parsed.copy_with(host=host)

    async def _get(self, url: httpx2.URL) -> bytes | str:
        """One request: the body (bytes), or the URL that it redirects to (str)."""
        try:
            async with self._pool.stream(
                "GET",
                httpcore2.URL(
                    scheme=url.raw_scheme,
                    host=url.raw_host,
                    port=url.port or _PORTS[url.scheme],
                    target=url.raw_path,
                ),
                headers=[(b"Host", url.netloc), *_HEADERS],
                extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)},
            ) as response:
                headers = {name.lower(): value for name, value in response.headers}
                if response.status in _REDIRECTS and b"location" in headers:
                    return _joined(url, headers[b"location"])
                if response.status != 200:
                    raise InvalidInput(f"{excerpt(url.host)} answered {response.status}, not 200")
                if headers.get(b"content-encoding", b"identity").lower() != b"identity":
                    # Decompression would need a second limit, and images are compressed already.
                    raise InvalidInput(f"{excerpt(url.host)} sent a compressed answer, though it was asked not to")
                return await self._body(url, response, headers)
        except tuple(kind for kind, _ in _FAILURES) as error:
            reason = next(reason for kind, reason in _FAILURES if isinstance(error, kind))
            raise InvalidInput(f"{excerpt(url.host)} {reason}") from error

    async def _body(self, url: httpx2.URL, response: httpcore2.Response, headers: dict[bytes, bytes]) -> bytes:
        length = headers.get(b"content-length", b"")
        body = bytearray()
        if not (length.isdigit() and int(length) > self._max_bytes):
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > self._max_bytes:
                    break
            else:
                return bytes(body)
        raise InvalidInput(
            f"{excerpt(url.host)} sent more than the limit of {self._max_bytes} bytes (IEI_MAX_IMAGE_BYTES)"
        )


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens the pool's sockets: resolves a host, checks every address, and connects to a checked address."""

    def __init__(self, policy: UrlPolicy, resolve: Resolve, dial: Dial) -> None:
        self._policy = policy
        self._resolve = resolve
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's interface)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception = httpcore2.ConnectError("no address")
        for address in await self._addresses(host, port):
            try:
                return await self._dial(str(address), port, _DIAL_S if timeout is None else min(_DIAL_S, timeout))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """The checked addresses of a host.

        Unknown names and forbidden addresses get the same message, so that it does not reveal internal names.
        """
        refused = InvalidInput(f"{excerpt(host)} is not a host that can be reached from here (IEI_URL_INPUTS)")
        rule = self._policy.rule_for(host)
        try:
            addresses = [ip_address(found) for found in await self._resolve(host, port)]
        except (OSError, UnicodeError, ValueError) as error:
            raise refused from error
        if rule is None or not addresses or not all(rule.admits(address) for address in addresses):
            raise refused
        return addresses


def _joined(url: httpx2.URL, location: bytes) -> str:
    try:
        return str(url.join(location.decode("ascii")))
    except (httpx2.InvalidURL, UnicodeDecodeError) as error:
        raise InvalidInput(f"{excerpt(url.host)} redirects to an invalid URL") from error


def _is_ip(host: str) -> bool:
    try:
        return "%" not in host and bool(ip_address(host))
    except ValueError:
        return False


async def _getaddrinfo(threads: Executor, host: str, port: int) -> Sequence[str]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(threads, ask)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connect(address: str, port: int, timeout_s: float) -> httpcore2.AsyncNetworkStream:
    return await httpcore2.AnyIOBackend().connect_tcp(address, port, timeout=timeout_s)
