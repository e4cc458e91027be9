"""What we write to an engine: where it is, and the header block of each request, ready-made.

Pure text work, done once per engine and path, so that the hot path only adds a length and a body.
It guards against header injection: nothing that an operator or a caller gives can end a line.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from lowtide import __version__
from lowtide.limits import REQUEST_HEADS_MAX

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


class Target(msgspec.Struct, frozen=True):
    """An engine URL taken apart. `authority` is the value of the Host header."""

    url: str
    tls: bool
    host: str
    port: int
    authority: str
    base_path: str


def parse_url(url: str) -> Target:
    """Take an engine URL apart; ValueError with a clear text when it cannot be one."""
    if _UNPRINTABLE.search(url):
        raise ValueError(f"engine URL {url!r} contains a space or a control character")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"engine URL {url!r} must start with http:// or https://")
    if "@" in parts.netloc:  # not echoed: it may hold a password
        raise ValueError("an engine URL must not hold user or password; use api_key or headers")
    if parts.query or parts.fragment:
        raise ValueError(f"engine URL {url!r} must not have a query or a fragment")
    host = _host(url, parts)
    try:
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"engine URL {url!r}: {exc}") from exc
    base_path = parts.path.rstrip("/")
    if base_path and not _PATH.fullmatch(base_path):
        raise ValueError(f"engine URL {url!r} has a path that is not plain ASCII")
    tls = parts.scheme == "https"
    shown = f"[{host}]" if ":" in host else host
    return Target(
        url=url.rstrip("/"),
        tls=tls,
        host=host,
        port=port or (443 if tls else 80),
        authority=shown if port is None else f"{shown}:{port}",
        base_path=base_path,
    )


def _host(url: str, parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ValueError(f"engine URL {url!r} names no host")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise ValueError(f"engine URL {url!r}: the host name is not valid: {exc}") from exc


class RequestHeads:
    """The header blocks for one engine, built on first use of a path and kept."""

    def __init__(self, target: Target, headers: Mapping[str, str], api_key: str | None) -> None:
        """ValueError when a header or the key could not be sent as it is."""
        fields = {
            "host": ("Host", target.authority),
            "user-agent": ("User-Agent", f"lowtide/{__version__}"),
            "accept": ("Accept", "application/json"),
            # Nothing to unpack: on a local network the CPU is dearer than the bytes.
            "accept-encoding": ("Accept-Encoding", "identity"),
        }
        for name, value in _credentials(headers, api_key).items():
            _check_header(name, value)
            fields[name.lower()] = (name, value)
        self._base_path = target.base_path
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
        return f"{method} {self._base_path}{path} HTTP/1.1\r\n".encode("ascii")


def _credentials(headers: Mapping[str, str], api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return dict(headers)
    if any(name.lower() == "authorization" for name in headers):
        raise ValueError("give an engine either api_key or an Authorization header, not both")
    return {**headers, "Authorization": f"Bearer {api_key}"}


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
