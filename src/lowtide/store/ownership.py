"""`ports.ownership.OwnershipStore` over SQL: a row per worker, a row per replica.

Invariants: a replica's `worker_id` names a row of `workers` or nothing, and changes only together
with a lock on the name "ownership", so each transaction sees and leaves a whole fleet. A replica
has a row, and its token grows, as long as a worker wants or owns it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.replicas.replica_assignment import Fleet, Member, Owner
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.connection.notify import announce
from lowtide.store.schema.fleet_tables import replicas, workers
from lowtide.store.statements.leases import take_back, worker_leases

_LOCK = "ownership"


class SqlOwnership(Transactional):
    """Who owns which replica."""

    async def heartbeat(self, member: Member, now: datetime) -> Fleet:
        async with self._db.write() as conn:
            await lock_name(conn, _LOCK)
            await _write_down(conn, member, now)
            fleet = await _fleet(conn)
            fresh = sorted(member.wants - fleet.owners.keys())
            if fresh:
                await conn.execute(insert(replicas), [{"name": n, "token": 0} for n in fresh])
                fleet = await _fleet(conn)
            return fleet

    async def claim(self, worker_id: str, names: Iterable[str], now: datetime) -> Mapping[str, int]:
        async with self._db.write() as conn:
            await lock_name(conn, _LOCK)
            if not await conn.scalar(select(workers.c.id).where(workers.c.id == worker_id)):
                return {}
            taken = await conn.execute(
                update(replicas)
                .where(replicas.c.name.in_(sorted(names)), replicas.c.worker_id.is_(None))
                .values(worker_id=worker_id, token=replicas.c.token + 1, claimed_at=now)
                .returning(replicas.c.name, replicas.c.token)
            )
            return {row.name: row.token for row in taken}

    async def release(self, worker_id: str, tokens: Mapping[str, int]) -> None:
        held = [
            (replicas.c.name == name) & (replicas.c.token == token)
            for name, token in sorted(tokens.items())
        ]
        if held:
            async with self._db.write() as conn:
                await lock_name(conn, _LOCK)
                await conn.execute(
                    update(replicas)
                    .where(replicas.c.worker_id == worker_id, or_(*held))
                    .values(worker_id=None, claimed_at=None)
                )
                await announce(conn, "ownership")

    async def retire(self, worker_id: str, heartbeat: int, now: datetime | None = None) -> bool:
        async with self._db.write() as conn:
            is_ended = await _end(conn, worker_id, heartbeat)
            if is_ended:  # its clock dated its leases, and may have been far ahead
                await take_back(conn, *worker_leases(worker_id), now)
            return is_ended

    async def leave(self, worker_id: str) -> None:
        async with self._db.write() as conn:
            await _end(conn, worker_id, None)

    async def fleet(self) -> Fleet:
        async with self._db.read() as conn:
            return await _fleet(conn)


async def _write_down(conn: AsyncConnection, member: Member, now: datetime) -> None:
    values = {
        "heartbeat": member.heartbeat,
        "ttl_ms": round(member.ttl_s * 1000),
        "wants": tuple(sorted(member.wants)),
        "seen_at": now,
    }
    known = await conn.execute(
        update(workers).where(workers.c.id == member.worker_id).values(values)
    )
    if not known.rowcount:
        await conn.execute(insert(workers).values(id=member.worker_id, **values))
        await announce(conn, "ownership")


async def _end(conn: AsyncConnection, worker_id: str, heartbeat: int | None) -> bool:
    """Ends a membership, if its heartbeat is still that one (None: whatever it is).
    Returns whether it did.
    """
    await lock_name(conn, _LOCK)
    ended = delete(workers).where(workers.c.id == worker_id)
    if heartbeat is not None:
        ended = ended.where(workers.c.heartbeat == heartbeat)
    if not (await conn.execute(ended)).rowcount:
        return False
    await conn.execute(
        update(replicas)
        .where(replicas.c.worker_id == worker_id)
        .values(worker_id=None, claimed_at=None)
    )
    wanted = (await _fleet(conn)).owners.keys()
    await conn.execute(
        delete(replicas).where(replicas.c.worker_id.is_(None), replicas.c.name.not_in(wanted))
    )
    await announce(conn, "ownership")
    return True


async def _fleet(conn: AsyncConnection) -> Fleet:
    members = [
        Member(row.id, row.heartbeat, row.ttl_ms / 1000, frozenset(row.wants))
        for row in await conn.execute(select(workers).order_by(workers.c.id))
    ]
    wanted = frozenset[str]().union(*(member.wants for member in members))
    owners: dict[str, Owner | None] = {}
    for row in await conn.execute(select(replicas).order_by(replicas.c.name)):
        if row.worker_id is not None:
            owners[row.name] = Owner(row.worker_id, row.token)
        elif row.name in wanted:
            owners[row.name] = None
    return Fleet(tuple(members), owners)
