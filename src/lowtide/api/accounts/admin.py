"""The admin routes: organizations, projects, keys. `AuthMiddleware` (auth.py) lets only keys
with the scope in.

Bodies are read bounded and strictly: an unknown key is refused, because a misspelt limit that is
passed over is a limit that does not hold.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.accounts.admin_objects import (
    key_object,
    new_key_object,
    organization_object,
    project_object,
)
from lowtide.api.http.json_body import as_struct, json_response, read_json
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import services_of
from lowtide.api.objects.accounts import (
    KeyList,
    KeyObject,
    NewKeyObject,
    OrganizationList,
    OrganizationObject,
    ProjectList,
    ProjectObject,
)
from lowtide.api.openapi.answers import JSON_WRITES, answers, json_body
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.core.accounts.money import dollars
from lowtide.core.accounts.tenancy import SCOPES, OrganizationLimits
from lowtide.core.errors import LowtideError
from lowtide.service.accounts.tenants import DEFAULT_SCOPES

routes = Routes("admin", prefix="/v1/admin")

Body = TypeVar("Body", bound=msgspec.Struct)


class NewOrganization(msgspec.Struct, forbid_unknown_fields=True):
    """`spend_cap`: dollars a calendar month, as a number or a decimal string."""

    name: str
    limits: dict[str, int | None] = {}
    spend_cap: Decimal | None = None


class OrganizationChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a change. Fields that are left out stay as they are; null restores the default
    limit, or removes the cap.
    """

    limits: dict[str, int | None] = {}
    spend_cap: Decimal | UnsetType | None = UNSET


class NewProject(msgspec.Struct, forbid_unknown_fields=True):
    organization_id: str
    name: str


class NewApiKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a create; `expires_at` in Unix seconds."""

    project_id: str
    name: str
    scopes: list[str] = msgspec.field(default_factory=lambda: sorted(DEFAULT_SCOPES))
    expires_at: int | None = None


_LIMITS: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        name: {"type": ["integer", "null"], "minimum": 0}
        for name in OrganizationLimits.__struct_fields__
    },
}
_NAME: Final = {"type": "string", "minLength": 1}
_CAP: Final = {"type": ["string", "number", "null"]}


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    """The schema of a request body."""
    return json_body(
        {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            "required": list(required),
        }
    )


@routes.add("GET", "/organizations", answers(OrganizationList))
async def list_organizations(request: Request) -> Response:
    organizations = await services_of(request).tenants.organizations()
    return json_response(
        OrganizationList(data=[organization_object(each) for each in organizations])
    )


@routes.add(
    "POST",
    "/organizations",
    answers(OrganizationObject, *JSON_WRITES, "unknown_parameter"),
    requestBody=_object(("name",), name=_NAME, limits=_LIMITS, spend_cap=_CAP),
)
async def create_organization(request: Request) -> Response:
    asked = await _read(request, NewOrganization)
    organization = await services_of(request).tenants.create_organization(
        asked.name,
        bounds=_changed(OrganizationLimits(), asked.limits),
        spend_cap=asked.spend_cap,
    )
    set_audit_subject(request, organization.id)
    return json_response(organization_object(organization))


@routes.add(
    "GET",
    "/organizations/{organization_id}",
    answers(OrganizationObject, "organization_not_found"),
)
async def retrieve_organization(request: Request, organization_id: str) -> Response:
    organization = await services_of(request).tenants.organization(organization_id)
    return json_response(organization_object(organization))


@routes.add(
    "PATCH",
    "/organizations/{organization_id}",
    answers(OrganizationObject, *JSON_WRITES, "unknown_parameter", "organization_not_found"),
    requestBody=_object((), limits=_LIMITS, spend_cap=_CAP),
)
async def change_organization(request: Request, organization_id: str) -> Response:
    """Change limits and cap; they hold for new calls within seconds."""
    asked, services = await _read(request, OrganizationChange), services_of(request)
    before = await services.tenants.organization(organization_id)
    cap = asked.spend_cap
    if isinstance(cap, UnsetType):
        cap = _dollars(before.spend_cap_pico)
    after = await services.tenants.change_organization(
        organization_id, bounds=_changed(before.limits, asked.limits), spend_cap=cap
    )
    services.allowance.forget()
    return json_response(organization_object(after))


class ListProjects(msgspec.Struct, frozen=True):
    """The query of a list."""

    organization_id: str | UnsetType = UNSET


@routes.add("GET", "/projects", answers(ProjectList), parameters=ListProjects)
async def list_projects(request: Request) -> Response:
    asked = read_query(request, ListProjects).organization_id
    projects = await services_of(request).tenants.projects(None if asked is UNSET else asked)
    return json_response(ProjectList(data=[project_object(each) for each in projects]))


@routes.add(
    "POST",
    "/projects",
    answers(ProjectObject, *JSON_WRITES, "unknown_parameter", "organization_not_found"),
    requestBody=_object(
        ("organization_id", "name"), organization_id={"type": "string"}, name=_NAME
    ),
)
async def create_project(request: Request) -> Response:
    asked = await _read(request, NewProject)
    project = await services_of(request).tenants.create_project(asked.organization_id, asked.name)
    set_audit_subject(request, project.id)
    return json_response(project_object(project))


@routes.add("GET", "/projects/{project_id}", answers(ProjectObject, "project_not_found"))
async def retrieve_project(request: Request, project_id: str) -> Response:
    return json_response(project_object(await services_of(request).tenants.project(project_id)))


class ListKeys(msgspec.Struct, frozen=True):
    """The query of a list."""

    project_id: str | UnsetType = UNSET


@routes.add("GET", "/keys", answers(KeyList), parameters=ListKeys)
async def list_keys(request: Request) -> Response:
    """Lists keys, newest first, revoked ones included."""
    asked = read_query(request, ListKeys).project_id
    keys = await services_of(request).tenants.keys(None if asked is UNSET else asked)
    return json_response(KeyList(data=[key_object(each) for each in keys]))


@routes.add(
    "POST",
    "/keys",
    answers(NewKeyObject, *JSON_WRITES, "unknown_parameter", "project_not_found"),
    requestBody=_object(
        ("project_id", "name"),
        project_id={"type": "string"},
        name=_NAME,
        scopes={"type": "array", "minItems": 1, "items": {"enum": sorted(SCOPES)}},
        expires_at={"type": ["integer", "null"]},
    ),
)
async def create_key(request: Request) -> Response:
    """The answer is the only place where the key stands."""
    asked = await _read(request, NewApiKey)
    made = await services_of(request).tenants.create_key(
        asked.project_id,
        asked.name,
        scopes=asked.scopes,
        expires_at=_instant(asked.expires_at),
    )
    set_audit_subject(request, made.key.id)
    return json_response(new_key_object(made.key, made.credential))


@routes.add("DELETE", "/keys/{key_id}", answers(KeyObject, "key_not_found", "storage_full"))
async def revoke_key(request: Request, key_id: str) -> Response:
    """Refuse the key from now on. It stays in the list, with the instant."""
    return json_response(key_object(await services_of(request).tenants.revoke_key(key_id)))


async def _read(request: Request, kind: type[Body]) -> Body:
    return as_struct(await read_json(request), kind)


def _changed(before: OrganizationLimits, changes: dict[str, int | None]) -> OrganizationLimits:
    """The change as the service takes it. Raises LowtideError for the name of an unknown limit."""
    for name in changes:
        if name not in OrganizationLimits.__struct_fields__:
            known = ", ".join(OrganizationLimits.__struct_fields__)
            raise LowtideError(
                "invalid_request", f"There is no limit '{name[:100]}'; there are {known}.", "limits"
            )
    return msgspec.structs.replace(before, **changes)


def _dollars(cap_pico: int | None) -> Decimal | None:
    return None if cap_pico is None else dollars(cap_pico)


def _instant(unix_s: int | None) -> datetime | None:
    if unix_s is None:
        return None
    try:
        return datetime.fromtimestamp(unix_s, UTC)
    except (OverflowError, OSError, ValueError):
        raise LowtideError(
            "invalid_request", "expires_at must be an instant in unix seconds.", "expires_at"
        ) from None
