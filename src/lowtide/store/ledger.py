"""`ports.accounts.LedgerStore` over SQL: sums over the ledger, exact.

Called by the verbs that show cost and usage. Databases sum in 64 bits, which end at 9.2 million
dollars in pico-dollars: so charges are summed as dollars and remainders, and what tokens would have
cost live is multiplied here, from the sums of tokens at each price. Invariant: no sum is rounded or
cut off.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Row, Select, bindparam, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.accounts.ledger import Cost, LedgerEntry, UsageRow
from lowtide.core.accounts.money import PICO_PER_DOLLAR
from lowtide.ports.accounts import GroupBy
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.rows import USAGE_FIELDS, entry_of, prices_of_row, usage_of_row, values_of
from lowtide.store.schema.tables import batches, ledger, organizations, spend
from lowtide.store.statements.spending import month_of, resume_below_cap

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS_PER_DAY: Final = 24 * 3600 * 10**6
_LIVE: Final = (ledger.c.live_input, ledger.c.live_cached, ledger.c.live_output)
_GROUPS: Final[Mapping[GroupBy, ColumnElement[Any]]] = {
    "day": (type_coerce(ledger.c.at, BigInteger) // _MICROSECONDS_PER_DAY).label("day"),
    "model": ledger.c.model,
    "project": ledger.c.project_id,
}
_CHARGE: Final = (
    func.sum(ledger.c.charge_pico // PICO_PER_DOLLAR).label("charge_dollars"),
    func.sum(ledger.c.charge_pico % PICO_PER_DOLLAR).label("charge_rest"),
)
# The running sums that commits keep: a batch that is polled has many thousand entries.
_COSTS: Final = select(batches.c.id, batches.c.cost).where(
    batches.c.id.in_(bindparam("of_batches", expanding=True)), batches.c.cost.is_not(None)
)
_SUMS: Final = (
    func.sum(ledger.c.requests).label("requests"),
    *(func.sum(ledger.c[field]).label(field) for field in USAGE_FIELDS),
    *_CHARGE,
)


class SqlLedger(Transactional):
    """Sums over the ledger."""

    async def cost(self, batch_ids: Sequence[str]) -> Mapping[str, Cost]:
        async with self._db.read() as conn:
            rows = await conn.execute(_COSTS, {"of_batches": list(batch_ids)})
            return {row.id: row.cost for row in rows}

    async def cost_by_model(self, batch_id: str) -> Mapping[str, Cost]:
        by = (ledger.c.model, *_LIVE)
        statement = select(*by, *_SUMS).where(ledger.c.batch_id == batch_id).group_by(*by)
        costs: dict[str, Cost] = {}
        async with self._db.read() as conn:
            for row in await conn.execute(statement.order_by(*by)):
                costs[row.model] = costs.get(row.model, Cost()) + _cost_of(row)
        return costs

    async def entries(self, batch_id: str) -> list[LedgerEntry]:
        mine = select(ledger).where(ledger.c.batch_id == batch_id)
        async with self._db.read() as conn:
            rows = (await conn.execute(mine.order_by(ledger.c.seq, ledger.c.model))).all()
        return [entry_of(row) for row in rows]

    async def usage(
        self,
        *,
        since: datetime,
        until: datetime,
        group_by: Sequence[GroupBy],
        organization_id: str | None = None,
        project_id: str | None = None,
    ) -> list[UsageRow]:
        statement = usage_statement(since, until, group_by, organization_id, project_id)
        costs: dict[tuple[Any, ...], Cost] = {}
        async with self._db.read() as conn:
            for row in await conn.execute(statement):
                key = tuple(row[: len(group_by)])
                costs[key] = costs.get(key, Cost()) + _cost_of(row)
        return [_usage_row(group_by, key, costs[key]) for key in sorted(costs)]

    async def spent_pico(self, organization_id: str, since: datetime) -> int:
        month_ends_at = _next_month(since)
        whole = since == _month_start(since)
        own = spend.c.organization_id == organization_id
        from_month = month_of(since if whole else month_ends_at)
        async with self._db.read() as conn:
            months = await conn.scalars(
                select(spend.c.charge_pico).where(own, spend.c.month >= from_month)
            )
            spent: int = sum(months)
            if not whole:
                spent += await _charged(conn, organization_id, since, month_ends_at)
        return spent

    async def unpause(self, now: datetime) -> list[str]:
        async with self._db.write() as conn:
            return await resume_below_cap(conn, now)


def usage_statement(
    since: datetime,
    until: datetime,
    group_by: Sequence[GroupBy],
    organization_id: str | None,
    project_id: str | None,
) -> Select[Any]:
    """Sums by the groups and, within them, by live price.

    Read along the index `ledger_by_organization`.
    """
    groups = [_GROUPS[name] for name in group_by]
    where = [ledger.c.at >= since, ledger.c.at < until]
    if organization_id is None:
        where.append(ledger.c.organization_id.in_(select(organizations.c.id)))
    else:
        where.append(ledger.c.organization_id == organization_id)
    if project_id is not None:
        where.append(ledger.c.project_id == project_id)
    return select(*groups, *_LIVE, *_SUMS).where(*where).group_by(*groups, *_LIVE)


def _cost_of(row: Row[Any]) -> Cost:
    values = values_of(row)
    usage = usage_of_row({field: int(values[field]) for field in USAGE_FIELDS})
    return Cost(
        requests=int(row.requests),
        usage=usage,
        charge_pico=int(row.charge_dollars) * PICO_PER_DOLLAR + int(row.charge_rest),
        live_pico=prices_of_row(values, "live").charge(usage),
    )


def _usage_row(group_by: Sequence[GroupBy], key: tuple[Any, ...], cost: Cost) -> UsageRow:
    by = dict(zip(group_by, key, strict=True))
    day = None if "day" not in by else (_EPOCH + timedelta(days=by["day"])).date()
    return UsageRow(day=day, model=by.get("model"), project_id=by.get("project"), cost=cost)


def _month_start(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(at: datetime) -> datetime:
    return _month_start(_month_start(at) + timedelta(days=31))


async def _charged(
    conn: AsyncConnection, organization_id: str, since: datetime, until: datetime
) -> int:
    dollars, rest = (
        await conn.execute(
            select(*_CHARGE).where(
                ledger.c.organization_id == organization_id,
                ledger.c.at >= since,
                ledger.c.at < until,
            )
        )
    ).one()
    return int(dollars or 0) * PICO_PER_DOLLAR + int(rest or 0)
