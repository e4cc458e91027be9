"""What the client writes to an engine: where it is, and the header block of each
request, ready-made.

Pure text work, done once per engine and path, so that the hot path only adds a length and a body.
It guards against header injection: nothing that an operator or a caller gives can end a line.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

import msgspec

from lowtide.limits import PROXY_PORT, REQUEST_HEADS_MAX
from lowtide.version import VERSION

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_PATH = re.compile(r"/[!-~]*")  # visible ASCII: nothing that could end the request line
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_OURS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that decide how a message is framed; the client alone sets them."""


class EngineAddress(msgspec.Struct, frozen=True):
    """An engine URL taken apart. `authority` is the value of the Host header."""

    url: str
    tls: bool
    host: str
    port: int
    authority: str
    base_path: str

    @property
    def host_in_url(self) -> str:
        """An IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy on the way to an engine. `authorization` is its header's value, a secret."""

    host: str
    port: int
    authority: str
    authorization: str | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.authority!r})"


def parse_url(url: str) -> EngineAddress:
    """Takes an engine URL apart; ValueError with a clear text when it cannot be one.

    No text has the URL in it, or a part of it: a mistaken one may hold a password anywhere.
    """
    parts = _split(url, "the engine URL", ("http", "https"))
    if "@" in parts.netloc:
        raise ValueError("the engine URL must not hold user or password; use api_key or headers")
    if parts.query or parts.fragment:
        raise ValueError("the engine URL must not have a query or a fragment; use query")
    host, port = _host(parts, "the engine URL")
    base_path = parts.path.rstrip("/")
    if base_path and not _PATH.fullmatch(base_path):
        raise ValueError("the engine URL has a path that is not plain ASCII")
    tls = parts.scheme == "https"
    shown = f"[{host}]" if ":" in host else host
    return EngineAddress(
        url=url.rstrip("/"),
        tls=tls,
        host=host,
        port=port or (443 if tls else 80),
        authority=shown if port is None else f"{shown}:{port}",
        base_path=base_path,
    )


def parse_proxy(url: str) -> Proxy:
    """Takes `http://user:password@host:port` apart; ValueError as `parse_url`."""
    parts = _split(url, "the proxy", ("http",))
    if parts.path.rstrip("/") or parts.query or parts.fragment:
        raise ValueError("the proxy must end after its port")
    host, port = _host(parts, "the proxy")
    credentials, at, _ = parts.netloc.rpartition("@")
    shown = f"[{host}]" if ":" in host else host
    return Proxy(
        host=host,
        port=port or PROXY_PORT,
        authority=f"{shown}:{port or PROXY_PORT}",
        authorization=basic(unquote(credentials)) if at else None,
    )


def _split(url: str, what: str, schemes: tuple[str, ...]) -> SplitResult:
    if _UNPRINTABLE.search(url):
        raise ValueError(f"{what} contains a space or a control character")
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address; the text would tell what they hold
        raise ValueError(f"{what} has brackets that hold no IPv6 address") from None
    if parts.scheme not in schemes:
        allowed = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"{what} must start with {allowed}")
    return parts


def _host(parts: SplitResult, what: str) -> tuple[str, int | None]:
    host = parts.hostname
    if not host:
        raise ValueError(f"{what} names no host")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{what} has a port that is no number from 0 to 65535") from None
    if host.isascii():
        return host, port
    try:
        return host.encode("idna").decode("ascii"), port
    except UnicodeError:
        raise ValueError(f"{what} has a host name that is not valid") from None


def basic(credentials: str) -> str:
    """The value of an Authorization header for `user:password` (RFC 7617)."""
    return f"Basic {b64encode(credentials.encode()).decode('ascii')}"


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with every request to one engine, beside the body."""

    headers: Mapping[str, str] = MappingProxyType({})
    api_key: str | None = None
    query: Mapping[str, str] = MappingProxyType({})
    proxy: Proxy | None = None
    """A forward proxy that is told the whole address; None also where requests go by a tunnel."""


class RequestHeads:
    """The header blocks for one engine, built on first use of a path and kept."""

    def __init__(self, target: EngineAddress, extras: Extras) -> None:
        """ValueError when a header or the key could not be sent as it is."""
        fields = {
            "host": ("Host", target.authority),
            "user-agent": ("User-Agent", f"lowtide/{VERSION}"),
            "accept": ("Accept", "application/json"),
            # Nothing to unpack: on a local network the CPU is dearer than the bytes.
            "accept-encoding": ("Accept-Encoding", "identity"),
        }
        for name, value in _credentials(extras).items():
            _check_header(name, value)
            fields[name.lower()] = (name, value)
        self._base = target.base_path
        if extras.proxy is not None:  # absolute form (RFC 9112 3.2.2)
            self._base = f"http://{target.authority}{target.base_path}"
        self._query = f"?{urlencode(extras.query, quote_via=quote)}" if extras.query else ""
        post = {"content-type": ("Content-Type", "application/json")} | fields
        self._get_fields = _block(fields)
        self._post_fields = _block(post)
        self._posts: dict[str, bytes] = {}

    def post(self, path: str) -> bytes:
        """The head of a POST up to `Content-Length: `; the number and two line ends are missing."""
        head = self._posts.get(path)
        if head is None:
            head = self._request_line("POST", path) + self._post_fields + b"Content-Length: "
            if len(self._posts) < REQUEST_HEADS_MAX:
                self._posts[path] = head
        return head

    def get(self, path: str) -> bytes:
        """A whole GET request."""
        return self._request_line("GET", path) + self._get_fields + b"\r\n"

    def _request_line(self, method: str, path: str) -> bytes:
        if not _PATH.fullmatch(path):
            raise ValueError(f"request path {path!r} must start with / and be plain ASCII")
        return f"{method} {self._base}{path}{self._query} HTTP/1.1\r\n".encode("ascii")


def _credentials(extras: Extras) -> dict[str, str]:
    fields = dict(extras.headers)
    if extras.proxy is not None and extras.proxy.authorization is not None:
        fields["Proxy-Authorization"] = extras.proxy.authorization
    if extras.api_key is None:
        return fields
    if any(name.lower() == "authorization" for name in fields):
        raise ValueError("give an engine either api_key or an Authorization header, not both")
    return {**fields, "Authorization": f"Bearer {extras.api_key}"}


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"header name {name!r} is not valid")
    if name.lower() in _OURS:
        raise ValueError(f"header {name} is set by the engine client itself")
    # The value stays out of the message: it may be a secret.
    if any(char in value for char in "\r\n\0"):
        raise ValueError(f"the value of header {name} contains a line break or a NUL")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the value of header {name} has characters outside Latin-1") from None


def _block(fields: Mapping[str, tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.values()).encode("latin-1")
