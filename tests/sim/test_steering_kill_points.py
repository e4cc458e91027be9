"""A process is killed at each step of each verb that steers a batch; another one repeats the verb.

What the kill leaves behind is the batch as it was or as the verb makes it, never something between,
and the repetition comes to the same end as one call that nothing interrupts.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.accounts.token_queue import PlanQueued
from lowtide.core.batches.batch import Batch
from lowtide.ports.retries import RetryConflict
from lowtide.ports.steering import BatchChange
from lowtide.store.sql_store import SqlStore
from testkit.sim.loop import VirtualLoop
from testkit.sim.node import SimClock
from testkit.sim.one_life import STEPS_MAX, Killed, fresh_database, live
from testkit.sim.process import Process
from testkit.sim.stores import Stores
from testkit.store_fixture import StoreFixture

Prepare = Callable[[StoreFixture], Awaitable[Batch]]
Verb = Callable[[SqlStore, Batch], Awaitable[Any]]
NOW = SimClock(None).now
CHANGE = BatchChange(priority=7, completion_window_s=7200, metadata={"k": "v"})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    yield Stores(tmp_path_factory.mktemp("steering"))


async def running(world: StoreFixture) -> Batch:
    return await world.running(("m", 4), ("n", 4))


async def held_by_both(world: StoreFixture) -> Batch:
    batch = await running(world)
    for hold, how in (("user", "finish"), ("operator", "abort")):
        await world.store.steering.hold(None, batch.id, hold, how, world.now)  # type: ignore[arg-type]
    return batch


async def held(world: StoreFixture) -> Batch:
    batch = await running(world)
    await world.store.steering.hold("p1", batch.id, "user", "finish", world.now)
    return batch


async def ended(world: StoreFixture) -> Batch:
    return await world.completed(failed=2)


async def queued(world: StoreFixture) -> Batch:
    """A batch that waits for tokens, which have just become free."""
    first = await world.validating()
    assert await world.plan(await world.validation(first), ("m", 8), tokens_max=1000) is True
    batch = await world.validating()
    lease = await world.validation(batch)
    found = await world.plan(lease, ("m", 4), ("n", 4), tokens_max=1000, queues=True)
    assert isinstance(found, PlanQueued)
    await world.store.batches.cancel("p1", first.id, world.now)
    return batch


async def hold(store: SqlStore, batch: Batch) -> None:
    await store.steering.hold(None, batch.id, "operator", "abort", NOW())


async def lift_one(store: SqlStore, batch: Batch) -> None:
    await store.steering.lift(None, batch.id, "operator", NOW())


async def lift_last(store: SqlStore, batch: Batch) -> None:
    await store.steering.lift("p1", batch.id, "user", NOW())


async def change(store: SqlStore, batch: Batch) -> None:
    await store.steering.change("p1", batch.id, CHANGE, NOW())


async def delete(store: SqlStore, batch: Batch) -> None:
    await store.steering.delete("p1", batch.id, NOW())


async def retry(store: SqlStore, batch: Batch) -> None:
    again = msgspec.structs.replace(
        batch,
        id="batch_again",
        retry_of=batch.id,
        root_id=batch.id,
        status="validating",
        completed_at=None,
    )
    try:
        await store.retries.add(again, b"", 1)
    except RetryConflict as conflict:  # an earlier try made it, unheard
        assert conflict.unfinished == again.id


async def let_in(store: SqlStore, batch: Batch) -> None:
    await store.token_queue.let_in(DEFAULT_ORGANIZATION, 1000, NOW())


def seen(path: str) -> dict[str, list[Any]]:
    """All that a verb may have changed."""
    tables = {
        "batches": "id, status, paused_reason, in_flight, abort_holds, priority, expires_at,"
        " metadata, deleted_at IS NULL, queued_at IS NULL, held_at IS NULL",
        "chunks": "batch_id, seq, state, priority, deadline_at",
        "files": "id, deleted_at IS NULL",
        "garbage": "blob_key",
        "line_sets": "batch_id, kind",
    }
    with closing(sqlite3.connect(path)) as db:
        return {
            table: sorted(db.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
            for table, columns in tables.items()
        }


@pytest.mark.parametrize(
    ("prepare", "verb"),
    [
        (running, hold),
        (held_by_both, lift_one),
        (held, lift_last),
        (running, change),
        (ended, delete),
        (ended, retry),
        (queued, let_in),
    ],
    ids=lambda each: each.__name__,
)
def test_a_process_that_dies_at_any_step_of_a_verb_leaves_all_of_it_or_nothing(
    stores: Stores, prepare: Prepare, verb: Verb
) -> None:
    outcomes: list[tuple[Any, Any, Any]] = []
    for steps in range(1, STEPS_MAX):
        path = fresh_database(stores)

        async def story(steps: int = steps, path: str = path) -> Killed:
            world = StoreFixture(stores.of(0))
            world.now = NOW()
            batch = await prepare(world)
            before = seen(path)

            async def work(store: SqlStore, _: Process) -> None:
                await verb(store, batch)

            killed = await live(work, stores.of(0), steps)
            left = seen(path)
            await live(work, stores.of(1), None)
            outcomes.append((before, left, seen(path)))
            return killed

        if VirtualLoop().run_until_complete(story()).ended:
            break
    else:
        raise AssertionError("the verb does not come to its end")
    whole = outcomes[-1][2]
    for before, left, after in outcomes:
        assert before != after
        assert left in (before, after)
        assert after == whole
    assert outcomes[0][1] == outcomes[0][0], "killed at its first step, it has done nothing"
    assert outcomes[-1][1] == whole
