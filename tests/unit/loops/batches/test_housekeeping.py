"""loops/batches/housekeeping.py: windows that end, leases that run out, blobs that nobody needs."""

from datetime import UTC, datetime, timedelta

import pytest
from worker_env import WorkerEnv

from lowtide import limits
from lowtide.loops.batches.housekeeping import ExpireLoop, SweepLoop
from lowtide.ports.blobs import BlobNotFound, BlobsUnavailable


class Woken:
    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        self.names.append(name)


def expire_loop(env: WorkerEnv) -> tuple[ExpireLoop, Woken]:
    woken = Woken()
    return ExpireLoop(env.store.lifecycle, env.work, woken), woken  # type: ignore[arg-type]


async def test_a_window_that_is_over_stops_its_batch_at_the_next_beat(env: WorkerEnv) -> None:
    batch = await env.batch(200)
    loop, woken = expire_loop(env)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.clock.advance(3590)
    await env.beat()
    due = await loop.tick(env.clock.now())
    assert due is not None and due - env.clock.now() == timedelta(seconds=limits.REAP_POLL_S)
    now = env.clock.advance(9)
    assert await loop.tick(now) == now + timedelta(seconds=1), "at the very end of the window"
    await loop.tick(env.clock.advance(1))
    assert woken.names == ["commit", "assemble"]
    assert (await env.see(batch)).status == "expiring"
    await env.beat()
    await env.flights_ended()
    assert len(env.engine.cancelled) == 4


async def test_a_lease_that_ran_out_is_work_for_the_next(env: WorkerEnv) -> None:
    await env.batch(5)
    loop, woken = expire_loop(env)
    env.engine.holds = True
    await env.dispatch()
    env.clock.advance(limits.LEASE_TTL_S - 1)
    await loop.tick(env.clock.now())
    assert woken.names == []
    await loop.tick(env.clock.advance(1))
    assert woken.names == ["dispatch", "assemble"]
    await env.dispatcher.drain(0.0)


async def test_whoever_stood_still_beats_before_it_reaps_its_own_leases(env: WorkerEnv) -> None:
    batch = await env.batch(5)
    loop, woken = expire_loop(env)
    env.engine.holds = True
    await env.dispatch()
    await loop.tick(env.clock.now())
    env.clock.advance(10 * limits.LEASE_TTL_S)
    await loop.tick(env.clock.now())
    assert woken.names == ["commit"]
    await env.beat()
    await loop.tick(env.clock.advance(limits.REAP_POLL_S))
    assert woken.names == ["commit"], "the leases were renewed"
    env.engine.holds = False
    env.engine.let_go()
    await env.work_off()
    assert len(env.engine.calls) == 5, "no request was sent again"
    assert (await env.see(batch)).status in ("finalizing", "completed")


async def test_blobs_that_no_row_knows_go_after_an_hour_and_not_before(env: WorkerEnv) -> None:
    batch = await env.batch(5)
    await env.work_off()
    await env.real_blobs.put("segments/orphan", b"x")
    (row,) = await env.store.results.slices(batch.id)
    sweep = SweepLoop(env.store.results, env.real_blobs, env.clock)
    info = [info async for info in env.real_blobs.list("segments/")]
    written_at = max(entry.modified_at for entry in info)
    await sweep.tick(written_at + timedelta(seconds=limits.ORPHAN_AGE_S - 60))
    assert await env.real_blobs.size("segments/orphan") == 1
    env.clock.advance(limits.ORPHAN_AGE_S)
    old = written_at + timedelta(seconds=2 * limits.ORPHAN_AGE_S)
    await sweep.tick(old)
    assert await env.real_blobs.size("segments/orphan") == 1, "in doubt"
    env.clock.advance(limits.ORPHAN_DOUBT_S)
    await sweep.tick(old)
    with pytest.raises(BlobNotFound):
        await env.real_blobs.size("segments/orphan")
    assert await env.real_blobs.size(row.segment_key) > 0, "known, and kept"


async def test_a_clock_two_hours_fast_does_not_sweep_a_segment_before_its_commit(
    env: WorkerEnv,
) -> None:
    """A segment is put, swept by another worker, committed: its lines were lost (seed 64)."""
    await env.real_blobs.put("segments/fresh", b"x")
    sweep = SweepLoop(env.store.results, env.real_blobs, env.clock)
    fast = datetime.now(UTC) + timedelta(hours=2)
    for _ in range(3):
        await sweep.tick(fast)
        env.clock.advance(limits.ORPHAN_DOUBT_S / 4)
    assert await env.real_blobs.size("segments/fresh") == 1


async def test_a_sweep_that_fails_half_way_is_finished_by_the_next(env: WorkerEnv) -> None:
    file = await env.hand.upload(3)
    assert await env.store.files.delete("proj_default", file.id, env.clock.now())
    sweep = SweepLoop(env.store.results, env.blobs, env.clock)  # type: ignore[arg-type]
    env.blobs.fail("delete", BlobsUnavailable("away"))
    with pytest.raises(BlobsUnavailable):
        await sweep.tick(env.clock.now())
    assert await env.real_blobs.size(file.blob_key) > 0
    await sweep.tick(env.clock.now())
    with pytest.raises(BlobNotFound):
        await env.real_blobs.size(file.blob_key)
    assert await env.store.results.garbage() == []
