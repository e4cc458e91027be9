"""The loop that writes down what replicas did."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from lowtide import limits
from lowtide.core.history.replica_history import ReplicaRow, ReplicaTotals
from lowtide.loops.history.replicas import ReplicaHistoryLoop
from lowtide.ports.store import Store, StoreUnavailable
from testkit.manual_clock import ManualClock


async def calls_in(store: Store, clock: ManualClock) -> int:
    rows = await store.history.of_replicas(["a"], clock.now() - timedelta(hours=1))
    return sum(row.part.batch_calls for row in rows.get("a", ()))


async def test_what_replicas_did_is_written_every_few_seconds(store: Store) -> None:
    clock, done, ticks = ManualClock(), 0, 0
    loop = ReplicaHistoryLoop(store.history, "p", lambda: {"a": ReplicaTotals(batch_calls=done)})
    due = await loop.tick(clock.now())
    while ticks < limits.HISTORY_S:
        done += 1
        assert due is not None
        assert (due - clock.now()).total_seconds() == limits.REPLICA_SAMPLE_S
        due = await loop.tick(clock.advance(limits.REPLICA_SAMPLE_S))
        ticks += 1
    assert await calls_in(store, clock) == done


async def test_a_store_that_is_away_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, done = ManualClock(), 0
    loop = ReplicaHistoryLoop(store.history, "p", lambda: {"a": ReplicaTotals(batch_calls=done)})
    await loop.tick(clock.now())

    async def fails(_writer: str, _rows: Sequence[ReplicaRow]) -> None:
        raise StoreUnavailable("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(store.history, "write_replicas", fails)
        while done < 3:
            done += 1
            with pytest.raises(StoreUnavailable):
                await loop.tick(clock.advance(limits.HISTORY_S))
    await loop.tick(clock.advance(limits.HISTORY_S))
    assert await calls_in(store, clock) == 3
