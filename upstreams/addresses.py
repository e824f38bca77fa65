"""Which addresses nothing is connected to, however they are written: an IPv4 address can stand in an IPv6 one."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LOW_32: Final = 0xFFFF_FFFF
#: Prefixes whose last 32 bits are the IPv4 address that a translator connects to (RFC 6052 section 2.1, RFC 2765).
_TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0:0/96"))
#: A prefix for translators' own prefixes (RFC 8215): where the IPv4 address stands depends on how long those are.
_LOCAL_USE: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
#: IPv4-compatible addresses (RFC 4291 section 2.5.5.1), less the few at their beginning, of which `::1` is one.
_COMPATIBLE: Final = range(1 << 24, 1 << 32)


class ProhibitedAddress(OSError):
    """An address that is in a forbidden network."""

    def __init__(self) -> None:
        super().__init__("the address is in a forbidden network")


class ForbiddenNetworks:
    """Networks, given as texts like `169.254.0.0/16`; an address is `in` them in whatever form it comes."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def __repr__(self) -> str:
        """Show the networks."""
        return f"<ForbiddenNetworks {' '.join(map(str, self._networks))}>"

    def __contains__(self, address: str) -> bool:
        """Tell whether an address is forbidden. What is no address is: connecting would resolve it, unseen."""
        try:
            meant = ipaddress.ip_address(address)
        except ValueError:
            return True
        return any(form in network for form in _forms(meant) for network in self._networks)


def _forms(address: Address) -> Iterator[Address]:
    """Yield an address, and every IPv4 address that connecting to it may lead to."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            yield address.ipv4_mapped
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo
        if int(address) in _COMPATIBLE or any(address in network for network in _TRANSLATED):
            yield ipaddress.IPv4Address(int(address) & _LOW_32)
        if address in _LOCAL_USE:
            yield from _translated(int(address))


def _translated(address: int) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 address for prefixes of 48, 56, 64 and 96 bits; bits 64 to 71 are no part of it (RFC 6052 2.2)."""
    yield ipaddress.IPv4Address((address >> 64 & 0xFFFF) << 16 | address >> 40 & 0xFFFF)
    yield ipaddress.IPv4Address((address >> 64 & 0xFF) << 24 | address >> 32 & 0xFFFFFF)
    yield ipaddress.IPv4Address(address >> 24 & _LOW_32)
    yield ipaddress.IPv4Address(address & _LOW_32)
