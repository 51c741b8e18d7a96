"""Which addresses a URL of a tenant may lead to: none of this box, of a private network or of the fleet's own.

A name is resolved once, every address that it has is judged, and the connection goes to one of those addresses
(`pinned.py`): a name that answers otherwise the next time gains nothing. Decimal, octal and hexadecimal forms
of an address are read by the same resolver that would connect, so they are judged by what they mean.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from modelrepo.errors import InvalidInput, Unreachable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Iterable[str]]

LONGEST_URL = 2048
SHARED = ipaddress.ip_network("100.64.0.0/10")
"""RFC 6598; also the private network that joins a fleet's boxes."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
REFUSED_IPV6 = {
    "an IPv4 address in IPv6 clothes": ipaddress.ip_network("::/96"),
    "a 6to4 address": ipaddress.ip_network("2002::/16"),
    "a Teredo address": ipaddress.ip_network("2001::/32"),
    "a local-use NAT64 address": ipaddress.ip_network("64:ff9b:1::/48"),
    "a site-local address": ipaddress.ip_network("fec0::/10"),
}


class AddressRefused(InvalidInput):
    """A URL leads, or could lead, where no tenant's URL may."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: the addresses were judged, and only they may be connected to."""

    url: str
    scheme: str
    host: str
    port: int
    path: str
    """With its query; what a request line carries."""
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class AddressRules:
    """What URLs of tenants are held to. Hosts in `allowed` are the operator's own word: any address, http as well."""

    allowed: frozenset[str] = frozenset()
    resolve: Resolve = field(default_factory=lambda: resolve)

    @cached_property
    def _allowed(self) -> frozenset[str]:
        return frozenset(host.lower().strip("[]") for host in self.allowed)

    def allows(self, host: str) -> bool:
        """Say whether an operator has named this host."""
        return host.lower() in self._allowed

    def target(self, url: str) -> Target:
        """Resolve a URL's host, once, and judge every address that it has. May wait for a name server.

        Raises: AddressRefused; Unreachable where the name is not known.
        """
        parts, host, port = self._read(url)
        try:
            found = tuple(dict.fromkeys(self.resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise Unreachable(
                f"cannot reach {shown(url)}: host {host!r} is not known ({error}); check its name"
            ) from error
        if not found:
            raise Unreachable(f"cannot reach {shown(url)}: host {host!r} has no address; check its name")
        if not self.allows(host):
            for text in found:
                if reason := refusal(ipaddress.ip_address(text)):
                    raise AddressRefused(
                        f"cannot use {shown(url)}: {host} is {text}, {reason}; use a public address,"
                        f" or have the gateway's operator start it with --allow-url-host {host}"
                    )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(url, parts.scheme, host, port, path, found)

    def _read(self, url: str) -> tuple[SplitResult, str, int]:
        if len(url) > LONGEST_URL or not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
            raise AddressRefused(
                f"cannot use {shown(url)}: a URL has at most {LONGEST_URL} printable ASCII letters; encode the others"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise AddressRefused(f"cannot use {shown(url)}: {error}; give an https URL") from error
        if not host or "%" in host or parts.username is not None or parts.password is not None:
            raise AddressRefused(f"cannot use {shown(url)}: it must name a host, without user, password or zone")
        if parts.scheme != "https" and not (parts.scheme == "http" and self.allows(host)):
            raise AddressRefused(f"cannot use {shown(url)}: its scheme is {parts.scheme!r}; give an https URL")
        return parts, host, port or (443 if parts.scheme == "https" else 80)


def refusal(address: Address) -> str | None:
    """Say in words why no tenant's URL may lead to an address; None where it may."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return "an IPv4 address in IPv6 clothes"
        if address in NAT64:
            return refusal(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.is_loopback:
        return "an address of the gateway's own box"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if isinstance(address, ipaddress.IPv4Address) and address in SHARED:
        return "an address of the fleet's private network"
    if isinstance(address, ipaddress.IPv6Address):
        for words, network in REFUSED_IPV6.items():
            if address in network:
                return words
    if address.is_private:
        return "an address of a private network"
    return None if address.is_global and not address.is_reserved else "no public address"


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for every address of a host. Raises: OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(address[0]).partition("%")[0] for *_, address in found]


def shown(url: str) -> str:
    """Return a URL as it may stand in a message: short, and without what may be a secret in its query."""
    text = url.partition("?")[0]
    return ascii(text if len(text) <= 100 else text[:100] + "..")[1:-1]
