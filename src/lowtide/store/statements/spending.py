"""What organizations have spent this month, and the pause of those that may spend no more.

Called by group_commit.py (a charge may reach the cap), lifecycle.py (a plan of a paused
organization) and by the classes that lift a pause. Invariants: the sum of a month moves in the
transaction that writes its ledger entries; while an organization is paused, all its batches in
progress are, and none of their chunks waits. An organization's row is locked before any of its
batches', so charges, plans and changes of a cap come one after another.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.accounts.ledger import LedgerEntry
from lowtide.store.schema.tables import batches, organizations, spend
from lowtide.store.statements.batch_notes import note
from lowtide.store.statements.holds import SPEND_CAP, add_hold, lift_hold
from lowtide.store.statements.transitions import lock_batches

CAP_REACHED: Final = "the organization has spent what its cap allows for this month"


def month_of(at: datetime) -> str:
    """The calendar month in UTC that a charge counts for."""
    return f"{at:%Y-%m}"


async def lock_organizations(
    conn: AsyncConnection, batch_ids: Collection[str], now: datetime
) -> list[Row[Any]]:
    """The organizations of those batches, each with `charge_pico`, its sum of this month so far.

    They are held until the transaction ends.
    """
    if not batch_ids:
        return []
    owners = select(batches.c.organization_id).where(batches.c.id.in_(sorted(batch_ids)))
    return await _locked_with_spend(conn, now, organizations.c.id.in_(owners))


async def lock_organization(conn: AsyncConnection, organization_id: str, now: datetime) -> Row[Any]:
    """That organization, likewise."""
    (row,) = await _locked_with_spend(conn, now, organizations.c.id == organization_id)
    return row


async def charge(
    conn: AsyncConnection,
    owners: Iterable[Row[Any]],
    entries: Iterable[LedgerEntry],
    now: datetime,
) -> frozenset[str]:
    """Adds the entries to the month's sums; the organizations that are paused, now or already."""
    more: dict[str, int] = {}
    for entry in entries:
        more[entry.organization_id] = more.get(entry.organization_id, 0) + entry.charge_pico
    paused: set[str] = set()
    for owner in owners:
        if owner.paused_at is not None:
            paused.add(owner.id)
        if not more.get(owner.id):
            continue
        spent = (owner.charge_pico or 0) + more[owner.id]
        await _put_spend(conn, owner, month_of(now), spent)
        if owner.spend_cap_pico is not None and spent >= owner.spend_cap_pico:
            paused.add(owner.id)
            if owner.paused_at is None:
                await _pause(conn, owner.id, now)
    return frozenset(paused)


async def resume_below_cap(
    conn: AsyncConnection, now: datetime, *only: ColumnElement[bool]
) -> list[str]:
    """Ends the pause of organizations that spent less than their cap this month; batches that go
    on.

    What their workers still hold ends as any lease does; what was paused waits again.
    """
    paused = organizations.c.paused_at.is_not(None)
    resumed: list[str] = []
    for owner in await _locked_with_spend(conn, now, paused, *only):
        if owner.spend_cap_pico is None or (owner.charge_pico or 0) < owner.spend_cap_pico:
            resumed += await _resume(conn, owner.id, now)
    return resumed


async def _locked_with_spend(
    conn: AsyncConnection, now: datetime, *which: ColumnElement[bool]
) -> list[Row[Any]]:
    # Two statements: while one waits for a lock, PostgreSQL keeps what it has read of other tables.
    locked = await conn.scalars(
        select(organizations.c.id)
        .where(*which)
        .order_by(organizations.c.id)
        .with_for_update(key_share=True)
    )
    this_month = (spend.c.organization_id == organizations.c.id) & (spend.c.month == month_of(now))
    result = await conn.execute(
        select(organizations, spend.c.charge_pico)
        .outerjoin(spend, this_month)
        .where(organizations.c.id.in_(locked.all()))
        .order_by(organizations.c.id)
    )
    return list(result)


async def _put_spend(conn: AsyncConnection, owner: Row[Any], month: str, spent: int) -> None:
    key = {"organization_id": owner.id, "month": month}
    if owner.charge_pico is None:
        await conn.execute(insert(spend).values(key | {"charge_pico": spent}))
    else:
        await conn.execute(update(spend).filter_by(**key).values(charge_pico=spent))


async def _pause(conn: AsyncConnection, organization_id: str, now: datetime) -> None:
    """Once a month at most; it costs what the organization has queued."""
    await conn.execute(
        update(organizations).where(organizations.c.id == organization_id).values(paused_at=now)
    )
    running = (batches.c.organization_id == organization_id) & (batches.c.status == "in_progress")
    rows = await _lock(conn, running)
    await add_hold(conn, rows, SPEND_CAP, "abort", now)
    await note(conn, rows, "paused", now, detail=CAP_REACHED)


async def _resume(conn: AsyncConnection, organization_id: str, now: datetime) -> list[str]:
    await conn.execute(
        update(organizations).where(organizations.c.id == organization_id).values(paused_at=None)
    )
    held = (batches.c.organization_id == organization_id) & batches.c.holds.is_not(None)
    rows = [row for row in await _lock(conn, held) if SPEND_CAP in row.holds]
    await note(conn, rows, "resumed", now, detail="below the spend cap again")
    return await lift_hold(conn, rows, SPEND_CAP, now)


async def _lock(conn: AsyncConnection, which: ColumnElement[bool]) -> list[Row[Any]]:
    """Those batches, which are locked from now on."""
    locked = await lock_batches(conn, (await conn.scalars(select(batches.c.id).where(which))).all())
    return list(locked.values())
