"""loops/batches/housekeeping.py: windows that end, leases that run out, blobs that nobody needs."""

from datetime import UTC, datetime, timedelta

import pytest
from worker_env import WorkBench

from lowtide import limits
from lowtide.loops.batches.housekeeping import ExpireLoop, SweepLoop
from lowtide.ports.blobs import BlobNotFound, BlobsUnavailable


class Woken:
    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        self.names.append(name)


def expire_loop(bench: WorkBench) -> tuple[ExpireLoop, Woken]:
    woken = Woken()
    return ExpireLoop(bench.store.lifecycle, bench.work, woken), woken  # type: ignore[arg-type]


async def test_a_window_that_is_over_stops_its_batch_at_the_next_beat(bench: WorkBench) -> None:
    batch = await bench.batch(200)
    loop, woken = expire_loop(bench)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.clock.advance(3590)
    await bench.beat()
    due = await loop.tick(bench.clock.now())
    assert due is not None and due - bench.clock.now() == timedelta(seconds=limits.REAP_POLL_S)
    now = bench.clock.advance(9)
    assert await loop.tick(now) == now + timedelta(seconds=1), "at the very end of the window"
    await loop.tick(bench.clock.advance(1))
    assert woken.names == ["commit", "assemble"]
    assert (await bench.see(batch)).status == "expiring"
    await bench.beat()
    await bench.flights_ended()
    assert len(bench.engine.cancelled) == 4


async def test_a_lease_that_ran_out_is_work_for_the_next(bench: WorkBench) -> None:
    await bench.batch(5)
    loop, woken = expire_loop(bench)
    bench.engine.holds = True
    await bench.dispatch()
    bench.clock.advance(limits.LEASE_TTL_S - 1)
    await loop.tick(bench.clock.now())
    assert woken.names == []
    await loop.tick(bench.clock.advance(1))
    assert woken.names == ["dispatch", "assemble"]
    await bench.dispatcher.drain(0.0)


async def test_whoever_stood_still_beats_before_it_reaps_its_own_leases(bench: WorkBench) -> None:
    batch = await bench.batch(5)
    loop, woken = expire_loop(bench)
    bench.engine.holds = True
    await bench.dispatch()
    await loop.tick(bench.clock.now())
    bench.clock.advance(10 * limits.LEASE_TTL_S)
    await loop.tick(bench.clock.now())
    assert woken.names == ["commit"]
    await bench.beat()
    await loop.tick(bench.clock.advance(limits.REAP_POLL_S))
    assert woken.names == ["commit"], "the leases were renewed"
    bench.engine.holds = False
    bench.engine.let_go()
    await bench.work_off()
    assert len(bench.engine.calls) == 5, "no request was sent again"
    assert (await bench.see(batch)).status in ("finalizing", "completed")


async def test_blobs_that_no_row_knows_go_after_an_hour_and_not_before(bench: WorkBench) -> None:
    batch = await bench.batch(5)
    await bench.work_off()
    await bench.real_blobs.put("segments/orphan", b"x")
    (row,) = await bench.store.results.slices(batch.id)
    sweep = SweepLoop(bench.store.results, bench.real_blobs, bench.clock)
    info = [info async for info in bench.real_blobs.list("segments/")]
    written_at = max(entry.modified_at for entry in info)
    await sweep.tick(written_at + timedelta(seconds=limits.ORPHAN_AGE_S - 60))
    assert await bench.real_blobs.size("segments/orphan") == 1
    bench.clock.advance(limits.ORPHAN_AGE_S)
    old = written_at + timedelta(seconds=2 * limits.ORPHAN_AGE_S)
    await sweep.tick(old)
    assert await bench.real_blobs.size("segments/orphan") == 1, "in doubt"
    bench.clock.advance(limits.ORPHAN_DOUBT_S)
    await sweep.tick(old)
    with pytest.raises(BlobNotFound):
        await bench.real_blobs.size("segments/orphan")
    assert await bench.real_blobs.size(row.segment_key) > 0, "known, and kept"


async def test_a_clock_two_hours_fast_does_not_sweep_a_segment_before_its_commit(
    bench: WorkBench,
) -> None:
    """A segment is put, swept by another worker, committed: its lines were lost (seed 64)."""
    await bench.real_blobs.put("segments/fresh", b"x")
    sweep = SweepLoop(bench.store.results, bench.real_blobs, bench.clock)
    fast = datetime.now(UTC) + timedelta(hours=2)
    for _ in range(3):
        await sweep.tick(fast)
        bench.clock.advance(limits.ORPHAN_DOUBT_S / 4)
    assert await bench.real_blobs.size("segments/fresh") == 1


async def test_a_sweep_that_fails_half_way_is_finished_by_the_next(bench: WorkBench) -> None:
    file = await bench.hand.upload(3)
    assert await bench.store.files.delete("proj_default", file.id, bench.clock.now())
    sweep = SweepLoop(bench.store.results, bench.blobs, bench.clock)  # type: ignore[arg-type]
    bench.blobs.fail("delete", BlobsUnavailable("away"))
    with pytest.raises(BlobsUnavailable):
        await sweep.tick(bench.clock.now())
    assert await bench.real_blobs.size(file.blob_key) > 0
    await sweep.tick(bench.clock.now())
    with pytest.raises(BlobNotFound):
        await bench.real_blobs.size(file.blob_key)
    assert await bench.store.results.garbage() == []
