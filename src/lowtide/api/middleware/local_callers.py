"""Open mode is for this machine: refuses calls that a foreign page makes a browser send.

`app` puts it before the routes where no keys are asked for. Guards: the Host of a call is a
name of this machine (else a name that an attacker's DNS turned to 127.0.0.1 would do), and a
browser that says for whom it calls says that it is for the server's own pages, or for an origin
of `allowed_origins`. A link to the server may be followed from anywhere: a navigation shows the
user something, and the page it came from sees nothing of it. Programs send none of these
headers and are not concerned.
"""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from lowtide import limits
from lowtide.api.http.errors import error_response
from lowtide.config import ServerSettings
from lowtide.config.exposure import host_name, origin_of
from lowtide.core.errors import LowtideError
from lowtide.core.reporting.log_rate import LogRate

log = structlog.get_logger("lowtide.api")

_OURS: Final = (b"same-origin", b"none")
_QUOTED_CHARS: Final = limits.VALUE_CHARS_QUOTED


class LocalCallersOnly:
    """ASGI middleware of open mode."""

    def __init__(self, app: ASGIApp, server: ServerSettings) -> None:
        self._app = app
        self._policy = OpenModePolicy(server)
        self._refusals = LogRate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._policy.refusal(scope["method"], scope["scheme"], scope["headers"])
            if refusal is not None:
                self._tell(refusal)
                await error_response(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _tell(self, refusal: LowtideError) -> None:
        if count := self._refusals.due(asyncio.get_running_loop().time()):
            log.warning("open_mode.refused", code=refusal.code, why=refusal.message, count=count)


class OpenModePolicy:
    """Who may call without a key. Pure but for what it remembers of Host headers."""

    def __init__(self, server: ServerSettings) -> None:
        public = origin_of(server.public_url) if server.public_url else None
        names = [*server.allowed_hosts, server.host]
        if public is not None:
            names.append(public.partition("://")[2])
        self._names = {"localhost", *(name for each in names if (name := _name(each)))}
        allowed = [origin_of(each) for each in (*server.allowed_origins, public or "")]
        self._origins = {each for each in allowed if each}
        self._seen: dict[bytes, bool] = {}

    def refusal(
        self, method: str, scheme: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> LowtideError | None:
        """Why a call is refused; None: it may go on."""
        hosts: list[bytes] = []
        origin = site = mode = dest = b""
        for name, value in headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-mode":
                mode = value
            elif name == b"sec-fetch-dest":
                dest = value
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return _foreign_host(b", ".join(hosts))
        if origin:
            text = origin.decode("latin-1").lower()
            own = f"{scheme}://{hosts[0].decode('latin-1').lower()}"
            if text in self._origins:
                return None
            if text != own:
                return _foreign_origin(text)
        if not site or site in _OURS:
            return None
        if method == "GET" and not origin and (mode, dest) == (b"navigate", b"document"):
            return None
        return _foreign_page(site)

    def _is_ours(self, host: bytes) -> bool:
        known = self._seen.get(host)
        if known is None:
            name = host_name(host.decode("latin-1"))
            known = name is not None and (name in self._names or _is_loopback_address(name))
            if len(self._seen) < limits.HOSTS_SEEN_MAX:
                self._seen[host] = known
        return known


def _name(setting: str) -> str | None:
    """The name as it stands in a Host header: an IPv6 address in brackets."""
    is_bare_ipv6 = setting.count(":") > 1 and not setting.startswith("[")
    return host_name(f"[{setting}]" if is_bare_ipv6 else setting)


def _is_loopback_address(name: str) -> bool:
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _foreign_host(host: bytes) -> LowtideError:
    shown = host.decode("latin-1")[:_QUOTED_CHARS] or "(none)"
    return LowtideError(
        "host_not_allowed",
        f"This server asks for no keys (auth.mode = 'open') and answers only under the names of its"
        f" own machine; this call has the Host {shown!r}. To call it by that name set"
        " server.allowed_hosts or server.public_url; for callers on other machines set"
        " auth.mode = 'keys'.",
    )


def _foreign_origin(origin: str) -> LowtideError:
    return LowtideError(
        "origin_not_allowed",
        "This server asks for no keys (auth.mode = 'open'), so pages of other origins may not call"
        f" it; this one is of {origin[:_QUOTED_CHARS]!r}. If the page is yours, add its origin"
        " (scheme, host and port) to server.allowed_origins; behind a proxy with TLS set"
        " server.public_url.",
    )


def _foreign_page(site: bytes) -> LowtideError:
    shown = site.decode("latin-1")[:_QUOTED_CHARS]
    return LowtideError(
        "origin_not_allowed",
        "This server asks for no keys (auth.mode = 'open'), so pages of other origins may not call"
        f" it; the browser says of this call: Sec-Fetch-Site: {shown}. If the"
        " page is yours, add its origin (scheme, host and port) to server.allowed_origins, and let"
        " it fetch with mode 'cors'.",
    )
