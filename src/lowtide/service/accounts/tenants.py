"""The verbs on organizations, projects and keys: create, look up, change, revoke.

Called by the admin routes and the command line. Guards: a key's secret leaves here once, in the
answer to its creation, and only its hash is stored; ids are made here, names are the caller's.
"""

import secrets
import string
from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.accounts.money import pico
from lowtide.core.accounts.tenancy import (
    SCOPES,
    ApiKey,
    Organization,
    OrganizationLimits,
    Project,
    Scope,
)
from lowtide.core.errors import LowtideError, out_of_range
from lowtide.ports.accounts import TenantStore
from lowtide.ports.clock import Clock, NewId
from lowtide.service.accounts.authentication import Authenticator, hash_secret, spell_key

_ALPHABET: Final = string.ascii_letters + string.digits
DEFAULT_SCOPES: Final[frozenset[Scope]] = frozenset({"read", "submit"})


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just created, with the credential, which cannot be shown again."""

    key: ApiKey
    credential: str


class TenantService:
    """Tenants of the whole installation; who may call these is the HTTP API's to check."""

    def __init__(
        self, tenants: TenantStore, access: Authenticator, clock: Clock, new_id: NewId
    ) -> None:
        self._tenants = tenants
        self._access = access
        self._clock = clock
        self._new_id = new_id

    async def organizations(self) -> list[Organization]:
        return await self._tenants.organizations()

    async def organization(self, organization_id: str) -> Organization:
        """Raises LowtideError `organization_not_found`."""
        organization = await self._tenants.organization(organization_id)
        if organization is None:
            raise _no_organization(organization_id)
        return organization

    async def create_organization(
        self,
        name: str,
        *,
        bounds: OrganizationLimits | None = None,
        spend_cap: Decimal | None = None,
    ) -> Organization:
        """`spend_cap` in dollars a calendar month. Raises LowtideError `invalid_request`."""
        organization = Organization(
            id=self._new_id("org_"),
            name=_checked_name(name),
            created_at=self._clock.now(),
            limits=_checked_limits(bounds or OrganizationLimits()),
            spend_cap_pico=_checked_cap(spend_cap),
        )
        await self._tenants.add_organization(organization)
        return organization

    async def change_organization(
        self, organization_id: str, *, bounds: OrganizationLimits, spend_cap: Decimal | None
    ) -> Organization:
        """Replaces limits and cap. Raises LowtideError."""
        changed = await self._tenants.change_organization(
            organization_id,
            limits=_checked_limits(bounds),
            spend_cap_pico=_checked_cap(spend_cap),
            now=self._clock.now(),
        )
        if not changed:
            raise _no_organization(organization_id)
        return await self.organization(organization_id)

    async def projects(self, organization_id: str | None = None) -> list[Project]:
        return await self._tenants.projects(organization_id)

    async def project(self, project_id: str) -> Project:
        """Raises LowtideError `project_not_found`."""
        project = await self._tenants.project(project_id)
        if project is None:
            raise _no_project(project_id)
        return project

    async def create_project(self, organization_id: str, name: str) -> Project:
        """Raises LowtideError `organization_not_found`, `invalid_request`."""
        project = Project(
            id=self._new_id("proj_"),
            organization_id=organization_id,
            name=_checked_name(name),
            created_at=self._clock.now(),
        )
        if not await self._tenants.add_project(project):
            raise _no_organization(organization_id)
        return project

    async def keys(self, project_id: str | None = None) -> list[ApiKey]:
        """The keys, newest first, revoked ones included."""
        await self._access.flush()
        return await self._tenants.keys(project_id)

    async def create_key(
        self,
        project_id: str,
        name: str,
        *,
        scopes: Collection[str] = DEFAULT_SCOPES,
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Raises LowtideError `project_not_found`, `invalid_request`."""
        now, secret = self._clock.now(), _random(limits.KEY_SECRET_CHARS)
        if expires_at is not None and expires_at <= now:
            raise LowtideError("invalid_request", "expires_at is in the past.", "expires_at")
        key = ApiKey(
            id=_random(limits.KEY_ID_CHARS),
            project_id=project_id,
            name=_checked_name(name),
            secret_hash=hash_secret(secret),
            hint=secret[-4:],
            scopes=_checked_scopes(scopes),
            created_at=now,
            expires_at=expires_at,
        )
        if not await self._tenants.add_key(key):
            raise _no_project(project_id)
        self._access.forget(key.id)
        return NewKey(key, spell_key(key.id, secret))

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revokes the key; revoking it again changes nothing. Raises LowtideError
        `key_not_found`.
        """
        if not await self._tenants.revoke_key(key_id, self._clock.now()):
            raise LowtideError("key_not_found", f"No API key found with id '{key_id}'.")
        self._access.forget(key_id)
        owner = await self._tenants.key_owner(key_id)
        assert owner is not None, "keys are never deleted"
        return owner.key


def _random(chars: int) -> str:
    """Random characters of the system's generator, never a seeded one: these are credentials."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(chars))


def _checked_name(name: str) -> str:
    if not 0 < len(name.strip()) <= limits.NAME_CHARS_MAX:
        raise LowtideError(
            "invalid_request", f"name must have 1 to {limits.NAME_CHARS_MAX} characters.", "name"
        )
    if not name.isprintable():
        raise LowtideError("invalid_request", "name has control characters.", "name")
    return name.strip()


def _checked_scopes(scopes: Collection[str]) -> frozenset[Scope]:
    chosen = frozenset(scope for scope in SCOPES if scope in scopes)
    if not chosen or len(chosen) < len(set(scopes)):
        raise LowtideError(
            "invalid_request",
            f"scopes must be one or more of {', '.join(sorted(SCOPES))}.",
            "scopes",
        )
    return chosen


def _checked_limits(bounds: OrganizationLimits) -> OrganizationLimits:
    for name, value in msgspec.structs.asdict(bounds).items():
        low, high = 0, limits.TENANT_LIMIT_MAX
        if name == "weight":
            low, high = 1, limits.TENANT_WEIGHT_MAX
        if value is not None and not low <= value <= high:
            raise out_of_range(f"limits.{name}", low, high)
    return bounds


def _checked_cap(spend_cap: Decimal | None) -> int | None:
    """The cap in pico-dollars; None: no cap. Raises LowtideError `invalid_request`."""
    if spend_cap is None:
        return None
    if not (spend_cap.is_finite() and 0 <= spend_cap <= limits.SPEND_CAP_DOLLARS_MAX):
        raise LowtideError(
            "invalid_request",
            f"spend_cap must be dollars a month, from 0 to {limits.SPEND_CAP_DOLLARS_MAX}.",
            "spend_cap",
        )
    return pico(spend_cap)


def _no_organization(organization_id: str) -> LowtideError:
    return LowtideError(
        "organization_not_found",
        f"No organization found with id '{organization_id}'.",
        "organization_id",
    )


def _no_project(project_id: str) -> LowtideError:
    return LowtideError(
        "project_not_found", f"No project found with id '{project_id}'.", "project_id"
    )
