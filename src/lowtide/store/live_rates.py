"""`ports.live_rates.LiveRateStore` over SQL: a row per pool in use, a row per process.

Invariant: pools change only together with a lock on one name, so a process never takes what another
one has taken. Pools that are full again are forgotten.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.accounts.rate_limit import Kind, PoolName
from lowtide.core.accounts.shared_pool import Exchange, Pool, PoolReport, settle
from lowtide.limits import (
    LIVE_BUCKETS_MAX,
    LIVE_POOL_KEEP_S,
    LIVE_SHARE_GONE_S,
    STORE_KEYS_PER_STATEMENT,
)
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import insert_or_replace, lock_name
from lowtide.store.schema.rate_tables import live_pools, live_processes

_LOCK: Final = "live rates"
_GONE: Final = timedelta(seconds=LIVE_SHARE_GONE_S)
_KEPT: Final = timedelta(seconds=LIVE_POOL_KEEP_S)


class SqlLiveRates(Transactional):
    """Rate pools of live calls."""

    async def exchange(
        self, process_id: str, reports: Sequence[PoolReport], *, since: datetime, now: datetime
    ) -> Exchange:
        async with self._db.write() as conn:
            await lock_name(conn, _LOCK)
            await insert_or_replace(conn, live_processes, [{"id": process_id, "seen_at": now}])
            await conn.execute(delete(live_processes).where(live_processes.c.seen_at < now - _GONE))
            processes = await _processes(conn, now)
            settled, taken = await _settle(conn, reports, processes, now)
            await conn.execute(delete(live_pools).where(live_pools.c.at < now - _KEPT))
            changed = await _changed(conn, since) | settled
        return Exchange(processes=processes, taken=taken, changed=changed)

    async def read(self, *, since: datetime, now: datetime) -> Exchange:
        async with self._db.read() as conn:
            processes = await _processes(conn, now)
            return Exchange(processes=processes, taken={}, changed=await _changed(conn, since))

    async def leave(self, process_id: str, reports: Sequence[PoolReport], now: datetime) -> None:
        async with self._db.write() as conn:
            await lock_name(conn, _LOCK)
            await conn.execute(delete(live_processes).where(live_processes.c.id == process_id))
            # Nothing is asked for, so nothing is taken, however many processes there are.
            await _settle(conn, reports, await _processes(conn, now), now)


async def _processes(conn: AsyncConnection, now: datetime) -> int:
    """Those that are alive, and at least the one that asks."""
    alive = live_processes.c.seen_at >= now - _GONE
    value = await conn.scalar(select(func.count()).select_from(live_processes).where(alive))
    return max(1, value or 0)


async def _settle(
    conn: AsyncConnection, reports: Sequence[PoolReport], processes: int, now: datetime
) -> tuple[dict[PoolName, Pool], dict[PoolName, Mapping[Kind, float]]]:
    """The pools of the reports afterwards, and what was taken of each."""
    before: dict[PoolName, Pool] = {}
    for names in _by_statement([report.name for report in reports]):
        these = tuple_(live_pools.c.key_id, live_pools.c.model).in_(names)
        before |= _pools(await conn.execute(select(live_pools).where(these)))
    after: dict[PoolName, Pool] = {}
    taken: dict[PoolName, Mapping[Kind, float]] = {}
    for report in sorted(reports, key=lambda each: each.name):
        after[report.name], taken[report.name] = settle(
            before.get(report.name), report, processes, now
        )
    rows = [
        {
            "key_id": key_id,
            "model": model,
            "at": pool.at,
            "requests": pool.requests,
            "tokens": pool.tokens,
        }
        for (key_id, model), pool in after.items()
    ]
    await insert_or_replace(conn, live_pools, rows)
    return after, taken


async def _changed(conn: AsyncConnection, since: datetime) -> dict[PoolName, Pool]:
    """Pools that changed then or later; the newest, if there are very many."""
    newest = select(live_pools).where(live_pools.c.at >= since).order_by(live_pools.c.at.desc())
    return _pools(await conn.execute(newest.limit(LIVE_BUCKETS_MAX)))


def _pools(rows: Any) -> dict[PoolName, Pool]:
    def pool(row: Row[Any]) -> Pool:
        return Pool(row.at, row.requests, row.tokens)

    return {(row.key_id, row.model): pool(row) for row in rows}


def _by_statement(names: Sequence[PoolName]) -> Iterator[Sequence[PoolName]]:
    """Groups of names that fit one statement, two parameters each."""
    size = STORE_KEYS_PER_STATEMENT // 2
    for begin in range(0, len(names), size):
        yield names[begin : begin + size]
