"""What the page "Usage" shows: tokens and money by day, model and project, and the limits.

The numbers are those of `GET /v1/usage` and `GET /v1/limits`, asked for with the page's own query.
"""

from datetime import timedelta
from typing import Any

import msgspec
from starlette.requests import Request

from lowtide.api.accounts.limits import limit_objects
from lowtide.api.accounts.usage import ALL, AskedUsage, report_of
from lowtide.api.accounts.usage_object import usage_object
from lowtide.api.middleware.caller import Caller, identify, services_of
from lowtide.api.openapi.routes import read_query
from lowtide.service.accounts.quotas import month_of

_SPANS = (("30 days", 30), ("90 days", 90), ("A year", 365))


async def load_usage(request: Request) -> dict[str, Any]:
    """The charges of a span, this month's unless the query says otherwise, summed three ways."""
    asked = read_query(request, AskedUsage)
    services, caller = services_of(request), identify(request)
    reports = {
        by: usage_object(await report_of(request, msgspec.structs.replace(asked, group_by=by)))
        for by in ("day", "model", "project")
    }
    by_day, now = reports["day"], services.files.now()
    project_names: dict[str, str] = {}
    if len(reports["project"].data) > 1 or asked.organization_id or asked.project_id:
        project_names = {each.id: each.name for each in await services.tenants.projects()}
    return {
        "since": by_day.since[:10],
        "until": asked.until[:10],
        "organization_id": asked.organization_id,
        "project_id": asked.project_id,
        "organizations": await _organizations(request, caller),
        "all_organizations": ALL,
        "project_names": project_names,
        "total": by_day.total,
        "days": by_day.data,
        "models": reports["model"].data,
        "projects": reports["project"].data,
        "spans": [
            ("This month", f"{month_of(now):%Y-%m-%d}"),
            *((name, f"{now - timedelta(days=days):%Y-%m-%d}") for name, days in _SPANS),
        ],
        "limits": await limit_objects(request),
    }


async def _organizations(request: Request, caller: Caller) -> list[Any]:
    """Whose usage the caller may ask for, beside that of its own project."""
    if "admin" not in caller.scopes:
        return []
    return await services_of(request).tenants.organizations()
