"""Which chunks a claim takes: urgent batches first, then turn by turn, of no one more than it may.

Called by work.py, inside its transaction. What is urgent was decided by loops/scheduling/urgency.py
and lies in a table; whose turn it is `WeightedFairQueue` of core/scheduling decides from the
organizations that wait and what they were given so far; the index `chunks_waiting_by_organization`
is the queue of each of them, in order. So a claim reads a row for each organization that waits for
the models, and the heads of the queues that it takes from: its cost grows with neither chunks nor
batches.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec
from sqlalchemy import Row, Select, and_, exists, func, not_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide import limits
from lowtide.core.scheduling.fair_queue import Tenant, WeightedFairQueue
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.schedule_tables import urgent_batches
from lowtide.store.schema.tables import CLAIM_ORDER, LEASED, WAITING, batches, chunks, organizations
from lowtide.store.statements.fair_share import (
    Costs,
    charge,
    charges,
    cost_left,
    first_tenants,
    tenants_of,
    waiting_organizations,
)

Scope = tuple[str, str]
"""A model, and the endpoint (`/v1/...`) of a batch."""


class _Bounds(msgspec.Struct, frozen=True):
    """Requests that organizations may have in flight, and that they have."""

    default: int | None
    own: Mapping[str, int]
    in_flight: Mapping[str, int]

    def room(self, organization_id: str) -> int | None:
        """Requests it may still start; a chunk fits while that is above 0. None: no bound."""
        bound = self.own.get(organization_id, self.default)
        return None if bound is None else bound - self.in_flight.get(organization_id, 0)


class _Claim:
    """Chunks as they are taken, and the room that is left."""

    def __init__(
        self, models: Sequence[str], limit: int, bounds: _Bounds, without: Collection[Scope]
    ) -> None:
        self.models = tuple(sorted(set(models)))
        self.without = without
        self.taken: dict[tuple[str, int], Row[Any]] = {}
        self._limit = limit
        self._bounds = bounds
        self._room: dict[str, int | None] = {}

    @property
    def is_bounded(self) -> bool:
        """Whether any organization has a bound."""
        return self._bounds.default is not None or bool(self._bounds.own)

    @property
    def wanted(self) -> int:
        return self._limit - len(self.taken)

    def is_full(self, organization_id: str) -> bool:
        room = self._room.setdefault(organization_id, self._bounds.room(organization_id))
        return room is not None and room <= 0

    def take(self, rows: Sequence[Row[Any]], most: int) -> list[Row[Any]]:
        """The first `most` of these that are wanted and fit."""
        fresh: list[Row[Any]] = []
        for row in rows:
            key, name = (row.batch_id, row.seq), row.organization_id
            if len(fresh) == most or not self.wanted or self.is_full(name):
                break
            if key in self.taken:
                continue
            self.taken[key] = row
            fresh.append(row)
            if (room := self._room[name]) is not None:
                self._room[name] = room - (row._mapping["count"] - row.settled)
        return fresh


async def claimable(
    conn: AsyncConnection,
    models: Sequence[str],
    limit: int,
    in_flight_max: int | None,
    without: Collection[Scope] = (),
) -> list[Row[Any]]:
    """Up to `limit` waiting chunks, row-locked, in the order of claims; none of `without`.

    `in_flight_max` bounds the requests in flight of each organization without a bound of its own.
    A bound is rounded up to a chunk.
    """
    claim = _Claim(models, limit, await _bounds(conn, in_flight_max), without)
    if claim.models and limit > 0:
        await _take_urgent(conn, claim)
    floors = await _take_fair_shares(conn, claim) if claim.models and claim.wanted else {}
    taken = list(claim.taken.values())
    await charge(conn, charges(taken), floors)
    return taken


async def claimable_beside(
    conn: AsyncConnection,
    models: Sequence[str],
    limit: int,
    in_flight_max: int | None,
    without: Collection[Scope],
    supplied: Collection[str],
) -> list[Row[Any]]:
    """The chunks to claim, as `claimable`, for a worker that has enough of the organizations
    `supplied`: up to `SUPPLY_LOW` requests of each other one, the one that was given the least
    first, and none while an urgent batch of one of `supplied` waits.
    """
    claim = _Claim(models, limit, await _bounds(conn, in_flight_max), without)
    if not claim.models or limit <= 0:
        return []
    urgent = (await conn.execute(urgent_waiting(claim.models, limit, without))).all()
    if any(row.organization_id in supplied for row in urgent):
        return []
    await _take_urgent(conn, claim)
    tenants, waiting = await _tenants(conn, claim, beside=len(supplied))
    ranked = sorted(tenants, key=lambda name: (tenants[name].virtual_time, name))
    for name in ranked:
        if name in supplied or claim.is_full(name) or not claim.wanted:
            continue
        rows = await _queue_of(conn, claim, name, waiting[name], len(claim.taken) + claim.wanted)
        requests = accumulate(row._mapping["count"] - row.settled for row in rows)
        claim.take(rows, 1 + sum(total < limits.SUPPLY_LOW for total in requests))
    taken = list(claim.taken.values())
    await charge(conn, charges(taken))
    return taken


async def _take_urgent(conn: AsyncConnection, claim: _Claim) -> None:
    urgent = urgent_waiting(claim.models, claim.wanted, claim.without)
    for row in (await conn.execute(urgent)).all():
        if claim.wanted and not claim.is_full(row.organization_id):
            name = row.organization_id
            queue = first_waiting(row.model, claim.wanted, name, claim.without, of_batch=row)
            claim.take((await conn.execute(queue)).all(), claim.wanted)


async def _take_fair_shares(conn: AsyncConnection, claim: _Claim) -> Costs:
    """Takes a few chunks at a time from the organization whose turn it is, until enough are taken.

    Returns the virtual times that organizations which are passed over are lifted to.
    """
    tenants, waiting = await _tenants(conn, claim)
    queue = _fair_queue({n: t for n, t in tenants.items() if not claim.is_full(n)})
    floors = _floors(queue, tenants, waiting) if len(claim.models) == 1 else {}
    for row in claim.taken.values():
        if row.organization_id in queue:
            queue.charge(row.organization_id, cost_left(row))
    while claim.wanted and (name := queue.first()) is not None:
        most = claim.wanted if len(queue) == 1 else min(claim.wanted, limits.LOCALITY_CHUNKS)
        known = sum(row.organization_id == name for row in claim.taken.values())
        fresh = claim.take(await _queue_of(conn, claim, name, waiting[name], known + most), most)
        for row in fresh:
            queue.charge(name, cost_left(row))
        if len(fresh) < most:
            queue.leave(name)
    return floors


async def _queue_of(
    conn: AsyncConnection, claim: _Claim, name: str, models: Collection[str], most: int
) -> list[Row[Any]]:
    """The first of the organization's chunks that wait for these models, row-locked."""
    queues = [
        (await conn.execute(first_waiting(model, most, name, claim.without))).all()
        for model in models
    ]
    return list(heapq.merge(*queues, key=_claim_order))


async def _tenants(
    conn: AsyncConnection, claim: _Claim, beside: int = 0
) -> tuple[dict[str, Tenant], dict[str, list[str]]]:
    """The organizations that may get a turn, and the models that each waits for. `beside`: so many
    more that will be passed over.
    """
    if len(claim.models) == 1:
        # Each turn takes a chunk at least, so no more of them come to theirs than chunks are
        # wanted; unless some of them run all they may, or wait for nothing that may be taken.
        is_any_passed_over = claim.is_bounded or claim.without
        most = limits.TENANTS_READ_MAX if is_any_passed_over else claim.wanted + beside
        tenants = await first_tenants(conn, claim.models[0], most)
        return tenants, {name: [*claim.models] for name in tenants}
    waiting: dict[str, list[str]] = {}
    for model in claim.models:
        for name in (await conn.scalars(waiting_organizations(model))).all():
            waiting.setdefault(name, []).append(model)
    return await tenants_of(conn, claim.models, waiting), waiting


def _fair_queue(tenants: Mapping[str, Tenant]) -> WeightedFairQueue:
    queue = WeightedFairQueue()
    for name, tenant in tenants.items():
        queue.join(name, tenant)
    return queue


def _floors(
    queue: WeightedFairQueue, tenants: Mapping[str, Tenant], waiting: Mapping[str, Collection[str]]
) -> Costs:
    """The virtual times to lift organizations to that are passed over because they run all they
    may: they gain no credit by that.
    """
    first = queue.first()
    if first is None:
        return {}
    floor = tenants[first].virtual_time
    behind = (name for name in tenants if name not in queue and tenants[name].virtual_time < floor)
    return {(model, name): floor for name in behind for model in waiting[name]}


def first_waiting(
    model: str,
    limit: int,
    organization_id: str,
    without: Collection[Scope] = (),
    of_batch: Row[Any] | None = None,
) -> Select[Any]:
    """The head of an organization's queue for a model, row-locked, or of one of its batches: the
    first entries of the index `chunks_waiting_by_organization` that are not of `without`."""
    mine = [
        chunks.c.model == model,
        chunks.c.state == WAITING,
        chunks.c.organization_id == organization_id,
    ]
    if of_batch is not None:
        mine += [
            chunks.c.priority == of_batch.priority,
            chunks.c.deadline_at == of_batch.expires_at,
            chunks.c.batch_created_at == of_batch.created_at,
            chunks.c.batch_id == of_batch.id,
        ]
    shut = [endpoint for of_model, endpoint in without if of_model == model]
    if shut:  # the endpoint is the batch's: a reading of its row for each chunk that is passed over
        is_open = batches.c.endpoint.not_in(shut)
        mine.append(exists().where(batches.c.id == chunks.c.batch_id, is_open))
    queue = select(chunks).where(*mine).order_by(*CLAIM_ORDER).limit(limit)
    return queue.with_for_update(key_share=True, skip_locked=True)


def urgent_waiting(
    models: Collection[str], limit: int, without: Collection[Scope] = ()
) -> Select[Any]:
    """Urgent batches with waiting chunks of these models.

    A step in `chunks_waiting_by_organization` each.
    """
    waits = exists().where(
        chunks.c.model == urgent_batches.c.model,
        chunks.c.state == WAITING,
        chunks.c.organization_id == batches.c.organization_id,
        chunks.c.priority == batches.c.priority,
        chunks.c.deadline_at == batches.c.expires_at,
        chunks.c.batch_created_at == batches.c.created_at,
        chunks.c.batch_id == batches.c.id,
    )
    shut = [
        not_(and_(urgent_batches.c.model == model, batches.c.endpoint == endpoint))
        for model, endpoint in sorted(without)
    ]
    columns = (batches.c.id, batches.c.organization_id, batches.c.priority)
    return (
        select(*columns, batches.c.expires_at, batches.c.created_at, urgent_batches.c.model)
        .join(batches, batches.c.id == urgent_batches.c.batch_id)
        .where(and_(urgent_batches.c.model.in_(sorted(models)), waits, *shut))
        .order_by(batches.c.expires_at, urgent_batches.c.position, batches.c.id)
        .limit(limit)
    )


async def _bounds(conn: AsyncConnection, default: int | None) -> _Bounds:
    """The bounds of organizations and what they have in flight; without bounds nothing is read."""
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


def _claim_order(row: Row[Any]) -> tuple[Any, ...]:
    return (-row.priority, row.deadline_at, row.batch_created_at, row.batch_id, row.seq)
