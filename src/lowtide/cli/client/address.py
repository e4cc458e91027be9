"""What `--server` may look like, and the address it stands for."""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.reporting.shown_url import shown_url

DEFAULT_SERVER: Final = "http://127.0.0.1:8000"
_MOUNT = re.compile(r"(/(openai|together|anthropic))?(/v1)?/*$")


def server_address(text: str) -> str:
    """The server's root, without a slash at the end.

    Takes what people paste: no scheme, a slash, or the `/v1` that they give an SDK.
    """
    address = text.strip()
    if "://" not in address:
        address = f"http://{address}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise CommandError(
            f"--server {shown(text)} is not an address.", f"For example: --server {DEFAULT_SERVER}"
        )
    return _MOUNT.sub("", address)


def shown(text: str) -> str:
    """What was given as an address, as it may be repeated: not where it may hold a password."""
    return shown_url(text) if "@" in text else repr(text)


def is_this_machine(address: str) -> bool:
    """Whether the address is a loopback one: never reached through a proxy."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
