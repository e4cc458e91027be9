"""Organizations, projects and keys as the admin routes show them, and as the document says.

Instants are unix seconds, money is a decimal string in dollars. A secret is in one object only:
the one that answers the creation of its key.
"""

from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from lowtide.api.dialects.openai import unix
from lowtide.core.accounts.money import dollars_text
from lowtide.core.accounts.tenancy import ApiKey, Organization, OrganizationLimits, Project, Scope


class LimitsObject(BaseModel):
    """Overrides of the configured defaults; null: the default applies."""

    requests_per_batch: int | None
    file_bytes: int | None
    enqueued_tokens_per_model: int | None
    batches_per_hour: int | None
    unfinished_batches: int | None
    stored_bytes: int | None
    requests_in_flight: int | None
    live_requests_per_minute: int | None
    live_tokens_per_minute: int | None
    control_calls_per_minute: int | None
    weight: int | None


class OrganizationObject(BaseModel):
    """`spend_cap`: dollars of batch work per calendar month (UTC); null: no cap."""

    object: Literal["organization"]
    id: str
    name: str
    created_at: int
    limits: LimitsObject
    spend_cap: str | None


class ProjectObject(BaseModel):
    object: Literal["project"]
    id: str
    organization_id: str
    name: str
    created_at: int


class KeyObject(BaseModel):
    """`hint` is the last four characters of the secret."""

    object: Literal["api_key"]
    id: str
    project_id: str
    name: str
    hint: str
    scopes: list[Scope]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


class NewKeyObject(KeyObject):
    """`key` is what clients send; it is shown this once."""

    key: str


class OrganizationList(BaseModel):
    object: Literal["list"]
    data: list[OrganizationObject]


class ProjectList(BaseModel):
    object: Literal["list"]
    data: list[ProjectObject]


class KeyList(BaseModel):
    object: Literal["list"]
    data: list[KeyObject]


def organization_object(organization: Organization) -> dict[str, Any]:
    cap = organization.spend_cap_pico
    return {
        "object": "organization",
        "id": organization.id,
        "name": organization.name,
        "created_at": unix(organization.created_at),
        "limits": limits_object(organization.limits),
        "spend_cap": None if cap is None else dollars_text(cap),
    }


def limits_object(limits: OrganizationLimits) -> dict[str, int | None]:
    """Every key, null where the default applies."""
    return msgspec.structs.asdict(limits)


def project_object(project: Project) -> dict[str, Any]:
    return {
        "object": "project",
        "id": project.id,
        "organization_id": project.organization_id,
        "name": project.name,
        "created_at": unix(project.created_at),
    }


def key_object(key: ApiKey) -> dict[str, Any]:
    """Everything but the secret, which nobody has any more."""
    return {
        "object": "api_key",
        "id": key.id,
        "project_id": key.project_id,
        "name": key.name,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "created_at": unix(key.created_at),
        "expires_at": unix(key.expires_at),
        "revoked_at": unix(key.revoked_at),
        "last_used_at": unix(key.last_used_at),
    }


def list_object(data: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": data}
