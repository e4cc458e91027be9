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
from lowtide.api.console.answers import go_to, show, show_secret
from lowtide.api.console.failures import told_on_a_page
from lowtide.api.console.forms import read_form, whole_number
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import services_of
from lowtide.api.middleware.console_paths import ADMINISTRATION
from lowtide.core.accounts.tenancy import SCOPES, OrganizationLimits
from lowtide.core.errors import LowtideError

ORGANIZATIONS: Final = f"{ADMINISTRATION}/organizations"
PROJECTS: Final = f"{ADMINISTRATION}/projects"


@told_on_a_page
async def create_organization(request: Request) -> Response:
    """Makes an organization with the default limits, and goes on to its page."""
    fields = await read_form(request)
    try:
        made = await services_of(request).tenants.create_organization(fields.get("name", ""))
    except LowtideError as error:
        return await show(request, ADMINISTRATION, error)
    set_audit_subject(request, made.id)
    return go_to(request, f"{ORGANIZATIONS}/{made.id}")


@told_on_a_page
async def change_organization(request: Request) -> Response:
    """Replaces the limits and the cap by those of the form; an empty field is the default."""
    organization_id: str = request.path_params["organization_id"]
    fields, services = await read_form(request), services_of(request)
    page = f"{ORGANIZATIONS}/{organization_id}"
    try:
        bounds = OrganizationLimits(
            **{
                name: whole_number(fields.get(name, "").strip(), name)
                for name in OrganizationLimits.__struct_fields__
            }
        )
        await services.tenants.change_organization(
            organization_id, bounds=bounds, spend_cap=_dollars(fields.get("spend_cap", "").strip())
        )
    except LowtideError as error:
        return await show(request, page, error)
    services.allowance.forget()
    return go_to(request, page)


@told_on_a_page
async def create_project(request: Request) -> Response:
    """Makes a project of the organization, and goes on to its page."""
    organization_id: str = request.path_params["organization_id"]
    fields = await read_form(request)
    try:
        made = await services_of(request).tenants.create_project(
            organization_id, fields.get("name", "")
        )
    except LowtideError as error:
        return await show(request, f"{ORGANIZATIONS}/{organization_id}", error)
    set_audit_subject(request, made.id)
    return go_to(request, f"{PROJECTS}/{made.id}")


@told_on_a_page
async def create_key(request: Request) -> Response:
    """Makes a key, and shows it this once."""
    project_id: str = request.path_params["project_id"]
    fields, page = await read_form(request), f"{PROJECTS}/{project_id}"
    try:
        made = await services_of(request).tenants.create_key(
            project_id,
            fields.get("name", ""),
            scopes=[each for each in SCOPES if f"scope_{each}" in fields],
            expires_at=_day(fields.get("expires", "").strip()),
        )
    except LowtideError as error:
        return await show(request, page, error)
    set_audit_subject(request, made.key.id)
    return await show_secret(request, page, made=new_key_object(made.key, made.credential))


@told_on_a_page
async def revoke_key(request: Request) -> Response:
    """Refuses the key from now on."""
    project_id: str = request.path_params["project_id"]
    await read_form(request)
    try:
        await services_of(request).tenants.revoke_key(request.path_params["key_id"])
    except LowtideError as error:
        return await show(request, f"{PROJECTS}/{project_id}", error)
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
