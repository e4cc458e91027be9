"""The usage report: what was used and charged, by day, model and project; JSON or CSV.

A key sees its own project. With the scope `admin` it may name any project or organization; to
everybody else another project is an unknown one.
"""

import csv
import io
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, get_args

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.dialects import money
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import Caller, identify, services_of
from lowtide.api.openapi.refusals import answers
from lowtide.core.accounts.ledger import Cost, UsageRow
from lowtide.core.errors import LowtideError
from lowtide.ports.accounts import GroupBy
from lowtide.service.accounts.usage import UsageReport

router = APIRouter(tags=["usage"])

ALL: Final = "all"
"""As an organization's id: every organization."""


class UsageAmounts(BaseModel):
    """Amounts are decimal strings in dollars."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int
    unreported_requests: int
    currency: str
    amount: str
    live_amount: str
    saved: str


class UsageLine(UsageAmounts):
    """Only the keys that were grouped by are there."""

    day: str | None = None
    model: str | None = None
    project_id: str | None = None


class UsageObject(BaseModel):
    """Days are those of UTC."""

    object: Literal["usage"]
    since: str
    until: str
    group_by: list[str]
    data: list[UsageLine]
    total: UsageAmounts


_CSV: Final = {"text/csv": {"schema": {"type": "string"}}}
_RESPONSES: Final = answers(
    UsageObject, "invalid_request", "project_not_found", "insufficient_scope"
)
_RESPONSES[200]["content"] = _CSV


@router.get("/v1/usage", responses=_RESPONSES)
async def report(
    request: Request,
    since: str | None = None,
    until: str | None = None,
    group_by: str = "day,model",
    format: Annotated[Literal["json", "csv"], Query()] = "json",
    project_id: str | None = None,
    organization_id: str | None = None,
) -> Response:
    """Charges of `since <= t < until` (a date, an ISO instant or unix seconds), this month's
    unless said otherwise.
    """
    found = await services_of(request).usage.report(
        since=_instant(since, "since"),
        until=_instant(until, "until"),
        group_by=_groups(group_by),
        **_subject(identify(request), project_id, organization_id),
    )
    if format == "csv":
        name = f"usage-{found.since:%Y%m%d}-{found.until:%Y%m%d}.csv"
        return Response(
            _as_csv(found),
            media_type="text/csv",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )
    return json_response(_as_object(found))


def _subject(
    caller: Caller, project_id: str | None, organization_id: str | None
) -> dict[str, str | None]:
    """Whose usage: of the caller's project, unless an administrator names another."""
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


def _instant(text: str | None, param: str) -> datetime | None:
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


def _as_object(found: UsageReport) -> dict[str, Any]:
    return {
        "object": "usage",
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
        "group_by": list(found.group_by),
        "data": [{**_keys(row, found.group_by), **_sums(row.cost)} for row in found.rows],
        "total": _sums(found.total),
    }


def _as_csv(found: UsageReport) -> str:
    """A header, then a line for each row; the total is left to the reader's own sum."""
    stream = io.StringIO()
    columns = [*_columns(found.group_by), *_sums(Cost())]
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in found.rows:
        writer.writerow({**_keys(row, found.group_by), **_sums(row.cost)})
    return stream.getvalue()


def _columns(group_by: tuple[GroupBy, ...]) -> list[str]:
    return ["project_id" if group == "project" else group for group in group_by]


def _keys(row: UsageRow, group_by: tuple[GroupBy, ...]) -> dict[str, str | None]:
    known = {
        "day": row.day.isoformat() if row.day else None,
        "model": row.model,
        "project_id": row.project_id,
    }
    return {column: known[column] for column in _columns(group_by)}


def _sums(cost: Cost) -> dict[str, Any]:
    return {
        "requests": cost.requests,
        **money.tokens(cost.usage),
        **money.amounts(cost.charge_pico, cost.live_pico),
    }
