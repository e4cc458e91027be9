"""Which addresses a webhook may be sent to, so that a tenant cannot reach the operator's network.

Pure. `outbound` asks for each address that a name stands for, at each attempt, and connects to that
address and no other. Refused is what is not globally reachable: loopback, private and link-local
networks, the metadata services of clouds among them, and IPv6 addresses that stand for such IPv4
addresses. An operator opens networks by `[webhooks] allow_networks`.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

import msgspec

from lowtide import limits

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = IPv6Network("::/96")
_NOT_PUBLIC: Final = (
    IPv4Network("168.63.129.16/32"),  # Azure's metadata: a public number, inside its network alone
    IPv4Network("192.0.0.0/24"),  # of protocols, and Oracle's metadata
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
)
_URL: Final = re.compile(r"(https?)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?(#.*)?", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}


class WebhookTarget(msgspec.Struct, frozen=True):
    """The parts of an address that a call needs. `host` without brackets, in ASCII."""

    is_tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.is_tls else "http"] else (
            f"{host}:{self.port}"
        )  # fmt: skip


def target_of(url: str) -> WebhookTarget:
    """The parts of a webhook's address. Raises ValueError, which says what is wrong with it."""
    if len(url) > limits.WEBHOOK_URL_CHARS_MAX:
        raise ValueError(f"it is longer than {limits.WEBHOOK_URL_CHARS_MAX} characters")
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        raise ValueError("it has a space, a control character or one outside of ASCII")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("it must begin with https:// or http://")
    scheme, authority, path, query, fragment = parts.groups()
    if "@" in authority:
        raise ValueError("it must hold no user and no password: the signature says who calls")
    if fragment is not None:
        raise ValueError("it must have no fragment")
    host, port = _place_of(authority, _PORTS[scheme.lower()])
    return WebhookTarget(
        is_tls=scheme.lower() == "https",
        host=host,
        port=port,
        path=(path or "/") + (query or ""),
    )


def _place_of(authority: str, default_port: int) -> tuple[str, int]:
    """Host and port. Raises ValueError."""
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise ValueError("it names no host, or its host or port cannot be read")
    literal, name, digits = parts.groups()
    host = str(IPv6Address(literal)) if literal is not None else name.rstrip(".").lower()
    port = int(digits or default_port)
    if not host or not 0 < port < 65536:
        raise ValueError("it names no host, or its host or port cannot be read")
    return host, port


def refusal_of(address: str, allowed: Sequence[IPNetwork]) -> str | None:
    """Why a webhook may not be sent to that IP address, with the setting that allows it; None
    where it may.
    """
    ip = ip_address(address.partition("%")[0])
    if any(ip in network for network in allowed if network.version == ip.version):
        return None
    meant = [ip, *_embedded(ip)]
    if all(_is_reachable(each) for each in meant):
        return None
    line = f'allow_networks = ["{ip_network(ip)}"]'
    return (
        f"the address {ip} is private, reserved or this machine's own, and is not called. If it"
        f" may be, an operator of this server adds its network under [webhooks]: {line}"
    )


def _is_reachable(address: IPAddress) -> bool:
    is_reserved = address.is_reserved and address not in _NAT64[0]
    return (
        address.is_global
        and not address.is_multicast
        and not is_reserved
        and not any(address in network for network in _NOT_PUBLIC)
    )


def _embedded(address: IPAddress) -> Iterator[IPAddress]:
    """IPv4 addresses that an IPv6 address stands for, by whatever translates it on its way."""
    if isinstance(address, IPv4Address):
        return
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in (*_NAT64, _COMPATIBLE)):
        yield last
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
