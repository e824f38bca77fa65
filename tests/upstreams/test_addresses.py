"""A forbidden address is forbidden in every form it can be written in, and nothing else is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstreams.addresses import ForbiddenNetworks
from upstreams.upstream import LINK_LOCAL

DEFAULT = ForbiddenNetworks(LINK_LOCAL)
METADATA = int(ipaddress.IPv4Address("169.254.169.254"))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fe80::1",
        "fe80::1%eth0", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.255.255.250", "255.255.255.255", "ff02::1",
    ],
)  # fmt: skip
def test_metadata_link_local_multicast_and_unspecified_addresses_are_forbidden_by_default(address: str) -> None:
    assert address in DEFAULT


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.201", "93.184.215.14",
        "fd00::1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:127.0.0.1", "64:ff9b::8.8.8.8", "2002:808:808::1",
    ],
)  # fmt: skip
def test_other_addresses_are_not(address: str) -> None:
    assert address not in DEFAULT


@pytest.mark.parametrize(
    "address",
    [
        f"::ffff:{METADATA >> 16:x}:{METADATA & 0xFFFF:x}", "::ffff:169.254.169.254", "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b:1:0:a9:fea9:fe00:0", "64:ff9b:1:a9:fe:a9fe:0:0", "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b::169.254.169.254", "64:ff9b:1::169.254.169.254", "64:ff9b:1:2:3:4:a9fe:a9fe",
        "2002:a9fe:a9fe::1", "2001:0:808:808:0:fbff:5601:5601", "2001:0:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_an_ipv4_address_inside_an_ipv6_one_is_seen(address: str) -> None:
    assert address in DEFAULT


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", " ::1"])
def test_what_is_no_address_is_forbidden(text: str) -> None:
    assert text in ForbiddenNetworks(())


def test_the_networks_are_the_upstream_s_own() -> None:
    forbidden = ForbiddenNetworks(("10.0.0.0/8", "2001:db8::/32"))

    assert [address in forbidden for address in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "169.254.169.254")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert repr(forbidden) == "<ForbiddenNetworks 10.0.0.0/8 2001:db8::/32>"


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_network_forbids_its_own_addresses_plain_and_mapped_and_no_others(
    address: ipaddress.IPv4Address, bits: int
) -> None:
    network = ipaddress.ip_network((int(address) >> (32 - bits) << (32 - bits), bits))
    forbidden = ForbiddenNetworks((str(network),))

    for form in (str(address), f"::ffff:{address}", f"64:ff9b::{address}"):
        assert form in forbidden
    if bits:
        beyond = ipaddress.IPv4Address(int(address) ^ (1 << (32 - bits)))
        assert str(beyond) not in forbidden
        assert f"::ffff:{beyond}" not in forbidden
