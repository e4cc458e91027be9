"""Which path, which dialect: the routing rule that satisfies every client (protocol.md section 1).

Runs before the routes and turns every spelling that clients are known to produce into the one path
the routes have: `/together/v1/*` and `/openai/v1/*` (fixed dialect), `/v1/v1/*` (a base with /v1
given to a client that adds it), un-prefixed paths (the reverse), three spellings of whoami, two of
webhooks, doubled and trailing slashes. The routes then ask `client_dialect` or `dialect_of`.
Guards: a path with a control character or a dot segment belongs to no route, because code that
compares strings and code that matches patterns disagree about it (Starlette's `/metrics` also
matches with a line feed behind it); nor is a query with NUL, which no id has and PostgreSQL cannot
hold.
"""

import re
from typing import Final, cast
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from lowtide.api.http.errors import error_response
from lowtide.core.batches.batch import Dialect
from lowtide.core.errors import LowtideError

_MOUNTS: Final[dict[str, Dialect]] = {"together": "together", "openai": "openai"}
_UNPREFIXED: Final = frozenset(
    {
        "batches",
        "chat",
        "completions",
        "embeddings",
        "files",
        "models",
        "responses",
        "uploads",
        "webhook_endpoints",
        "webhooks",
        "whoami",
    }
)
_WHOAMI: Final = frozenset({"/v3/whoami", "/v1/v3/whoami"})
_OPENAI_WEBHOOKS: Final = "/v1/webhook_endpoints"
_WEBHOOKS: Final = "/v1/webhooks"
_GLUED_URL: Final = re.compile(r"/(?:\w+/)*https?:/")
_SLASHES: Final = re.compile(r"/{2,}")
_NOBODYS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]|/\.\.?(?:/|\Z)")
_NUL_ESCAPED: Final = b"%00"


def canonical_path(path: str) -> tuple[str, Dialect | None]:
    """The path as the routes have it, and the dialect that its mount fixes, if it has one."""
    path = _SLASHES.sub("/", path)
    if len(path) > 1:
        path = path.rstrip("/")
    head, slash, rest = path[1:].partition("/")
    fixed = _MOUNTS.get(head) if slash else None
    if fixed:
        path = slash + rest
    while path.startswith("/v1/v1/"):
        path = path[3:]
    if path in _WHOAMI:
        return "/v1/whoami", fixed
    if path[1:].partition("/")[0] in _UNPREFIXED:
        path = "/v1" + path
    if path.startswith(_OPENAI_WEBHOOKS):
        path = _WEBHOOKS + path[len(_OPENAI_WEBHOOKS) :]
    return path, fixed


def is_nobodys(path: str, query: bytes) -> bool:
    """Whether there can be nothing of that name, whatever the routes are."""
    if query and _NUL_ESCAPED in query:
        return True
    if path.isprintable() and "/." not in path:  # as nearly all are, and quickly seen
        return False
    return _NOBODYS.search(path) is not None


def without_prefix(path: str, prefix: str) -> str:
    """The path below `server.path_prefix`; slashes before it may be doubled like all others."""
    if not prefix:
        return path
    tidy = _SLASHES.sub("/", path)
    if tidy == prefix:
        return "/"
    return tidy[len(prefix) :] if tidy.startswith(f"{prefix}/") else path


class PathMiddleware:
    """ASGI middleware: rewrites the path in the scope and notes the fixed dialect in its state."""

    def __init__(self, app: ASGIApp, prefix: str = "") -> None:
        """`prefix` is removed from the start of a path. A path without it stays as it is, because a
        proxy may remove it itself, and health checks do not come through the proxy.
        """
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if is_nobodys(scope["path"], scope.get("query_string", b"")):
            await _NOBODYS_REFUSAL(scope, receive, send)
            return
        asked = without_prefix(scope["path"], self._prefix)
        if _GLUED_URL.match(asked):
            await _GLUED_REFUSAL(scope, receive, send)
            return
        path, fixed = canonical_path(asked)
        state = {**scope.get("state", {}), "fixed_dialect": fixed}
        rewritten = {**scope, "path": path, "raw_path": quote(path).encode(), "state": state}
        await self._app(rewritten, receive, send)


# together 1.x glues the absolute upload address to its base when it repeats a failed PUT, with an
# already consumed and so empty body: that must never be stored over good data (section 2.3).
_GLUED_REFUSAL: Final = error_response(
    LowtideError(
        "upload_interrupted",
        "A client repeated an upload at a broken address, without the bytes."
        " Upload the file again.",
    )
)

_NOBODYS_REFUSAL: Final = error_response(
    LowtideError("not_found", "Unknown path: it has a control character or a dot segment in it.")
)


def fixed_dialect(request: HTTPConnection) -> Dialect | None:
    """The dialect of the mount the request came by; None on the shared `/v1`."""
    return cast("Dialect | None", getattr(request.state, "fixed_dialect", None))


def client_dialect(request: HTTPConnection) -> Dialect:
    """The dialect for collections and new objects: the mount's, else by what the
    client says it is (rule 2c).

    Never anchored on `^OpenAI/`: wrappers change the User-Agent, and whatever is not
    Together's reads the OpenAI shapes.
    """
    fixed = fixed_dialect(request)
    if fixed:
        return fixed
    headers = request.headers
    together = "x-together-client-user-agent" in headers or "Together/" in headers.get(
        "user-agent", ""
    )
    return "together" if together else "openai"


def dialect_of(request: HTTPConnection, created: Dialect) -> Dialect:
    """The dialect for an existing file or batch: the mount's, else the one it was created in,
    whoever reads it (rule 2b).
    """
    return fixed_dialect(request) or created
