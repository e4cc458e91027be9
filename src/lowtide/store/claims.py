"""Which chunks a claim takes: the head of the queue, and of no organisation more than it may run.

Called by work.py, inside its transaction. Two indexes hold the queue: all of a model's chunks in
the order of claims, and the same organisation by organisation. A claim reads the first entries of
the first one. Only when that head holds chunks of an organisation that runs all it may, so that
others might wait behind them, it reads the head of each other organisation's queue instead. So the
cost grows with the organisations that wait for the model, and never with the chunks.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.dialect import lock_name
from lowtide.store.schema import CLAIM_ORDER, LEASED, WAITING, chunks, organizations


class _Bounds(msgspec.Struct, frozen=True):
    """Requests that organisations may have in flight, and that they have."""

    default: int | None
    own: Mapping[str, int]
    in_flight: Mapping[str, int]

    def room(self, organization_id: str) -> int | None:
        """Requests it may still start; a chunk fits while that is above 0. None: no bound."""
        bound = self.own.get(organization_id, self.default)
        return None if bound is None else bound - self.in_flight.get(organization_id, 0)


async def claimable(
    conn: AsyncConnection, models: Sequence[str], limit: int, in_flight_max: int | None
) -> list[Row[Any]]:
    """Up to `limit` waiting chunks, row-locked, in the order of claims.

    `in_flight_max` bounds the requests in flight of each organisation without a bound of its own.
    A bound is rounded up to a chunk.
    """
    bounds = await _bounds(conn, in_flight_max)
    queues = [(await conn.execute(first_waiting(model, limit))).all() for model in models]
    first, passed = _within(queues, bounds, limit)
    if not passed or len(first) == limit or all(len(queue) < limit for queue in queues):
        return first
    others = [
        (await conn.execute(first_waiting(model, limit, organization_id))).all()
        for model in models
        for organization_id in (await conn.scalars(waiting_organizations(model))).all()
        if not _is_full(bounds, organization_id)
    ]
    return _within(others, bounds, limit)[0]


def first_waiting(model: str, limit: int, organization_id: str | None = None) -> Select[Any]:
    """The head of one model's queue, row-locked: the first entries of the index `chunks_waiting`.

    With an organisation, the head of its part: the first entries of `chunks_waiting_of`. One
    statement a model, because over several models no index has the claims in order.
    """
    mine = [chunks.c.model == model, chunks.c.state == WAITING]
    if organization_id is not None:
        mine.append(chunks.c.organization_id == organization_id)
    queue = select(chunks).where(*mine).order_by(*CLAIM_ORDER).limit(limit)
    return queue.with_for_update(key_share=True, skip_locked=True)


def waiting_organizations(model: str) -> Select[Any]:
    """Organisations with waiting chunks of the model: one step in `chunks_waiting_of` for each."""
    waiting = (chunks.c.model == model) & (chunks.c.state == WAITING)
    least = (
        select(chunks.c.organization_id).where(waiting).order_by(chunks.c.organization_id).limit(1)
    )
    found = select(least.scalar_subquery().label("id")).cte("found", recursive=True)
    following = least.where(chunks.c.organization_id > found.c.id).scalar_subquery()
    found = found.union_all(select(following).where(found.c.id.is_not(None)))
    return select(found.c.id).where(found.c.id.is_not(None))


async def _bounds(conn: AsyncConnection, default: int | None) -> _Bounds:
    """Read from the bounded organisations and the leased chunks; without bounds, from neither."""
    bounded = select(organizations.c.id, organizations.c.requests_in_flight).where(
        organizations.c.requests_in_flight.is_not(None)
    )
    own = {row.id: row.requests_in_flight for row in await conn.execute(bounded)}
    if default is None and not own:
        return _Bounds(None, {}, {})
    await lock_name(conn, "claim")  # two claims at once would both find the same room
    leased = (
        select(chunks.c.organization_id, func.sum(chunks.c.count - chunks.c.settled))
        .where(chunks.c.state == LEASED)
        .group_by(chunks.c.organization_id)
    )
    in_flight = {row[0]: int(row[1]) for row in await conn.execute(leased)}
    return _Bounds(default, own, in_flight)


def _is_full(bounds: _Bounds, organization_id: str) -> bool:
    room = bounds.room(organization_id)
    return room is not None and room <= 0


def _within(
    queues: Iterable[Sequence[Row[Any]]], bounds: _Bounds, limit: int
) -> tuple[list[Row[Any]], bool]:
    """The first `limit` chunks that fit, and whether any did not."""
    first: list[Row[Any]] = []
    room: dict[str, int | None] = {}
    passed = False
    for row in heapq.merge(*queues, key=_claim_order):
        if len(first) == limit:
            break
        left = room.setdefault(row.organization_id, bounds.room(row.organization_id))
        if left is not None and left <= 0:
            passed = True
            continue
        if left is not None:
            room[row.organization_id] = left - (row._mapping["count"] - row.settled)
        first.append(row)
    return first, passed


def _claim_order(row: Row[Any]) -> tuple[Any, ...]:
    return (-row.priority, row.deadline_at, row.batch_created_at, row.batch_id, row.seq)
