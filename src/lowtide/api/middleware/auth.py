"""The middleware before the routes: who asks, may they, and a record that they did.

Sees the canonical path (`PathMiddleware` runs first), so no spelling of a path avoids it, and
refuses whatever is not named here: a new route needs a key by default. The record is the log
event `audit`: who, what verb, which id, how it ended, from where. It never has a body, a
header or a key in it.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from lowtide import limits
from lowtide.api.http import body_budget
from lowtide.api.http.errors import STATUS_OF
from lowtide.api.middleware.caller import Caller, accept, admit, check_rate, require
from lowtide.api.middleware.console_paths import (
    ADMINISTRATION,
    DRAFTS,
    SIGN_OUT,
    USAGE,
    USAGE_CSV,
    is_open_to_all,
)
from lowtide.core.accounts.tenancy import Scope
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.errors import LowtideError
from lowtide.core.reporting.log_rate import LogRate
from lowtide.service.fair_places import FairPlaces

log = structlog.get_logger("lowtide.audit")

_PUBLIC: Final = frozenset({"/health", "/ready", "/openapi.json"})
_SIGNED: Final = "/v1/uploads/signed/"
"""The signature is the permission: the SDKs send no key there (protocol.md section 2.3)."""
_ADMIN: Final = ("/v1/admin", ADMINISTRATION, "/metrics")  # the metrics tell of every tenant's work
_READING: Final = frozenset({"GET", "HEAD"})
_AUDITED_READS: Final = ("/v1/admin", "/v1/usage", ADMINISTRATION, USAGE)


class AuthMiddleware:
    """ASGI middleware. Every request that a route sees has `request.state.caller`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refusals = LogRate()
        self._turns = FairPlaces(limits.READS_AT_ONCE)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PUBLIC:
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        caller: Caller | None = None
        try:
            if not is_public(scope["method"], scope["path"]):
                caller = scope["state"].get("caller")  # a session of the console's
                if caller is None:
                    caller = await admit(HTTPConnection(scope))
                scope["state"]["caller"] = caller
                accept(scope, caller.organization_id)
                require(caller, sufficient_scopes(scope["method"], scope["path"]))
                if scope["path"] not in ENDPOINTS:  # interactive calls have limits of their own
                    await check_rate(HTTPConnection(scope), caller)
                if _is_reading(scope):
                    await self._answer_in_turn(caller.organization_id, scope, receive, watched)
                    return
            await self._app(scope, receive, watched)
        except LowtideError as error:
            status = status or STATUS_OF[error.code]
            raise
        finally:
            body_budget.release(scope)
            if _is_audited(scope, status):
                self._record(scope, caller, status)

    async def _answer_in_turn(
        self, owner: str, scope: Connection, receive: Receive, send: Send
    ) -> None:
        """Answers when it is the organization's turn. The turn ends when the answer begins, so that
        a client that reads slowly does not hold up the others.
        """
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(self._turns.of(owner))

            async def begun(message: Message) -> None:
                await turn.aclose()
                await send(message)

            await self._app(scope, receive, begun)

    def _record(self, scope: Connection, caller: Caller | None, status: int) -> None:
        """Records each call of a known caller; of unauthenticated callers, who can call
        without end, one call a second.
        """
        if caller is not None or status != 401:
            _record(scope, caller, status, 1)
        elif count := self._refusals.due(asyncio.get_running_loop().time()):
            _record(scope, caller, status, count)


def is_public(method: str, path: str) -> bool:
    """Whether the path needs no key."""
    return path in _PUBLIC or is_open_to_all(path) or (method == "PUT" and path.startswith(_SIGNED))


def sufficient_scopes(method: str, path: str) -> tuple[Scope, ...]:
    """Any one of these will do; none given: any valid key, for every tool asks first who it is."""
    if path in ("/v1/whoami", SIGN_OUT):
        return ()
    if path in ("/v1/usage", USAGE, USAGE_CSV):
        return ("read", "admin")  # an administrator's view of money reads no results
    if any(path == prefix or path.startswith(f"{prefix}/") for prefix in _ADMIN):
        return ("admin",)
    return ("read",) if method in _READING else ("submit",)


def _is_reading(scope: Connection) -> bool:
    """Whether a call reads from the database and has no body: retrieving, listing, usage. A draft's
    page reads a whole file, for which dry runs have turns of their own.
    """
    path: str = scope["path"]
    is_long = path.endswith("/content") or path.startswith(DRAFTS)
    return scope["method"] in _READING and not is_long and path != "/metrics"


def set_audit_subject(request: HTTPConnection, subject: str) -> None:
    """Sets the id of what the call created, for the record, where the path does not name it."""
    request.state.subject = subject


def _is_audited(scope: Connection, status: int) -> bool:
    """Whether the call is recorded: it changes something, reads results or an
    administrator's view, or was refused.

    Polling is not recorded, nor is each live call: they would bury the
    rest, and metrics count them.
    """
    method: str = scope["method"]
    path: str = scope["path"]
    return (
        (method not in _READING and path not in ENDPOINTS)
        or status in (401, 403)
        or path.endswith("/content")
        or path.startswith(_AUDITED_READS)
    )


def _record(scope: Connection, caller: Caller | None, status: int, count: int) -> None:
    """`status` 0: the client left, or the answer failed. `count`: calls, this one the last."""
    endpoint, state, client = scope.get("endpoint"), scope["state"], scope.get("client")
    noun = getattr(endpoint, "__module__", "").rpartition(".")[2]
    subjects = scope.get("path_params") or {}
    log.info(
        "audit",
        verb=f"{noun}.{endpoint.__name__}" if endpoint is not None else "unrouted",
        method=scope["method"],
        subject=state.get("subject") or next(iter(subjects.values()), None),
        status=status,
        key=caller.key_id if caller else None,
        project=caller.project_id if caller else None,
        organization=caller.organization_id if caller else None,
        client=client[0] if client else None,
        request_id=state.get("request_id"),
        **({"count": count} if count > 1 else {}),
    )
