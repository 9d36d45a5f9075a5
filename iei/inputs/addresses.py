"""Which hosts, ports and IP addresses image URLs may use, as `IEI_URL_INPUTS` defines them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from iei.errors import StartupError

Address = IPv4Address | IPv6Address

_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|[0-9a-f:]*:[0-9a-f:.]*")
_NAT64 = IPv6Network("64:ff9b::/96")
_CLOUD_SECRETS = frozenset(
    map(
        ip_address,
        (
            "168.63.129.16",  # Azure (a public address)
            "192.0.0.192",  # Oracle
            "100.100.100.200",  # Alibaba
            "fd00:ec2::254",  # AWS
        ),
    )
)
"""Metadata services of cloud providers, apart from the link-local 169.254.169.254."""
_SPECIAL = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",
            "192.88.99.0/24",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "3fff::/20",
            "5f00::/16",
            "fec0::/10",
        ),
    )
)
"""Special-purpose networks (IANA's registries) that `is_global` accepts in some supported version of Python."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Addresses and ports at which a host may be reached."""

    admits: Callable[[Address], bool]
    ports: frozenset[int] | None
    """None: any."""


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """Parsed `IEI_URL_INPUTS`: `off`, `public`, domains (`images.example.com,cdn.internal`), or `public` and domains.

    A listed domain covers its subdomains. It may resolve to private addresses and use any port, because internal
    hosts are a reason to list a domain. Link-local addresses, which serve cloud credentials, are always refused.
    """

    public: bool
    domains: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> UrlPolicy:
        """Parses the value of `IEI_URL_INPUTS`.

        Raises:
            StartupError: a part is neither a keyword nor a domain.
        """
        words = [word.strip().lower().rstrip(".") for word in text.split(",")]
        if words == ["off"]:
            return UrlPolicy(public=False, domains=())
        domains = tuple(word for word in words if word != "public")
        for domain in domains:
            if domain == "off" or not _DOMAIN.fullmatch(domain):
                raise StartupError(
                    f"IEI_URL_INPUTS: {domain!r} is not a domain; give `public`, `off`, or domains with commas between."
                )
        return UrlPolicy(public="public" in words, domains=domains)

    @property
    def off(self) -> bool:
        """Whether no URL is accepted."""
        return not self.public and not self.domains

    def rule_for(self, host: str) -> Rule | None:
        """The rule for a host, or None if URLs must not name it.

        Args:
            host: lower case, without a trailing dot.
        """
        if any(host == domain or host.endswith("." + domain) for domain in self.domains):
            return _LISTED
        return _PUBLIC if self.public else None


def is_public(address: Address) -> bool:
    """Whether `address`, or the IPv4 address that it embeds, is on the public internet."""
    return all(
        inner.is_global
        and not (inner.is_multicast or inner.is_reserved or inner in _CLOUD_SECRETS)
        and not any(inner in network for network in _SPECIAL)
        for inner in _unwrapped(address)
    )


def is_listed_reachable(address: Address) -> bool:
    """Whether a domain that the operator has listed may resolve to `address`."""
    return not any(
        inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in _CLOUD_SECRETS
        for inner in _unwrapped(address)
    )


def _unwrapped(address: Address) -> tuple[Address, ...]:
    """The addresses to check: the embedded IPv4 ones of an IPv6 address that has any, or else `address`."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.teredo:
        return address.teredo
    carried = address.ipv4_mapped or address.sixtofour
    return (carried or address,)


_PUBLIC = Rule(admits=is_public, ports=frozenset({80, 443}))
_LISTED = Rule(admits=is_listed_reachable, ports=None)
