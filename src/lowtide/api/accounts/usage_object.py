"""The usage report as its route and the operator's command show it, and what a batch has cost."""

from collections.abc import Mapping
from typing import Any

import msgspec

from lowtide.api.dialects import money
from lowtide.api.objects.accounts import BatchCosts, UsageAmounts, UsageLine, UsageObject
from lowtide.core.accounts.ledger import Cost, UsageRow
from lowtide.ports.accounts import GroupBy
from lowtide.service.accounts.usage import UsageReport


def usage_object(usage: UsageReport) -> UsageObject:
    return UsageObject(
        since=usage.since.isoformat(),
        until=usage.until.isoformat(),
        group_by=list(usage.group_by),
        data=[_line(row, usage) for row in usage.rows],
        total=UsageAmounts(**sums_of(usage.total)),
    )


def batch_costs(batch_id: str, by_model: Mapping[str, Cost]) -> BatchCosts:
    """What a batch has cost so far, by model."""
    lines = (UsageLine(model=model, **sums_of(cost)) for model, cost in by_model.items())
    total = UsageAmounts(**sums_of(sum(by_model.values(), Cost())))
    return BatchCosts(batch_id=batch_id, data=tuple(lines), total=total)


def _line(row: UsageRow, usage: UsageReport) -> UsageLine:
    fields: dict[str, Any] = {**keys_of(row, usage.group_by), **sums_of(row.cost)}
    return UsageLine(**fields)


def columns_of(group_by: tuple[GroupBy, ...]) -> list[str]:
    return ["project_id" if group == "project" else group for group in group_by]


def keys_of(row: UsageRow, group_by: tuple[GroupBy, ...]) -> dict[str, str | None]:
    known = {
        "day": row.day.isoformat() if row.day else None,
        "model": row.model,
        "project_id": row.project_id,
    }
    return {column: known[column] for column in columns_of(group_by)}


def sums_of(cost: Cost) -> dict[str, Any]:
    amounts = money.amounts(cost.charge_pico, cost.live_pico)
    return {
        "requests": cost.requests,
        **money.tokens(cost.usage),
        **msgspec.structs.asdict(amounts),
    }
