"""loops/dispatch/dispatch.py and loops/dispatch/leasing.py: full windows, and letting go."""

import asyncio
from typing import Any

import pytest
from worker_env import MODEL, WorkBench, many_bytes, upstream

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.core.scheduling.operating_hours import hours_of
from lowtide.ports.blobs import BlobNotFound, BlobsUnavailable
from lowtide.ports.store import StoreUnavailable
from testkit.fake_engine import ANSWER, FakeEngine

# ---- full windows ----


async def test_the_window_is_filled_kept_full_and_never_passed(bench: WorkBench) -> None:
    batch = await bench.batch(120)
    bench.engine.holds = True
    await bench.dispatch()
    for done in range(0, 120, 4):
        await bench.engine.saw(lambda done=done: len(bench.engine.calls) >= min(done + 4, 120))
        assert len(bench.engine.waiting) == 4
        bench.engine.let_go()
    await bench.flights_ended()
    await bench.beat()
    assert bench.engine.peak == 4
    assert (await bench.see(batch)).counts.completed == 120


async def test_every_line_is_sent_once_with_its_own_body_to_its_endpoint(bench: WorkBench) -> None:
    await bench.batch(150)
    await bench.work_off()
    contents = [call.body.split(b'"content":"')[1].split(b'"')[0] for call in bench.engine.calls]
    assert sorted(contents) == sorted(b"line %d" % n for n in range(1, 151))
    assert {call.path for call in bench.engine.calls} == {"/chat/completions"}


async def test_an_idle_worker_asks_again_after_the_poll_and_not_before(bench: WorkBench) -> None:
    assert await bench.dispatch() == limits.IDLE_POLL_S
    assert bench.work.calls["claim_chunks"] == 1
    await bench.dispatch()
    assert bench.work.calls["claim_chunks"] == 1
    bench.clock.advance(limits.IDLE_POLL_S)
    await bench.dispatch()
    assert bench.work.calls["claim_chunks"] == 2


async def test_batch_work_starts_in_its_hours_alone(bench: WorkBench) -> None:
    """The bench begins at 01:04."""
    batch = await bench.batch(3)
    bench.hours[MODEL] = hours_of("02:00-03:00", "UTC")
    await bench.dispatch()
    assert not bench.engine.calls
    bench.clock.advance(3600)
    await bench.work_off()
    assert (await bench.see(batch)).counts.completed == 3


async def test_an_announcement_does_not_wait_for_the_poll(bench: WorkBench) -> None:
    await bench.dispatch()
    batch = await bench.batch(3)
    bench.dispatcher.announce()
    assert bench.woken["dispatch"] == 1
    await bench.work_off()
    assert (await bench.see(batch)).counts.completed == 3


async def test_an_announcement_during_a_claim_does_not_wait_for_the_poll(bench: WorkBench) -> None:
    batches: list[Batch] = []

    async def claim_that_comes_too_early(*args: Any) -> list[ChunkLease]:
        leases = await bench.store.work.claim_chunks(*args)
        if not batches:
            batches.append(await bench.batch(3))
            bench.dispatcher.announce()
        return leases

    bench.work.claim_chunks = claim_that_comes_too_early
    await bench.work_off()
    assert (await bench.see(batches[0])).counts.completed == 3


async def test_leasing_stops_a_little_ahead_of_the_windows(bench: WorkBench) -> None:
    await bench.batch(2000)
    bench.engine.holds = True
    while await bench.dispatch() == 0:
        pass
    leased = len(bench.dispatcher.held())
    assert 2 <= leased <= 4, "of sixteen chunks"
    await bench.dispatcher.drain(0.0)


# ---- waiting without spinning ----


async def test_a_worker_that_waits_for_a_dead_engine_is_asked_again_when_it_probes(
    bench: WorkBench,
) -> None:
    await bench.batch(10)
    bench.engine.otherwise = NoReply("connect", "refused")
    due_s = await bench.dispatch()
    await bench.flights_ended()
    waited_s = 0.0
    for _ in range(60):
        due_s = await bench.dispatch()
        await bench.flights_ended()
        assert due_s is not None
        waited_s += due_s
        bench.clock.advance(due_s)
    assert waited_s > 30, "about one tick a second, and a probe every five"
    assert len(bench.engine.calls) < 30
    bench.engine.otherwise = ANSWER
    bench.clock.advance(limits.CIRCUIT_COOLDOWN_S_MAX)
    await bench.work_off()


async def test_a_far_retry_does_not_make_it_spin(bench: WorkBench) -> None:
    await bench.batch(1)
    bench.engine.script.append(Reply(429, b"", 50.0))
    await bench.dispatch()
    await bench.flights_ended()
    ticks = 0
    while len(bench.engine.calls) == 1:
        due_s = await bench.dispatch()
        await bench.flights_ended()
        assert due_s is not None and due_s >= limits.TICK_S_MIN
        bench.clock.advance(due_s)
        ticks += 1
    assert 45 <= bench.clock.monotonic() <= 52
    assert ticks <= 60
    await bench.dispatcher.drain(0.0)


async def test_an_engine_that_is_full_is_not_flooded_and_gets_no_chunks_hoarded_for_it(
    bench: WorkBench,
) -> None:
    await bench.batch(3000)
    bench.engine.otherwise = Reply(503, b"")
    for _ in range(100):
        due_s = await bench.dispatch()
        await bench.flights_ended()
        bench.clock.advance(due_s or limits.TICK_S_MIN)
    assert len(bench.engine.calls) < 120
    assert len(bench.dispatcher.held()) <= 4


# ---- back-pressure of our own ----


async def test_with_too_much_uncommitted_nothing_is_sent_until_a_beat_succeeds(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(30)
    bench.engine.otherwise = Reply(200, many_bytes(0.5))
    await bench.dispatch()
    await bench.flights_ended()
    sent = len(bench.engine.calls)
    most = limits.UNCOMMITTED_BYTES_MAX // (limits.SEGMENT_BYTES_MAX // 2)
    assert most <= sent <= most + 4
    assert await bench.dispatch() is None, "only a beat can change that"
    assert len(bench.engine.calls) == sent
    bench.engine.otherwise = ANSWER
    woken = bench.woken["dispatch"]
    await bench.beat()
    assert bench.woken["dispatch"] > woken
    await bench.work_off()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 31))


async def test_windows_that_wait_for_memory_which_a_commit_frees_do_not_sit_out_the_beat(
    bench: WorkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.batch(600)
    monkeypatch.setattr(limits, "LEASED_INPUT_BYTES_MAX", 1)
    bench.engine.script.append(Reply(500, b""))  # its chunk waits for the next try
    await bench.dispatch()
    assert bench.woken["commit"] == 0
    await bench.flights_ended()
    assert len(bench.engine.calls) == 256, "two chunks, as much as may be held"
    await bench.dispatch()
    assert bench.woken["commit"] == 1
    await bench.beat()
    await bench.dispatch()
    assert bench.woken["commit"] == 1, "no commit gives room now"
    await bench.dispatcher.drain(0.0)


# ---- letting go ----


async def test_a_cancelled_batch_is_aborted_released_and_keeps_what_finished(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(200)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.engine.let_go()
    await bench.engine.saw(lambda: len(bench.engine.calls) == 8)
    await bench.store.batches.cancel(batch.project_id, batch.id, bench.clock.now())
    await bench.beat()
    await bench.flights_ended()
    assert len(bench.engine.cancelled) == 4
    assert (bench.replica.in_flight, bench.dispatcher.held()) == (0, ())
    assert bench.woken["commit"] >= 1
    assert await bench.store.lifecycle.claim_assembly("a", bench.clock.now(), 30.0) is None
    await bench.beat()
    assert await bench.store.lifecycle.claim_assembly("a", bench.clock.now(), 30.0) is not None
    assert len(await bench.committed_lines(batch)) == 4


async def test_calls_that_are_cancelled_before_they_began_give_their_place_back(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(4)
    await bench.store.batches.cancel(batch.project_id, batch.id, bench.clock.now())
    batch = await bench.batch(4)
    tick = asyncio.create_task(bench.dispatch())
    while not bench.dispatcher._slots:
        await asyncio.sleep(0)
        if bench.dispatcher._slots:
            for run in list(bench.dispatcher._core.runs.values()):
                bench.dispatcher._give_back(run)
    await tick
    await bench.flights_ended()
    assert bench.replica.in_flight == 0
    await bench.beat()
    await bench.work_off()
    assert (await bench.see(batch)).counts.completed == 4


async def test_a_call_that_ends_by_a_fault_of_ours_gives_its_place_and_its_chunk_back(
    bench: WorkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.batch(4)
    good = bench.engine.post

    async def faulty(*_: object) -> Reply:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.engine, "post", faulty)
    await bench.dispatch()
    await bench.flights_ended()
    assert (bench.replica.in_flight, bench.dispatcher.held()) == (0, ())
    monkeypatch.setattr(bench.engine, "post", good)
    await bench.beat()
    await bench.work_off()
    assert (await bench.see(batch)).counts.completed == 4


async def test_a_chunk_lost_to_another_worker_is_aborted_and_its_outcomes_are_dropped(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(8)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.engine.let_go()
    await bench.engine.saw(lambda: len(bench.engine.calls) == 8)
    bench.clock.advance(limits.LEASE_TTL_S + 1)
    await bench.store.work.reap(bench.clock.now())
    await bench.hand.settle(batch.id, ok=[1, 2, 3])
    await bench.beat()
    await bench.flights_ended()
    assert len(bench.engine.cancelled) == 4
    assert bench.dispatcher.held() == ()
    assert await bench.committed_lines(batch) == [1, 2, 3]


async def test_a_chunk_that_we_lost_and_leased_again_is_run_once_more_and_counted_once(
    bench: WorkBench,
) -> None:
    """The machine slept: our own reaper was faster than our beat."""
    batch = await bench.batch(8)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.clock.advance(limits.LEASE_TTL_S + 1)
    await bench.store.work.reap(bench.clock.now())
    bench.dispatcher.announce()
    bench.engine.holds = False
    await bench.dispatch()
    bench.engine.let_go()
    await bench.flights_ended()
    await bench.work_off()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 9))
    assert (await bench.see(batch)).status == "finalizing"
    assert bench.dispatcher._core.input_bytes == 0


async def test_a_lease_that_began_while_a_beat_was_under_way_is_not_lost_with_the_one_before(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(8)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.clock.advance(limits.LEASE_TTL_S + 1)
    put = bench.blobs.put

    async def lease_again(*args: Any) -> None:
        bench.blobs.put = put
        await bench.store.work.reap(bench.clock.now())
        bench.dispatcher.announce()
        await bench.dispatch()
        await put(*args)

    bench.blobs.put = lease_again
    bench.engine.let_go()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4 and len(bench.engine.calls) == 8)
    await bench.beat()
    (held,) = bench.dispatcher.held()
    assert held[1] == 2, "the lease of the second claim"
    bench.engine.holds = False
    bench.engine.let_go()
    await bench.flights_ended()
    await bench.work_off()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 9))


async def test_a_request_taken_before_the_process_stood_still_is_not_sent_after_its_ownership(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(3)
    replica = bench.upstream.replica
    replica.owned_until_s = bench.clock.monotonic() + 1.0
    await bench.dispatch()
    bench.clock.advance(2.0)
    await bench.flights_ended()
    assert not bench.engine.calls
    replica.owned_until_s = float("inf")
    await bench.work_off()
    assert (await bench.see(batch)).counts.completed == 3


async def test_a_request_that_would_be_sent_again_goes_back_when_the_replica_is_another_s(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(1)
    replica = bench.replica
    replica.priority = 100
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: bool(bench.engine.waiting))
    replica.owned_until_s = bench.clock.monotonic()
    bench.engine.let_go(Reply(400, b'{"error": {"message": "unknown field priority"}}'))
    await bench.flights_ended()
    assert len(bench.engine.calls) == 1
    bench.engine.holds = False
    replica.owned_until_s = float("inf")
    await bench.work_off()
    assert (await bench.see(batch)).counts.completed == 1


async def test_trials_of_a_replica_that_is_given_up_are_taken_back(bench: WorkBench) -> None:
    await bench.batch(1)
    bench.engine.script.append(Reply(500, b"{}"))
    await bench.dispatch()
    await bench.flights_ended()
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: bool(bench.engine.waiting))
    assert (bench.replica.in_flight, bench.replica.calls) == (0, 1)
    bench.dispatcher.retreat(frozenset({bench.replica.name}), frozenset({MODEL}))
    await asyncio.wait(list(bench.dispatcher._trials.under_way))
    await asyncio.sleep(0)  # its callbacks
    assert (bench.replica.calls, len(bench.engine.cancelled)) == (0, 1)
    await bench.dispatcher.drain(0.0)


async def test_a_trial_that_was_due_is_not_sent_after_the_ownership_has_ended(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(1)
    bench.engine.script.append(Reply(500, b"{}"))
    replica = bench.upstream.replica
    await bench.dispatch()
    await bench.flights_ended()
    await bench.dispatch()
    assert replica.trials_in_flight == 1
    replica.owned_until_s = bench.clock.monotonic()
    calls = len(bench.engine.calls)
    await asyncio.wait(list(bench.dispatcher._trials.under_way))
    await asyncio.sleep(0)  # its callbacks
    assert (len(bench.engine.calls), replica.trials_in_flight) == (calls, 0)
    replica.owned_until_s = float("inf")
    await bench.work_off()
    assert (await bench.see(batch)).counts.completed == 1


# ---- drain ----


async def test_drain_waits_for_calls_in_flight_and_starts_no_more(bench: WorkBench) -> None:
    batch = await bench.batch(50)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    draining = asyncio.create_task(bench.dispatcher.drain(60.0))
    await asyncio.sleep(0)
    bench.engine.let_go()
    await draining
    await bench.committer.finish(bench.clock.now())
    assert len(bench.engine.calls) == 4
    assert not bench.engine.cancelled
    assert len(await bench.committed_lines(batch)) == 4
    await bench.dispatch()
    assert len(bench.engine.calls) == 4
    bench.start()
    bench.engine.holds = False
    await bench.work_off()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 51))
    assert len(bench.engine.calls) == 50


async def test_calls_that_outlast_the_drain_are_aborted_and_their_chunks_released(
    bench: WorkBench,
) -> None:
    await bench.batch(50)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    await bench.dispatcher.drain(0.01)
    await bench.committer.finish(bench.clock.now())
    assert len(bench.engine.cancelled) == 4
    assert bench.replica.in_flight == 0
    assert len(await bench.store.work.claim_chunks("x", [MODEL], 9, bench.clock.now(), 30)) == 1


async def test_a_claim_under_way_when_the_drain_begins_is_given_back(bench: WorkBench) -> None:
    await bench.batch(10)
    tick = asyncio.create_task(bench.dispatch())
    await asyncio.sleep(0)
    assert not tick.done()
    await bench.dispatcher.drain(60.0)
    await tick
    await bench.committer.finish(bench.clock.now())
    assert not bench.engine.calls
    assert len(await bench.store.work.claim_chunks("x", [MODEL], 9, bench.clock.now(), 30)) == 1


# ---- trouble with claims ----


async def test_a_chunk_whose_lines_cannot_be_read_is_not_in_the_way_of_the_others(
    bench: WorkBench,
) -> None:
    batch = await bench.batch(300)
    bench.blobs.fail("read_ranges", BlobsUnavailable("the bucket is away"))
    with pytest.raises(BlobsUnavailable):
        await bench.dispatch()
    await bench.beat()
    bench.clock.advance(1.0)
    await bench.work_off()
    assert sorted(await bench.committed_lines(batch)) == list(range(129, 301))
    bench.clock.advance(limits.LEASE_TTL_S)
    assert await bench.store.work.reap(bench.clock.now()) == 1
    await bench.work_off()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 301))


async def test_a_store_that_refuses_a_claim_does_not_hold_back_retries(bench: WorkBench) -> None:
    await bench.batch(1)
    bench.engine.script.append(Reply(429, b""))
    await bench.dispatch()
    await bench.flights_ended()
    bench.clock.advance(limits.BACKOFF_CAP_S)
    bench.work.fail("claim_chunks", StoreUnavailable("locked"))
    with pytest.raises(StoreUnavailable):
        await bench.dispatch()
    await bench.flights_ended()
    assert len(bench.engine.calls) == 2


# ---- many replicas ----


async def test_replicas_of_one_model_share_its_work(bench: WorkBench) -> None:
    batch = await bench.batch(600)
    engines = [FakeEngine(url=f"http://fake{n}/v1") for n in range(3)]
    bench.start([upstream(engine, window=2) for engine in engines])
    await bench.work_off()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 601))
    assert all(engine.calls for engine in engines)
    assert all(engine.peak <= 2 for engine in engines)


async def test_a_dead_replica_leaves_its_work_to_the_others(bench: WorkBench) -> None:
    batch = await bench.batch(300)
    dead, well = FakeEngine(url="http://dead/v1"), FakeEngine(url="http://well/v1")
    dead.otherwise = NoReply("connect", "refused")
    bench.start([upstream(dead), upstream(well)])
    await bench.work_off()
    seen = await bench.see(batch)
    assert (seen.counts.completed, seen.counts.failed) == (300, 0)
    assert len(dead.calls) < 50


async def test_a_batch_whose_input_is_gone_ends_with_what_it_has(bench: WorkBench) -> None:
    batch = await bench.batch(5)
    await bench.hand.settle(batch.id, ok=[2], bad=[4])
    await bench.hand.let_go(batch.id)
    await bench.real_blobs.delete("inputs/in1")
    bench.dispatcher.announce()
    await bench.dispatch()
    await bench.beat()
    assert (await bench.see(batch)).status == "finalizing"
    assert bench.engine.calls == []
    await bench.assemble()
    ended = await bench.see(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 1, 4)
    assert [error.code for error in ended.errors] == ["input_lost"]


async def test_a_store_without_plan_and_input_is_taken_to_be_away(bench: WorkBench) -> None:
    """Blobs that are all missing mean a folder that is not mounted, or the wrong bucket."""
    batch = await bench.batch(5)
    await bench.real_blobs.delete("inputs/in1")
    await bench.real_blobs.delete(f"plans/{batch.id}-1")
    with pytest.raises(BlobNotFound):
        await bench.dispatch()
    assert (await bench.see(batch)).status == "in_progress"


async def test_an_answer_without_usage_is_charged_an_estimate_and_marked(bench: WorkBench) -> None:
    said = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"Hi there"}}]}'
    bench.engine.otherwise = Reply(200, said)
    batch = await bench.batch(3)
    await bench.work_off()
    seen = await bench.see(batch)
    assert seen.usage.unreported == 3
    assert seen.usage.input_tokens > 0
    assert seen.usage.output_tokens == 3 * 2
    tally = bench.dispatcher.tallies.of(bench.replica.name, "test-model")
    assert (tally.succeeded, tally.unreported) == (3, 3)
    cost = (await bench.store.ledger.cost([batch.id]))[batch.id]
    assert cost.usage == seen.usage
    entries = await bench.store.ledger.entries(batch.id)
    assert sum(entry.usage.unreported for entry in entries) == 3
