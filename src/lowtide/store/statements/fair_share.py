"""Virtual time in the database: what each organization was given of each model's pool.

Called inside the transactions that move chunks: a claim charges what chunks are estimated to cost,
a commit corrects it to what they did cost, what takes a chunk back takes the charge back. An
organization whose work begins (a plan, the end of a pause) is lifted to the least of those that are
at work. Invariants: a leased chunk is charged for its unsettled requests, any other for none; rows
are locked last, in order, so that no two transactions wait for each other.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import BindParameter, Float, Integer, Row, Select, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.scheduling.fair_queue import Tenant
from lowtide.store.connection.dialect import insert_missing
from lowtide.store.schema.columns import WORD
from lowtide.store.schema.schedule_tables import virtual_times
from lowtide.store.schema.tables import LEASED, WAITING, chunks, organizations

Costs = Mapping[tuple[str, str], float]
"""Work units by (model, organization); negative where charges are taken back."""


def cost_per_request(chunk: Row[Any]) -> float:
    """What a request of the chunk is estimated to cost."""
    per_request: float = chunk.cost / chunk._mapping["count"]  # a Row has a method of that name
    return per_request


def cost_left(chunk: Row[Any]) -> float:
    """What the chunk's unsettled requests are estimated to cost."""
    return cost_per_request(chunk) * int(chunk._mapping["count"] - chunk.settled)


async def tenants_of(
    conn: AsyncConnection, models: Collection[str], names: Collection[str]
) -> dict[str, Tenant]:
    """The organizations of `names`, with what they were given of all these models together."""
    result = await conn.execute(
        select(organizations.c.id, organizations.c.weight, func.sum(virtual_times.c.virtual_time))
        .outerjoin(
            virtual_times,
            (virtual_times.c.organization_id == organizations.c.id)
            & virtual_times.c.model.in_(sorted(models)),
        )
        .where(organizations.c.id.in_(sorted(names)))
        .group_by(organizations.c.id, organizations.c.weight)
    )
    return {row[0]: Tenant(float(row[2] or 0.0), float(row[1] or 1)) for row in result}


def waiting_organizations(model: str | BindParameter[str]) -> Select[Any]:
    """Organizations with waiting chunks of the model.

    One step in `chunks_waiting_by_organization` for each.
    """
    waiting = (chunks.c.model == model) & (chunks.c.state == WAITING)
    least = (
        select(chunks.c.organization_id).where(waiting).order_by(chunks.c.organization_id).limit(1)
    )
    found = select(least.scalar_subquery().label("id")).cte("found", recursive=True)
    following = least.where(chunks.c.organization_id > found.c.id).scalar_subquery()
    found = found.union_all(select(following).where(found.c.id.is_not(None)))
    return select(found.c.id).where(found.c.id.is_not(None))


def _first_tenants() -> Select[Any]:
    """The statement of `first_tenants`, made once: making it costs more than running it."""
    names = waiting_organizations(bindparam("of_model", type_=WORD)).subquery()
    given = func.coalesce(virtual_times.c.virtual_time, 0.0)
    return (
        select(names.c.id, given, func.coalesce(organizations.c.weight, 1))
        .join(organizations, organizations.c.id == names.c.id)
        .outerjoin(
            virtual_times,
            (virtual_times.c.organization_id == names.c.id)
            & (virtual_times.c.model == bindparam("of_model", type_=WORD)),
        )
        .order_by(given, names.c.id)
        .limit(bindparam("most", type_=Integer))
    )


_FIRST_TENANTS: Final = _first_tenants()
_WEIGHT: Final = select(func.coalesce(organizations.c.weight, 1)).where(
    organizations.c.id == bindparam("of_organization")
)
_MOVE: Final = (
    update(virtual_times)
    .where(
        virtual_times.c.model == bindparam("of_model"),
        virtual_times.c.organization_id == bindparam("of_organization"),
    )
    .values(
        virtual_time=virtual_times.c.virtual_time
        + bindparam("cost", type_=Float) / _WEIGHT.scalar_subquery()
    )
)


async def first_tenants(conn: AsyncConnection, model: str, most: int) -> dict[str, Tenant]:
    """The organizations that wait for the model, those first that were given the least."""
    result = await conn.execute(_FIRST_TENANTS, {"of_model": model, "most": most})
    return {name: Tenant(float(given), float(weight)) for name, given, weight in result}


async def charge(conn: AsyncConnection, costs: Costs, floors: Costs = MappingProxyType({})) -> None:
    """Moves the virtual times of those organizations by that work, over their weights, and lifts
    others to those floors."""
    for key in sorted({key for key, cost in costs.items() if cost} | floors.keys()):
        if cost := costs.get(key):
            await _move(conn, key, cost)
        if key in floors:
            await _raise(conn, key, floors[key])


def charges(rows: Iterable[Row[Any]]) -> dict[tuple[str, str], float]:
    """What leasing these chunks is charged, which is what is taken back when they are not run."""
    costs: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        costs[row.model, row.organization_id] += cost_left(row)
    return costs


async def lift(conn: AsyncConnection, organization_id: str, models: Iterable[str]) -> None:
    """Lifts the virtual time of an organization whose work on those models begins: idle time earns
    no credit. Called before its chunks wait.

    It is lifted to the least of those at work; where there is none, to the most that any was given:
    then all begin alike.
    """
    models = sorted(models)
    await _begin(conn, [(model, organization_id) for model in models])
    for model in models:
        leased = select(chunks.c.organization_id).where(
            chunks.c.model == model, chunks.c.state == LEASED
        )
        at_work = set((await conn.scalars(waiting_organizations(model))).all())
        at_work |= set((await conn.scalars(leased.distinct())).all())
        if organization_id not in at_work:
            await _raise(conn, (model, organization_id), await _floor(conn, model, at_work))


async def _floor(conn: AsyncConnection, model: str, at_work: Collection[str]) -> float:
    given = await conn.execute(
        select(virtual_times.c.organization_id, virtual_times.c.virtual_time).where(
            virtual_times.c.model == model
        )
    )
    known = {row[0]: float(row[1]) for row in given}
    if at_work:
        return min(known.get(name, 0.0) for name in at_work)
    return max(known.values(), default=0.0)


async def _move(conn: AsyncConnection, key: tuple[str, str], cost: float) -> None:
    by = {"of_model": key[0], "of_organization": key[1], "cost": cost}
    if not (await conn.execute(_MOVE, by)).rowcount:
        await _begin(conn, [key])
        await conn.execute(_MOVE, by)


async def _raise(conn: AsyncConnection, key: tuple[str, str], floor: float) -> None:
    model, organization_id = key
    await conn.execute(
        update(virtual_times)
        .filter_by(model=model, organization_id=organization_id)
        .where(virtual_times.c.virtual_time < floor)
        .values(virtual_time=floor)
    )


async def _begin(conn: AsyncConnection, keys: Collection[tuple[str, str]]) -> None:
    """Makes the rows that are missing: a new organization was given nothing."""
    rows = [{"model": model, "organization_id": name, "virtual_time": 0.0} for model, name in keys]
    await insert_missing(conn, virtual_times, rows)
