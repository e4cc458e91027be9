"""Who asks, and whether that caller may: the facts that `AuthMiddleware` puts on every request.

In open mode (loopback only) there is one project, and credentials of any kind are accepted and
ignored: the SDKs refuse to start without a key, so people type one. In keys mode the credential is
an API key, which acts for one project within its scopes.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.requests import HTTPConnection
from starlette.types import Scope as ASGIScope

from lowtide import limits
from lowtide.core.accounts.tenancy import (
    DEFAULT_ORGANIZATION,
    DEFAULT_PROJECT,
    SCOPES,
    KeyOwner,
    Scope,
)
from lowtide.core.errors import LowtideError
from lowtide.ports.store import StoreError
from lowtide.ports.turns import ACTING_FOR

if TYPE_CHECKING:
    from lowtide.service.services import Services


@dataclass(frozen=True, slots=True)
class Caller:
    """Project, key and scopes behind a request (whoami shows them, protocol.md section 2.8).

    `user_id` is the key's id: keys belong to projects, not to people.
    """

    project_id: str
    user_id: str
    organization_id: str
    key_id: str
    project_name: str = "Default"
    organization_name: str = "Default"
    scopes: frozenset[Scope] = SCOPES


DEFAULT_CALLER: Final = Caller(
    project_id=DEFAULT_PROJECT,
    user_id="user_default",
    organization_id=DEFAULT_ORGANIZATION,
    key_id="key_default",
)


def identify(request: HTTPConnection) -> Caller:
    """The caller behind a request that the middleware has admitted."""
    caller: Caller = request.state.caller
    return caller


async def admit(request: HTTPConnection) -> Caller:
    """Authenticates the caller. Raises LowtideError `missing_api_key`, `invalid_api_key`."""
    services = services_of(request)
    if services.settings.auth.mode == "open":
        return DEFAULT_CALLER
    key = credential(request)
    if key is None:
        raise LowtideError(
            "missing_api_key",
            "This call needs an API key: send it as 'Authorization: Bearer KEY'.",
        )
    return caller_of(await services.access.authenticate(key))


def accept(scope: ASGIScope, organization_id: str) -> None:
    """Tell the connection whose it is, where it has not been told yet, and whoever shares things
    out on whose behalf this request is. Raises LowtideError for an organization that has as many
    connections as are left free for others.
    """
    ACTING_FOR.set(organization_id)
    connection = scope["state"].get("connection")
    if connection is not None and not connection.accept(organization_id):
        raise LowtideError(
            "rate_limit_exceeded",
            "This organization has too many connections open here: it may have as many as are left"
            " free for others. Close some, or send more calls on each.",
            retry_after_s=limits.CONNECTIONS_RETRY_AFTER_S,
        )


def caller_of(owner: KeyOwner) -> Caller:
    return Caller(
        project_id=owner.project.id,
        user_id=owner.key.id,
        organization_id=owner.organization.id,
        key_id=owner.key.id,
        project_name=owner.project.name,
        organization_name=owner.organization.name,
        scopes=owner.key.scopes,
    )


def require(caller: Caller, sufficient: Sequence[Scope]) -> None:
    """Raises LowtideError `insufficient_scope`, which names the scopes, where it has none of them.

    None named: any valid key will do.
    """
    if sufficient and caller.scopes.isdisjoint(sufficient):
        has, needs = ", ".join(sorted(caller.scopes)), "' or '".join(sufficient)
        raise LowtideError(
            "insufficient_scope",
            f"This call needs a key with the scope '{needs}'; this key has: {has}.",
        )


async def check_rate(request: HTTPConnection, caller: Caller) -> None:
    """Count a call that is not interactive. Raises LowtideError `rate_limit_exceeded`.

    Where the limits cannot be read now, the call goes on: its verb says so, if it needs the store.
    """
    with suppress(StoreError):
        await services_of(request).allowance.check_control_call(caller.project_id)


def note_rows(request: HTTPConnection, rows: int) -> None:
    """Counts a list of so many rows as more than one call."""
    organization_id = identify(request).organization_id
    services_of(request).allowance.note_rows(organization_id, rows)


def credential(request: HTTPConnection) -> str | None:
    """The key as sent:

    `Authorization: Bearer KEY` or `X-Api-Key: KEY` (protocol.md section 1, rule 3).
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("x-api-key", "").strip() or None


def services_of(request: HTTPConnection) -> "Services":
    """The verbs that `create_app` was given."""
    services: Services = request.app.state.services
    return services
