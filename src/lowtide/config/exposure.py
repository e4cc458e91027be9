"""What the settings say about who may reach the server: names, origins of pages, proxies.

Called by `sections` to refuse what makes no sense and by `api` to read the same words once. Pure:
nothing is looked up. Guards: a name has one spelling (lower case, no port), an origin has one
(scheme, host, port unless it is the scheme's own).
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from lowtide.config.problems import Problem

Network = IPv4Network | IPv6Network

_HOST: Final = re.compile(r"([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?")
_PORTS: Final = {"http": 80, "https": 443}


def host_name(text: str) -> str | None:
    """The name in a Host header or a setting, without its port; None when it is none."""
    match = _HOST.fullmatch(text.strip().lower())
    return match[1] if match else None


def origin_of(url: str) -> str | None:
    """`scheme://host[:port]` of an address, as a browser writes it; None when it is none."""
    try:
        parts = urlsplit(url.strip().lower())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = "" if port is None or port == _PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{shown}"


def networks_of(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks. Raises ValueError."""
    return tuple(ip_network(text.strip(), strict=False) for text in texts)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. Names other than localhost count as public."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def exposed_names(public_url: str | None, hosts: Sequence[str]) -> list[str]:
    """Names of the server that are not this machine's own."""
    public = (origin_of(public_url) or "").partition("://")[2] if public_url else ""
    names = [name for each in (public, *hosts) if each and (name := host_name(each))]
    return [name for name in dict.fromkeys(names) if not is_loopback(name)]


def problems_of(
    hosts: Sequence[str], origins: Sequence[str], proxies: Sequence[str]
) -> Iterator[Problem]:
    """What is no name, origin or network."""
    for text in hosts:
        if host_name(text) is None:
            words = f"{text!r} is not the name of a host, as 'batch.example.org'"
            yield Problem(("server", "allowed_hosts"), words)
    for text in origins:
        if origin_of(text) != text.strip().lower():
            words = (
                f"{text!r} is not an origin, as 'http://localhost:3000': scheme, host and port,"
                " without a path"
            )
            yield Problem(("server", "allowed_origins"), words)
    try:
        networks_of(proxies)
    except ValueError as error:
        words = f"{error}; give addresses or networks, as '10.0.0.0/8'"
        yield Problem(("server", "trusted_proxies"), words)
