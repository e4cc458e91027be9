"""What replicas did, kept in memory: an open page reads only what may have changed."""

from collections.abc import Collection
from datetime import datetime, timedelta
from random import Random

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.core.history.replica_history import (
    Parts,
    ReplicaPart,
    ReplicaRow,
    bucket_begin,
    by_bucket,
)
from lowtide.ports.store import Store
from lowtide.service.history.replica_memory import ReplicaMemory
from testkit.statements import statements

HOUR = timedelta(hours=1)
ALL = ("a", "b", "c")


class Page:
    """An open page that shows the last hour of the replicas, and the processes that write it."""

    def __init__(self, store: Store, clock: SkippingClock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.history, self.clock = store.history, clock
        self.memory = ReplicaMemory(store.history)
        self.read: list[tuple[set[str], datetime]] = []
        self._whole = store.history.of_replicas
        monkeypatch.setattr(store.history, "of_replicas", self._noted)

    async def _noted(self, names: Collection[str], since: datetime) -> dict[str, list[ReplicaRow]]:
        self.read.append((set(names), since))
        return await self._whole(names, since)

    async def write(self, writer: str, name: str, calls: int, ago_s: float = 0.0) -> None:
        at = bucket_begin(self.clock.now() - timedelta(seconds=ago_s))
        row = ReplicaRow(name, at, ReplicaPart(batch_calls=calls))
        await self.history.write_replicas(writer, [row])

    async def look(self, *names: str, span: timedelta = HOUR) -> dict[str, Parts]:
        """What the page shows; afterwards `read` has what was read for it."""
        self.read.clear()
        now = self.clock.now()
        return dict(await self.memory.parts(names or ALL, bucket_begin(now - span), now))

    async def truth(self, *names: str, span: timedelta = HOUR) -> dict[str, Parts]:
        rows = await self._whole(names or ALL, bucket_begin(self.clock.now() - span))
        return {name: by_bucket(rows.get(name, ())) for name in names or ALL}


@pytest.fixture
def page(store: Store, clock: SkippingClock, monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(store, clock, monkeypatch)


async def test_a_page_that_stays_open_reads_the_last_buckets_alone(page: Page) -> None:
    for ago_s in range(0, 3600, 300):
        await page.write("p", "a", 1, ago_s)
    assert await page.look() == await page.truth()
    assert page.read == [(set(ALL), bucket_begin(page.clock.now() - HOUR))]
    page.clock.advance(limits.CONSOLE_HISTORY_REFRESH_S)
    await page.write("q", "a", 5)
    with statements() as asked:
        shown = await page.look()
    assert len([each for each in asked if "replica_history" in each]) == 1
    assert shown == await page.truth()
    ((names, since),) = page.read
    assert names == set(ALL)
    assert page.clock.now() - since <= timedelta(seconds=4 * limits.REPLICA_BUCKET_S)
    await page.look("a")
    assert page.read == [], "another part of the same page"


async def test_what_a_page_shows_is_what_is_stored_whoever_writes_when(page: Page) -> None:
    draw = Random(42)
    for _ in range(60):
        for writer in ("p", "q"):
            ago_s = draw.uniform(0.0, limits.HISTORY_S)
            await page.write(writer, draw.choice(ALL), draw.randrange(100), ago_s)
        names, span = draw.choice([ALL, ("a",), ("b", "c")]), draw.choice([HOUR, HOUR, 2 * HOUR])
        assert await page.look(*names, span=span) == await page.truth(*names, span=span)
        page.clock.advance(draw.choice([1.0, 5.0, 5.0, 5.0, 40.0, 200.0]))


async def test_what_was_written_late_is_shown_within_a_minute(page: Page) -> None:
    await page.look()
    shown = []
    for step in range(13):
        if step == 1:  # its store was away for as long as it keeps what it could not write
            ago_s = limits.REPLICA_BUCKET_S * limits.REPLICA_PENDING_BUCKETS
            await page.write("p", "a", 7, ago_s)
        page.clock.advance(5.0)
        shown.append(bool((await page.look())["a"]))
    assert not shown[0]
    assert shown[-1]
    assert shown == sorted(shown), "and then it stays"


async def test_a_clock_that_was_set_back_shows_what_there_is(page: Page) -> None:
    await page.write("p", "a", 1)
    await page.look()
    page.clock.advance(-600.0)
    await page.write("p", "a", 2)
    assert await page.look() == await page.truth()


async def test_memory_is_bounded_and_a_replica_that_nobody_asks_for_is_forgotten(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ALL:
        for ago_s in (0, 60, 120):
            await page.write("p", name, 1, ago_s)
    monkeypatch.setattr(limits, "REPLICA_PARTS_KEPT_MAX", 6)
    await page.look()
    page.clock.advance(5.0)
    assert await page.look() == await page.truth()
    assert [len(names) for names, _ in page.read] == [1, 2], "one had no room, and is read whole"
    page.clock.advance(limits.REPLICA_LATE_S)
    await page.look("a")
    page.clock.advance(5.0)
    await page.look("b")
    assert page.read == [({"b"}, bucket_begin(page.clock.now() - HOUR))]
