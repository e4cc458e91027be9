"""What the pages of "Administration" show: organizations with limits, projects, keys.

The objects are those of `/v1/admin`, and for the same scope.
"""

from typing import Any

from starlette.requests import Request

from lowtide.api.accounts.admin_objects import (
    key_object,
    organization_object,
    project_object,
)
from lowtide.api.middleware.caller import identify, require, services_of
from lowtide.core.accounts.tenancy import SCOPES, OrganizationLimits
from lowtide.service.accounts.tenants import DEFAULT_SCOPES, TenantService


async def load_organizations(request: Request) -> dict[str, Any]:
    """Every organization, with how many projects it has."""
    tenants = _tenants(request)
    projects = await tenants.projects()
    return {
        "organizations": [
            {
                "its": organization_object(each),
                "projects": sum(project.organization_id == each.id for project in projects),
            }
            for each in await tenants.organizations()
        ]
    }


async def load_organization(request: Request, organization_id: str) -> dict[str, Any]:
    """One organization: its limits and its projects."""
    services, tenants = services_of(request), _tenants(request)
    organization = organization_object(await tenants.organization(organization_id))
    defaults = services.allowance.defaults
    return {
        "organization": organization,
        "limits": [
            {
                "name": name,
                "own": getattr(organization.limits, name),
                "default": getattr(defaults, name, None),
            }
            for name in OrganizationLimits.__struct_fields__
        ],
        "projects": [project_object(each) for each in await tenants.projects(organization_id)],
    }


async def load_project(request: Request, project_id: str) -> dict[str, Any]:
    """One project and its keys, newest first. `made`: a key that was made just now."""
    tenants = _tenants(request)
    project = project_object(await tenants.project(project_id))
    return {
        "shown_project": project,
        "organization": organization_object(await tenants.organization(project.organization_id)),
        "keys": [key_object(each) for each in await tenants.keys(project_id)],
        "now": int(services_of(request).files.now().timestamp()),
        "scopes": sorted(SCOPES),
        "default_scopes": DEFAULT_SCOPES,
        "made": None,
    }


def _tenants(request: Request) -> TenantService:
    """The verbs on tenants. Raises LowtideError `insufficient_scope` for all but administrators."""
    require(identify(request), ("admin",))
    return services_of(request).tenants
