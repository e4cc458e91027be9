"""The loop that writes history: it looks at what moved, beside the commits and never in them."""

from collections.abc import Collection
from datetime import datetime

import pytest
from worker_env import WorkerEnv

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.history.batch_history import NOTHING, BatchTotals
from lowtide.loops.history.record import HistoryLoop
from lowtide.ports.store import StoreUnavailable
from testkit.statements import statements


def loop_of(env: WorkerEnv) -> HistoryLoop:
    return HistoryLoop(env.store.history, env.clock, env.dispatcher.batch_watch.moved_since)


async def done_in(env: WorkerEnv, batch: Batch) -> BatchTotals:
    found, total = await env.store.history.of_batch(batch.id), NOTHING
    for bucket in found.buckets if found is not None else ():
        total = total.plus(bucket.done)
    return total


async def test_what_was_committed_is_in_the_history_a_tick_later(env: WorkerEnv) -> None:
    loop, batch = loop_of(env), await env.batch(6)
    env.clock.advance(1)
    await env.pass_time(10)
    assert (await env.see(batch)).counts.completed == 6
    due = await loop.tick(env.clock.now())
    assert due is not None
    assert (due - env.clock.now()).total_seconds() == limits.HISTORY_S
    assert (await done_in(env, batch)).completed == 6


async def test_a_commit_asks_nothing_of_history(env: WorkerEnv) -> None:
    await env.batch(6)
    await env.dispatch()
    await env.flights_ended()
    with statements() as asked:
        await env.beat()
    assert any("UPDATE batches" in each for each in asked), "it did commit"
    assert not [each for each in asked if "batch_history" in each or "batch_notes" in each]


async def test_a_tick_asks_the_same_for_one_batch_and_for_many(env: WorkerEnv) -> None:
    counts = []
    for batches in (0, 1, 20):
        made = [await env.batch(1) for _ in range(batches)]
        await env.pass_time(20 if batches else 0)
        loop = loop_of(env)
        await env.store.history.advance([], env.clock.now())
        moved = [each.id for each in made]
        with statements() as asked:
            await env.store.history.advance(moved, env.clock.now())
        counts.append(len([each for each in asked if "batch" in each]))
        assert len([each for each in made if await done_in(env, each) != NOTHING]) == batches
        await loop.tick(env.clock.now())
    assert counts == [0, 2, 2]


async def test_a_look_that_fails_is_made_up_for_by_the_next(
    env: WorkerEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, batch = loop_of(env), await env.batch(2)
    await env.pass_time(5)

    async def fails(_ids: Collection[str], _now: datetime) -> int:
        raise StoreUnavailable("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(env.store.history, "advance", fails)
        with pytest.raises(StoreUnavailable):
            await loop.tick(env.clock.now())
    env.clock.advance(limits.HISTORY_S)
    await loop.tick(env.clock.now())
    assert (await done_in(env, batch)).completed == 2


async def test_old_rows_are_deleted_now_and_then_and_on_until_none_is_left(
    env: WorkerEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, asked = [limits.HISTORY_FORGET_ROWS, 3, 0], []

    async def forget(before: datetime, limit: int) -> int:
        asked.append(((env.clock.now() - before).total_seconds(), limit))
        return left[len(asked) - 1]

    monkeypatch.setattr(env.store.history, "forget", forget)
    loop = loop_of(env)
    for _ in range(4):
        await loop.tick(env.clock.now())
        env.clock.advance(limits.HISTORY_S)
    assert asked == [(limits.HISTORY_KEEP_S, limits.HISTORY_FORGET_ROWS)] * 2
    env.clock.advance(limits.HISTORY_FORGET_EVERY_S)
    await loop.tick(env.clock.now())
    assert len(asked) == 3
