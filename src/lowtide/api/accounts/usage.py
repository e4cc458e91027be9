"""The usage report: what was used and charged, by day, model and project; JSON or CSV.

A key sees its own project. With the scope `admin` it may name any project or organization; to every
other caller, another project is an unknown one.
"""

import csv
import io
import re
from datetime import UTC, datetime
from typing import Final, Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.accounts.usage_object import columns_of, keys_of, sums_of, usage_object
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import Caller, identify, services_of
from lowtide.api.objects.accounts import UsageObject
from lowtide.api.openapi.answers import JSON, TEXT, DescribedAnswer, refusals
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.core.accounts.ledger import Cost
from lowtide.core.errors import LowtideError
from lowtide.ports.accounts import GroupBy
from lowtide.service.accounts.usage import UsageReport

routes = Routes("usage")

ALL: Final = "all"
"""Stands for every organization where an organization's id is expected."""


class AskedUsage(msgspec.Struct, frozen=True):
    """The query of a report."""

    since: str = ""
    until: str = ""
    group_by: str = "day,model"
    format: Literal["json", "csv"] = "json"
    project_id: str = ""
    organization_id: str = ""


@routes.add(
    "GET",
    "/v1/usage",
    {
        200: DescribedAnswer(content={JSON: UsageObject, "text/csv": TEXT}),
        **refusals("invalid_request", "project_not_found", "insufficient_scope"),
    },
    parameters=AskedUsage,
)
async def report(request: Request) -> Response:
    """Charges of `since <= t < until` (a date, an ISO instant or unix seconds), this month's
    unless said otherwise.
    """
    asked = read_query(request, AskedUsage)
    usage = await report_of(request, asked)
    if asked.format == "csv":
        name = f"usage-{usage.since:%Y%m%d}-{usage.until:%Y%m%d}.csv"
        return Response(
            _as_csv(usage),
            media_type="text/csv",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )
    return json_response(usage_object(usage))


async def report_of(request: Request, asked: AskedUsage) -> UsageReport:
    """What is asked for, as far as the caller may see it. Raises LowtideError."""
    return await services_of(request).usage.report(
        since=_instant(asked.since, "since"),
        until=_instant(asked.until, "until"),
        group_by=_groups(asked.group_by),
        **_subject(identify(request), asked.project_id, asked.organization_id),
    )


def _subject(caller: Caller, project_id: str, organization_id: str) -> dict[str, str | None]:
    """The project or organization to report on: the caller's project, unless an administrator names
    another. Raises LowtideError `insufficient_scope`, `project_not_found`.
    """
    if "admin" in caller.scopes and (project_id or organization_id):
        organization = None if organization_id == ALL else organization_id
        return {"organization_id": organization or None, "project_id": project_id or None}
    if organization_id:
        raise LowtideError(
            "insufficient_scope",
            "An organization's usage needs a key with the scope 'admin'; leave organization_id out"
            " for that of your project.",
        )
    if project_id and project_id != caller.project_id:
        raise LowtideError(
            "project_not_found", f"No project found with id '{project_id}'.", "project_id"
        )
    return {"project_id": caller.project_id}


def _groups(text: str) -> tuple[GroupBy, ...]:
    named = [part.strip() for part in text.split(",") if part.strip()]
    groups = tuple(group for group in get_args(GroupBy) if group in named)
    if len(groups) < len(set(named)):
        raise LowtideError(
            "invalid_request",
            f"group_by takes {', '.join(get_args(GroupBy))}, joined by commas.",
            "group_by",
        )
    return groups


def _instant(text: str, param: str) -> datetime | None:
    if not text:
        return None
    try:
        if re.fullmatch(r"[0-9]{1,12}", text):
            return datetime.fromtimestamp(int(text), UTC)
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise LowtideError(
            "invalid_request",
            f"{param} must be a date (2026-11-21), an ISO 8601 instant or unix seconds.",
            param,
        ) from None


def _as_csv(usage: UsageReport) -> str:
    """A header, then a line for each row; the total is left to the reader's own sum."""
    stream = io.StringIO()
    columns = [*columns_of(usage.group_by), *sums_of(Cost())]
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in usage.rows:
        writer.writerow({**keys_of(row, usage.group_by), **sums_of(row.cost)})
    return stream.getvalue()
