"""What pools get done, kept in the transaction of each commit: recent throughputs, and forecasts.

Called inside the transactions of commits, claims and plans, and by capacity.py. Invariant: a
model's row is locked while it is read and moved on, so the commits of many workers add up.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, bindparam, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.execution.records import Settlement
from lowtide.core.execution.settled_work import SettledWork
from lowtide.core.scheduling.forecast import Done, Hour, HourOfWeek, Throughput
from lowtide.limits import PACE_IDLE_S
from lowtide.store.connection.dialect import insert_missing
from lowtide.store.schema.schedule_tables import forecast_hours, throughputs
from lowtide.store.schema.tables import LEASED, WAITING, chunks

_SAVE: Final = (
    update(throughputs)
    .where(throughputs.c.model == bindparam("of_model"))
    .values({each.name: bindparam(each.name) for each in throughputs.c if each.name != "model"})
)
_IS_BACKLOGGED: Final = select(
    exists().where(chunks.c.model == bindparam("of_model"), chunks.c.state == WAITING)
)


async def record_throughput(
    conn: AsyncConnection,
    settlement: Settlement,
    work: Mapping[tuple[str, str], SettledWork],
    now: datetime,
) -> None:
    """Counts what a commit settled into its models' throughputs."""
    done: dict[str, Done] = defaultdict(Done)
    for (batch_id, model), settled in settlement.models.items():
        so_far = done[model]
        done[model] = Done(
            so_far.work + work[batch_id, model].actual,
            so_far.requests + settled.completed,
            so_far.output_tokens + settled.usage.output_tokens,
        )
    known = await _lock(conn, sorted(done))
    for model, more in sorted(done.items()):
        before = known.get(model)
        if before is None:  # what was done until now began at an unknown time
            await insert_missing(
                conn, throughputs, [{"model": model} | _values(Throughput.begin(now))]
            )
            continue
        backlogged = bool(await conn.scalar(_IS_BACKLOGGED, {"of_model": model}))
        pace, closed = before.after(more, now, backlogged=backlogged)
        await _save(conn, model, pace)
        if closed is not None:
            await _learn(conn, model, *closed)


async def restart_clock(conn: AsyncConnection, models: Collection[str], now: datetime) -> None:
    """Starts the clock of each model that runs nothing: chunks are about to be leased."""
    stale = now - timedelta(seconds=PACE_IDLE_S)
    known = {
        row.model: row.at
        for row in await conn.execute(
            select(throughputs.c.model, throughputs.c.at).where(
                throughputs.c.model.in_(sorted(models))
            )
        )
    }
    for model in sorted(models):
        if model not in known:
            await insert_missing(
                conn, throughputs, [{"model": model} | _values(Throughput.begin(now))]
            )
        elif known[model] < stale:
            runs = exists().where(chunks.c.model == model, chunks.c.state == LEASED)
            await conn.execute(
                update(throughputs)
                .where(throughputs.c.model == model, throughputs.c.at < stale, ~runs)
                .values(at=now)
            )


async def all_throughputs(conn: AsyncConnection) -> dict[str, Throughput]:
    return {row.model: _pace_of(row) for row in await conn.execute(select(throughputs))}


async def all_cells(conn: AsyncConnection) -> dict[str, dict[int, HourOfWeek]]:
    cells: dict[str, dict[int, HourOfWeek]] = defaultdict(dict)
    for row in await conn.execute(select(forecast_hours)):
        cells[row.model][row.hour_of_week] = HourOfWeek(row.p20, row.p50, row.weeks)
    return cells


async def output_per_request(conn: AsyncConnection, models: Iterable[str]) -> dict[str, float]:
    """Mean output tokens of the recent answers of those models that have answered enough."""
    rows = await conn.execute(select(throughputs).where(throughputs.c.model.in_(sorted(models))))
    means = {row.model: _pace_of(row).output_per_request for row in rows}
    return {model: mean for model, mean in means.items() if mean is not None}


async def _lock(conn: AsyncConnection, models: Collection[str]) -> dict[str, Throughput]:
    if not models:
        return {}
    rows = await conn.execute(
        select(throughputs)
        .where(throughputs.c.model.in_(models))
        .order_by(throughputs.c.model)
        .with_for_update(key_share=True)
    )
    return {row.model: _pace_of(row) for row in rows}


async def _save(conn: AsyncConnection, model: str, pace: Throughput) -> None:
    await conn.execute(_SAVE, {"of_model": model} | _values(pace))


async def _learn(conn: AsyncConnection, model: str, cell: int, rate: float) -> None:
    """Updates the forecast by an hour under load that is over."""
    this = (forecast_hours.c.model == model) & (forecast_hours.c.hour_of_week == cell)
    row = (await conn.execute(select(forecast_hours).where(this))).one_or_none()
    if row is None:
        first = {"model": model, "hour_of_week": cell, "p20": rate, "p50": rate, "weeks": 1}
        await insert_missing(conn, forecast_hours, [first])
        return
    learned = HourOfWeek(row.p20, row.p50, row.weeks).learned(rate)
    await conn.execute(
        update(forecast_hours)
        .where(this)
        .values(p20=learned.p20, p50=learned.p50, weeks=learned.weeks)
    )


def _pace_of(row: Row[Any]) -> Throughput:
    return Throughput(
        at=row.at,
        work=row.work,
        seconds=row.seconds,
        requests=row.requests,
        output_tokens=row.output_tokens,
        hour=Hour(row.hour_at, row.hour_work, row.hour_seconds),
    )


def _values(pace: Throughput) -> dict[str, Any]:
    return {
        "at": pace.at,
        "work": pace.work,
        "seconds": pace.seconds,
        "requests": pace.requests,
        "output_tokens": pace.output_tokens,
        "hour_at": pace.hour.at,
        "hour_work": pace.hour.work,
        "hour_seconds": pace.hour.seconds,
    }
