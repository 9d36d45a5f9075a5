"""URLs from strangers: whatever they say, and whatever is answered, no connection goes to an address inside."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote

import httpcore2
from hypothesis import given
from hypothesis import strategies as st

from iei.errors import InvalidInput, StartupError
from iei.inputs.addresses import Address, UrlPolicy, is_listed_reachable, is_public
from iei.inputs.fetch import Fetcher
from tests.fuzz.damage import damaged
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused

AUTHORITIES = httpcore2.default_ssl_context()
SECRETS = ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
INSIDE = ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "0.0.0.0", "::1", "::", "fe80::1", "fc00::1", *SECRETS)
OUTSIDE = ("8.8.8.8", "93.184.215.14", "2606:4700::6810:84e5")

ADDRESSES: st.SearchStrategy[Address] = st.one_of(
    st.sampled_from((*INSIDE, *OUTSIDE)).map(ip_address),
    st.ip_addresses(),
    # IPv4 inside IPv6: compatible, mapped, translated (NAT64), 6to4, Teredo.
    st.builds(
        lambda form, inner: IPv6Address(form(int(ip_address(inner)))),
        st.sampled_from(
            (
                lambda inner: inner,
                lambda inner: 0xFFFF << 32 | inner,
                lambda inner: 0x64FF9B << 96 | inner,
                lambda inner: 0x2002 << 112 | inner << 80,
                lambda inner: 0x2001 << 112 | inner << 64 | 0xF7F7F7F7,
                lambda inner: 0x2001 << 112 | 0x08080808 << 64 | inner ^ 0xFFFFFFFF,
            )
        ),
        st.sampled_from([address for address in (*INSIDE, *OUTSIDE) if ":" not in address])
        | st.ip_addresses(v=4).map(str),
    ),
)


def is_outside(address: Address) -> bool:
    """The rule as somebody else would write it: global by Python's registry, and so is any IPv4 address in its bits."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and str(address) not in SECRETS
    bits = int(address)
    inner = {
        bits >> 32 in (0, 0xFFFF): bits,
        bits >> 32 == 0x64FF9B << 64: bits,
        bits >> 112 == 0x2002: bits >> 80,
        bits >> 96 == 0x20010000: ~bits,
    }.get(True)
    if inner is not None:
        return is_outside(IPv4Address(inner & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast


@examples(500)
@given(ADDRESSES)
def test_no_address_is_public_that_is_not_global(address: Address) -> None:
    if is_public(address):
        assert is_outside(address)
        assert is_listed_reachable(address)
    if address.is_link_local or str(address) in SECRETS:
        assert not is_listed_reachable(address)


def spelled(address: IPv4Address) -> st.SearchStrategy[str]:
    """Ways to write an IPv4 address that some parser or resolver understands."""
    number, parts = int(address), str(address).split(".")
    return st.sampled_from(
        (
            str(address),
            str(number),
            hex(number),
            f"0{number:o}",
            ".".join(hex(int(part)) for part in parts),
            ".".join(f"0{int(part):o}" for part in parts),
            f"{parts[0]}.{number & 0xFFFFFF}",
            f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
            f"{address}.",
            f"{address}..",
            f"[::ffff:{address}]",
            f"[64:ff9b::{address}]",
            f"[::{address}]",
            str(address).translate(str.maketrans("0123456789", "０１２３４５６７８９")),
            str(address).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")),
            str(address).replace(".", "。"),
            quote(str(address).replace(".", "%2e"), safe="%"),
            "".join(f"%{ord(character):02x}" for character in str(address)),
        )
    )


HOSTS = st.one_of(
    st.sampled_from([IPv4Address(each) for each in (*INSIDE, *OUTSIDE) if ":" not in each]).flatmap(spelled),
    ADDRESSES.map(lambda address: f"[{address}]" if address.version == 6 else str(address)),
    st.sampled_from(
        ("example.com", "EXAMPLE.com.", "bücher.de", "xn--bcher-kva.de", "localhost", "ⓛocalhost", "a_b.c")
    ),
    st.sampled_from(
        ("[fe80::1%eth0]", "[::1%25lo]", "[v1.a]", "[::1", "::1", "", ".", "a" * 64, "-", "%00", "a b", "ß")
    ),
    st.text(max_size=12),
)
URLS = st.one_of(
    st.builds(
        "{}{}{}{}{}{}".format,
        st.sampled_from(
            ("http://", "https://", "HTTP://", "http:///", "http:", "https:/\\", " http://", "ftp://", "//", "")
        ),
        st.sampled_from(("", "", "", "user@", "user:pw@", "@", "example.com@", "8.8.8.8#@", "8.8.8.8\\@", "\t", "\n")),
        HOSTS,
        st.sampled_from(
            ("", "", "", ":80", ":443", ":8080", ":0", ":", ":-1", ":99999", ":８0", ":80@127.0.0.1", ":1e2")
        ),
        st.sampled_from(
            ("", "/", "/a.png", "?a", "#b", "\\@127.0.0.1/", "/\r\nHost: a", "/%0d%0a", "/é", "/ a", "//127.0.0.1")
        ),
        st.sampled_from(("", "\t", "\n", " ", "\0", "\u2028")),
    ),
    st.text(max_size=40).map("http://".__add__),
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\nContent-Encoding: gzip\r\n\r\n",
)


def redirect(url: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + url.encode("utf-8", "replace") + b"\r\n\r\n"


class World:
    """A resolver that reads addresses as the system's does, names with addresses of our choice, and their servers."""

    def __init__(self, names: Sequence[Address], answers: Sequence[bytes]) -> None:
        self.dialled: list[tuple[Address, int]] = []
        self._names = [str(address) for address in names]
        self._answers = list(answers)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        with contextlib.suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            return [str(address[0]) for *_, address in found]
        return self._names

    async def dial(self, address: str, port: int, timeout_s: float) -> httpcore2.AsyncNetworkStream:
        self.dialled.append((ip_address(address), port))
        if not self._answers:
            raise httpcore2.ConnectError("nobody there")
        return httpcore2.AsyncMockStream([self._answers.pop(0), b""])

    def fetch(self, url: str, policy: UrlPolicy) -> bytes | None:
        """None: refused."""

        async def fetched() -> bytes:
            fetcher = Fetcher(policy, 1000, 10, resolve=self.resolve, dial=self.dial, ssl_context=AUTHORITIES)
            try:
                return await fetcher.fetch(url)
            finally:
                await fetcher.aclose()

        with or_refused(InvalidInput):
            return asyncio.run(fetched())
        return None


@examples(200)
@given(
    url=URLS,
    names=st.lists(ADDRESSES, max_size=3),
    answers=st.lists(URLS.map(redirect) | st.sampled_from(ANSWERS).flatmap(damaged), max_size=4),
    policy=st.sampled_from(("public", "public,cdn.example.com")).map(UrlPolicy.parse),
)
def test_no_url_reaches_inside(url: str, names: list[Address], answers: list[bytes], policy: UrlPolicy) -> None:
    world = World(names, answers)
    body = world.fetch(url, policy)
    assert body is None or len(body) <= 1000
    for address, port in world.dialled:
        assert is_outside(address)
        assert port in (80, 443)
    assert len(world.dialled) <= 3 * 4  # every address of the first URL and of three redirects


@examples(100)
@given(url=URLS, names=st.lists(ADDRESSES, max_size=2), answers=st.lists(URLS.map(redirect), max_size=3))
def test_with_listed_domains_no_url_reaches_another_host(url: str, names: list[Address], answers: list[bytes]) -> None:
    world = World(names, answers)
    world.fetch(url, UrlPolicy.parse("example.com"))
    assert all(is_listed_reachable(address) and address in names for address, _ in world.dialled)
    assert not World(names, answers).fetch(url, UrlPolicy.parse("off"))


@examples(500)
@given(st.lists(HOSTS | st.sampled_from(("public", "off", "*", "*.a.com")), max_size=3).map(",".join))
def test_any_policy_is_one_or_refused(text: str) -> None:
    with or_refused(StartupError):
        policy = UrlPolicy.parse(text)
        assert policy.off == (text.strip().lower().rstrip(".") == "off")
        assert policy.public == any(word.strip().lower().rstrip(".") == "public" for word in text.split(","))
