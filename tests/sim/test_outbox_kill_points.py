"""A process is killed at each step of delivering an event, and at each step of ending a batch."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.core.batches.batch import BatchError
from lowtide.core.webhooks.endpoint import event_id_of
from lowtide.loops.runner import Loops
from lowtide.loops.webhooks.deliver import DeliverLoop
from lowtide.store.sql_store import SqlStore
from testkit.sim.loop import VirtualLoop
from testkit.sim.node import SimClock
from testkit.sim.one_life import STEPS_MAX, Killed, fresh_database, live
from testkit.sim.process import Process
from testkit.sim.receivers import Receivers, pending, subscribe
from testkit.sim.stores import Stores
from testkit.sim.trace import Trace
from testkit.store_fixture import StoreFixture


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_RETRIES_S", (0.1,) * 6)
    monkeypatch.setattr(limits, "WEBHOOKS_POLL_S", 0.1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    yield Stores(tmp_path_factory.mktemp("outbox"))


async def deliver(receivers: Receivers, store: SqlStore, process: Process) -> None:
    """What a worker does, from its start until nothing is left to deliver."""
    clock, woken = SimClock(process), asyncio.Event()
    await store.outbox.release("local")
    loop = DeliverLoop("local", store.outbox, receivers.sender(process), clock, woken.set)
    assert store._db.file is not None
    async with Loops([loop], clock):
        while pending(str(store._db.file)):  # noqa: ASYNC110 - virtual: costs nothing
            await asyncio.sleep(0.1)


async def a_batch_to_refuse(store: SqlStore) -> str:
    world = StoreFixture(store)
    world.now = SimClock(None).now()
    batch = await world.validating(project="proj_default")
    return batch.id


async def refuse(store: SqlStore, process: Process) -> None:
    """Validation of the one batch that there is comes to its end."""
    now = SimClock(process).now()
    lease = await store.lifecycle.claim_validation("local", now, 1.0)
    if lease is not None:
        assert await store.lifecycle.reject(lease, [BatchError("c", "m")], 1, now)


def fresh(stores: Stores) -> str:
    path = fresh_database(stores)
    subscribe(path)
    return path


def states(path: str) -> tuple[str, list[str]]:
    """The batch's state, and the ids of events."""
    with closing(sqlite3.connect(path)) as db:
        ((status,),) = db.execute("SELECT status FROM batches").fetchall()
        events = [row[0] for row in db.execute("SELECT event_id FROM webhook_deliveries")]
    return str(status), events


def test_a_process_that_dies_at_any_step_of_a_delivery_loses_no_event(
    stores: Stores, tmp_path: Path
) -> None:
    sites: set[str] = set()
    doubled = 0
    for steps in range(1, STEPS_MAX):
        path = fresh(stores)
        receivers = Receivers(steps, Trace(str(tmp_path), verbose=False))

        async def story(receivers: Receivers = receivers, steps: int = steps) -> Killed:
            batch_id = await a_batch_to_refuse(stores.of(0))
            await refuse(stores.of(0), Process("before"))
            killed = await live(partial(deliver, receivers), stores.of(0), steps)
            await live(partial(deliver, receivers), stores.of(1), None)
            heard = [each for events in receivers.heard.values() for each in events]
            assert heard and {each["id"] for each in heard} == {event_id_of(batch_id)}
            return killed

        killed = VirtualLoop().run_until_complete(story())
        receivers.check(path)
        doubled += sum(len(events) for events in receivers.heard.values()) > 1
        if killed.ended:
            break
        assert killed.died_at is not None
        sites.add(killed.died_at)
    else:
        raise AssertionError("a delivery does not come to its end")
    assert doubled, "an answer was lost between receiver and record in some run"
    places = {site.partition(":")[0] for site in sites}
    assert {"loops/webhooks/deliver.py", "store/outbox.py"} <= places, sites


def test_a_process_that_dies_at_any_step_of_an_end_leaves_the_end_with_its_event_or_neither(
    stores: Stores,
) -> None:
    seen: set[tuple[str, int]] = set()
    for steps in range(1, STEPS_MAX):
        path = fresh(stores)

        async def story(steps: int = steps) -> Killed:
            await a_batch_to_refuse(stores.of(0))
            return await live(refuse, stores.of(0), steps)

        killed = VirtualLoop().run_until_complete(story())
        status, events = states(path)
        assert (status == "failed") == bool(events)
        seen.add((status, len(events)))
        if killed.ended:
            break
    assert seen == {("validating", 0), ("failed", 1)}
