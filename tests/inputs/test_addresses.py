from __future__ import annotations

from ipaddress import ip_address

import pytest

from iei.errors import StartupError
from iei.inputs.addresses import UrlPolicy, is_listed_reachable, is_public

PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::6810:84e5", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.0.1",
    "192.88.99.1",
    "198.18.0.1",
    "::1",
    "::",
    "fc00::1",
    "3fff::1",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:7f00:1::",
    "240.0.0.1",
    "255.255.255.255",
]
NEVER = ["169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1", "::ffff:169.254.169.254"]
CLOUDS = ["168.63.129.16", "192.0.0.192", "100.100.100.200", "fd00:ec2::254", "::ffff:168.63.129.16"]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_open_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert is_listed_reachable(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE + NEVER + CLOUDS)
def test_everything_else_is_not_in_whatever_form_it_comes(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd12::1", "::ffff:10.0.0.1"])
def test_a_listed_domain_may_be_private(address: str) -> None:
    assert is_listed_reachable(ip_address(address))


@pytest.mark.parametrize("address", [*NEVER, *CLOUDS, "0.0.0.0", "::", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"])
def test_no_domain_may_be_where_clouds_keep_their_credentials(address: str) -> None:
    assert not is_listed_reachable(ip_address(address))


def test_a_domain_covers_its_subdomains_and_nothing_that_only_ends_alike() -> None:
    policy = UrlPolicy.parse("Images.Internal., 10.0.0.5")
    for host in ("images.internal", "a.images.internal", "a.b.images.internal", "10.0.0.5"):
        assert policy.rule_for(host) is not None, host
    for host in ("evilimages.internal", "internal", "images.internal.evil.com", "10.0.0.50", "example.com"):
        assert policy.rule_for(host) is None, host


def test_public_and_domains_go_together() -> None:
    policy = UrlPolicy.parse("public,cdn.internal")
    inside, outside = policy.rule_for("cdn.internal"), policy.rule_for("example.com")
    assert inside is not None
    assert inside.ports is None
    assert outside is not None
    assert outside.ports == frozenset({80, 443})


def test_off_is_off() -> None:
    assert UrlPolicy.parse("off").off
    assert not UrlPolicy.parse("public").off


@pytest.mark.parametrize(
    "text", ["", "off,public", "https://example.com", "example.com/path", "a..b", "public,", "*.a.com"]
)
def test_a_policy_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(StartupError, match="IEI_URL_INPUTS"):
        UrlPolicy.parse(text)
