"""What the forms of "Administration" do: each calls the verb of the route in `/v1/admin`.

A refusal is told on the page that has the form. The secret of a new key stands in one answer, which
is kept nowhere: not in a store, not in a browser's cache.
"""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide import limits
from lowtide.api.accounts.admin_objects import new_key_object
from lowtide.api.console.answers import Fields, form_on, go_to, show_secret
from lowtide.api.console.forms import whole_number
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import services_of
from lowtide.api.middleware.console_paths import ADMINISTRATION
from lowtide.core.accounts.tenancy import SCOPES, OrganizationLimits
from lowtide.core.errors import LowtideError

ORGANIZATIONS: Final = f"{ADMINISTRATION}/organizations"
PROJECTS: Final = f"{ADMINISTRATION}/projects"


@form_on(ADMINISTRATION)
async def create_organization(request: Request, fields: Fields) -> Response:
    """Makes an organization with the default limits, and goes on to its page."""
    made = await services_of(request).tenants.create_organization(fields.get("name", ""))
    set_audit_subject(request, made.id)
    return go_to(request, f"{ORGANIZATIONS}/{made.id}")


@form_on(ORGANIZATIONS + "/{organization_id}")
async def change_organization(request: Request, fields: Fields) -> Response:
    """Replaces the limits and the cap by those of the form; an empty field is the default."""
    organization_id: str = request.path_params["organization_id"]
    services = services_of(request)
    bounds = OrganizationLimits(
        **{
            name: whole_number(fields.get(name, "").strip(), name)
            for name in OrganizationLimits.__struct_fields__
        }
    )
    await services.tenants.change_organization(
        organization_id, bounds=bounds, spend_cap=_dollars(fields.get("spend_cap", "").strip())
    )
    services.allowance.forget()
    return go_to(request, f"{ORGANIZATIONS}/{organization_id}")


@form_on(ORGANIZATIONS + "/{organization_id}")
async def create_project(request: Request, fields: Fields) -> Response:
    """Makes a project of the organization, and goes on to its page."""
    organization_id: str = request.path_params["organization_id"]
    made = await services_of(request).tenants.create_project(
        organization_id, fields.get("name", "")
    )
    set_audit_subject(request, made.id)
    return go_to(request, f"{PROJECTS}/{made.id}")


@form_on(PROJECTS + "/{project_id}")
async def create_key(request: Request, fields: Fields) -> Response:
    """Makes a key, and shows it this once."""
    project_id: str = request.path_params["project_id"]
    made = await services_of(request).tenants.create_key(
        project_id,
        fields.get("name", ""),
        scopes=[each for each in SCOPES if f"scope_{each}" in fields],
        expires_at=_day(fields.get("expires", "").strip()),
    )
    set_audit_subject(request, made.key.id)
    made_key = new_key_object(made.key, made.credential)
    return await show_secret(request, f"{PROJECTS}/{project_id}", made=made_key)


@form_on(PROJECTS + "/{project_id}")
async def revoke_key(request: Request, _fields: Fields) -> Response:
    """Refuses the key from now on."""
    project_id: str = request.path_params["project_id"]
    await services_of(request).tenants.revoke_key(request.path_params["key_id"])
    return go_to(request, f"{PROJECTS}/{project_id}")


def _dollars(text: str) -> Decimal | None:
    if not text:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        shown = text[: limits.VALUE_CHARS_QUOTED]
        message = f"The cap must be dollars a month, as 500 or 12.50, not '{shown}'."
        raise LowtideError("invalid_request", message, "spend_cap") from None


def _day(text: str) -> datetime | None:
    """The beginning of that day in UTC; None where none is given."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        message = "The day on which a key ends is written as 2026-12-31."
        raise LowtideError("invalid_request", message, "expires_at") from None


ROUTES: Final = (
    Route(ORGANIZATIONS, create_organization, methods=["POST"]),
    Route(ORGANIZATIONS + "/{organization_id}", change_organization, methods=["POST"]),
    Route(ORGANIZATIONS + "/{organization_id}/projects", create_project, methods=["POST"]),
    Route(PROJECTS + "/{project_id}/keys", create_key, methods=["POST"]),
    Route(PROJECTS + "/{project_id}/keys/{key_id}/revoke", revoke_key, methods=["POST"]),
)
