"""loops/dispatch/dispatch.py and loops/dispatch/leasing.py: full windows, and letting go."""

import asyncio
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from worker_env import MODEL, WorkerEnv, many_bytes, upstream

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.core.scheduling.operating_hours import OperatingHours, span_of
from lowtide.ports.blobs import BlobNotFound, BlobsUnavailable
from lowtide.ports.store import StoreUnavailable
from testkit.fake_engine import ANSWER, FakeEngine

# ---- full windows ----


async def test_the_window_is_filled_kept_full_and_never_passed(env: WorkerEnv) -> None:
    batch = await env.batch(120)
    env.engine.holds = True
    await env.dispatch()
    for done in range(0, 120, 4):
        await env.engine.saw(lambda done=done: len(env.engine.calls) >= min(done + 4, 120))
        assert len(env.engine.waiting) == 4
        env.engine.let_go()
    await env.flights_ended()
    await env.beat()
    assert env.engine.peak == 4
    assert (await env.see(batch)).counts.completed == 120


async def test_every_line_is_sent_once_with_its_own_body_to_its_endpoint(env: WorkerEnv) -> None:
    await env.batch(150)
    await env.work_off()
    contents = [call.body.split(b'"content":"')[1].split(b'"')[0] for call in env.engine.calls]
    assert sorted(contents) == sorted(b"line %d" % n for n in range(1, 151))
    assert {call.path for call in env.engine.calls} == {"/chat/completions"}


async def test_an_idle_worker_asks_again_after_the_poll_and_not_before(env: WorkerEnv) -> None:
    assert await env.dispatch() == limits.IDLE_POLL_S
    assert env.work.calls["claim_chunks"] == 1
    await env.dispatch()
    assert env.work.calls["claim_chunks"] == 1
    env.clock.advance(limits.IDLE_POLL_S)
    await env.dispatch()
    assert env.work.calls["claim_chunks"] == 2


async def test_batch_work_starts_in_its_hours_alone(env: WorkerEnv) -> None:
    """The bench begins at 01:04."""
    batch = await env.batch(3)
    env.hours[MODEL] = OperatingHours(*span_of("02:00-03:00"), ZoneInfo("UTC"))
    await env.dispatch()
    assert not env.engine.calls
    env.clock.advance(3600)
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 3


async def test_an_announcement_does_not_wait_for_the_poll(env: WorkerEnv) -> None:
    await env.dispatch()
    batch = await env.batch(3)
    env.dispatcher.announce()
    assert env.woken["dispatch"] == 1
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 3


async def test_an_announcement_during_a_claim_does_not_wait_for_the_poll(env: WorkerEnv) -> None:
    batches: list[Batch] = []

    async def claim_that_comes_too_early(*args: Any) -> list[ChunkLease]:
        leases = await env.store.work.claim_chunks(*args)
        if not batches:
            batches.append(await env.batch(3))
            env.dispatcher.announce()
        return leases

    env.work.claim_chunks = claim_that_comes_too_early
    await env.work_off()
    assert (await env.see(batches[0])).counts.completed == 3


async def test_leasing_stops_a_little_ahead_of_the_windows(env: WorkerEnv) -> None:
    await env.batch(2000)
    env.engine.holds = True
    while await env.dispatch() == 0:
        pass
    leased = len(env.dispatcher.held())
    assert 2 <= leased <= 4, "of sixteen chunks"
    await env.dispatcher.drain(0.0)


# ---- waiting without spinning ----


async def test_a_worker_that_waits_for_a_dead_engine_is_asked_again_when_it_probes(
    env: WorkerEnv,
) -> None:
    await env.batch(10)
    env.engine.otherwise = NoReply("connect", "refused")
    due_s = await env.dispatch()
    await env.flights_ended()
    waited_s = 0.0
    for _ in range(60):
        due_s = await env.dispatch()
        await env.flights_ended()
        assert due_s is not None
        waited_s += due_s
        env.clock.advance(due_s)
    assert waited_s > 30, "about one tick a second, and a probe every five"
    assert len(env.engine.calls) < 30
    env.engine.otherwise = ANSWER
    env.clock.advance(limits.CIRCUIT_COOLDOWN_S_MAX)
    await env.work_off()


async def test_a_far_retry_does_not_make_it_spin(env: WorkerEnv) -> None:
    await env.batch(1)
    env.engine.script.append(Reply(429, b"", 50.0))
    await env.dispatch()
    await env.flights_ended()
    ticks = 0
    while len(env.engine.calls) == 1:
        due_s = await env.dispatch()
        await env.flights_ended()
        assert due_s is not None and due_s >= limits.TICK_S_MIN
        env.clock.advance(due_s)
        ticks += 1
    assert 45 <= env.clock.monotonic() <= 52
    assert ticks <= 60
    await env.dispatcher.drain(0.0)


async def test_an_engine_that_is_full_is_not_flooded_and_gets_no_chunks_hoarded_for_it(
    env: WorkerEnv,
) -> None:
    await env.batch(3000)
    env.engine.otherwise = Reply(503, b"")
    for _ in range(100):
        due_s = await env.dispatch()
        await env.flights_ended()
        env.clock.advance(due_s or limits.TICK_S_MIN)
    assert len(env.engine.calls) < 120
    assert len(env.dispatcher.held()) <= 4


# ---- back-pressure of our own ----


async def test_with_too_much_uncommitted_nothing_is_sent_until_a_beat_succeeds(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(30)
    env.engine.otherwise = Reply(200, many_bytes(0.5))
    await env.dispatch()
    await env.flights_ended()
    sent = len(env.engine.calls)
    most = limits.UNCOMMITTED_BYTES_MAX // (limits.SEGMENT_BYTES_MAX // 2)
    assert most <= sent <= most + 4
    assert await env.dispatch() is None, "only a beat can change that"
    assert len(env.engine.calls) == sent
    env.engine.otherwise = ANSWER
    woken = env.woken["dispatch"]
    await env.beat()
    assert env.woken["dispatch"] > woken
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 31))


async def test_windows_that_wait_for_memory_which_a_commit_frees_do_not_sit_out_the_beat(
    env: WorkerEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    await env.batch(600)
    monkeypatch.setattr(limits, "LEASED_INPUT_BYTES_MAX", 1)
    env.engine.script.append(Reply(500, b""))  # its chunk waits for the next try
    await env.dispatch()
    assert env.woken["commit"] == 0
    await env.flights_ended()
    assert len(env.engine.calls) == 256, "two chunks, as much as may be held"
    await env.dispatch()
    assert env.woken["commit"] == 1
    await env.beat()
    await env.dispatch()
    assert env.woken["commit"] == 1, "no commit gives room now"
    await env.dispatcher.drain(0.0)


# ---- letting go ----


async def test_a_cancelled_batch_is_aborted_released_and_keeps_what_finished(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(200)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.engine.let_go()
    await env.engine.saw(lambda: len(env.engine.calls) == 8)
    await env.store.batches.cancel(batch.project_id, batch.id, env.clock.now())
    await env.beat()
    await env.flights_ended()
    assert len(env.engine.cancelled) == 4
    assert (env.replica.in_flight, env.dispatcher.held()) == (0, ())
    assert env.woken["commit"] >= 1
    assert await env.store.lifecycle.claim_assembly("a", env.clock.now(), 30.0) is None
    await env.beat()
    assert await env.store.lifecycle.claim_assembly("a", env.clock.now(), 30.0) is not None
    assert len(await env.committed_lines(batch)) == 4


async def test_calls_that_are_cancelled_before_they_began_give_their_place_back(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(4)
    await env.store.batches.cancel(batch.project_id, batch.id, env.clock.now())
    batch = await env.batch(4)
    tick = asyncio.create_task(env.dispatch())
    while not env.dispatcher._slots.tasks:
        await asyncio.sleep(0)
        if env.dispatcher._slots.tasks:
            for run in list(env.dispatcher._core.runs.values()):
                env.dispatcher._give_back(run)
    await tick
    await env.flights_ended()
    assert env.replica.in_flight == 0
    await env.beat()
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 4


async def test_a_call_that_ends_by_a_fault_of_ours_gives_its_place_and_its_chunk_back(
    env: WorkerEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await env.batch(4)
    good = env.engine.post

    async def faulty(*_: object) -> Reply:
        raise RuntimeError("a bug")

    monkeypatch.setattr(env.engine, "post", faulty)
    await env.dispatch()
    await env.flights_ended()
    assert (env.replica.in_flight, env.dispatcher.held()) == (0, ())
    monkeypatch.setattr(env.engine, "post", good)
    await env.beat()
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 4


async def test_a_chunk_lost_to_another_worker_is_aborted_and_its_outcomes_are_dropped(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(8)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.engine.let_go()
    await env.engine.saw(lambda: len(env.engine.calls) == 8)
    env.clock.advance(limits.LEASE_TTL_S + 1)
    await env.store.work.reap(env.clock.now())
    await env.hand.settle(batch.id, ok=[1, 2, 3])
    await env.beat()
    await env.flights_ended()
    assert len(env.engine.cancelled) == 4
    assert env.dispatcher.held() == ()
    assert await env.committed_lines(batch) == [1, 2, 3]


async def test_a_chunk_that_we_lost_and_leased_again_is_run_once_more_and_counted_once(
    env: WorkerEnv,
) -> None:
    """The machine slept: our own reaper was faster than our beat."""
    batch = await env.batch(8)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.clock.advance(limits.LEASE_TTL_S + 1)
    await env.store.work.reap(env.clock.now())
    env.dispatcher.announce()
    env.engine.holds = False
    await env.dispatch()
    env.engine.let_go()
    await env.flights_ended()
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 9))
    assert (await env.see(batch)).status == "finalizing"
    assert env.dispatcher._core.input_bytes == 0


async def test_a_lease_that_began_while_a_beat_was_under_way_is_not_lost_with_the_one_before(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(8)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.clock.advance(limits.LEASE_TTL_S + 1)
    put = env.blobs.put

    async def lease_again(*args: Any) -> None:
        env.blobs.put = put
        await env.store.work.reap(env.clock.now())
        env.dispatcher.announce()
        await env.dispatch()
        await put(*args)

    env.blobs.put = lease_again
    env.engine.let_go()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4 and len(env.engine.calls) == 8)
    await env.beat()
    (held,) = env.dispatcher.held()
    assert held[1] == 2, "the lease of the second claim"
    env.engine.holds = False
    env.engine.let_go()
    await env.flights_ended()
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 9))


async def test_a_request_taken_before_the_process_stood_still_is_not_sent_after_its_ownership(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(3)
    replica = env.upstream.replica
    replica.owned_until_s = env.clock.monotonic() + 1.0
    await env.dispatch()
    env.clock.advance(2.0)
    await env.flights_ended()
    assert not env.engine.calls
    replica.owned_until_s = float("inf")
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 3


async def test_a_request_that_would_be_sent_again_goes_back_when_the_replica_is_another_s(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(1)
    replica = env.replica
    replica.priority = 100
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: bool(env.engine.waiting))
    replica.owned_until_s = env.clock.monotonic()
    env.engine.let_go(Reply(400, b'{"error": {"message": "unknown field priority"}}'))
    await env.flights_ended()
    assert len(env.engine.calls) == 1
    env.engine.holds = False
    replica.owned_until_s = float("inf")
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 1


async def test_trials_of_a_replica_that_is_given_up_are_taken_back(env: WorkerEnv) -> None:
    await env.batch(1)
    env.engine.script.append(Reply(500, b"{}"))
    await env.dispatch()
    await env.flights_ended()
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: bool(env.engine.waiting))
    assert (env.replica.in_flight, env.replica.calls) == (0, 1)
    env.dispatcher.release_replicas(frozenset({env.replica.name}), frozenset({MODEL}))
    await asyncio.wait(list(env.dispatcher._trials.under_way))
    await asyncio.sleep(0)  # its callbacks
    assert (env.replica.calls, len(env.engine.cancelled)) == (0, 1)
    await env.dispatcher.drain(0.0)


async def test_a_trial_that_was_due_is_not_sent_after_the_ownership_has_ended(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(1)
    env.engine.script.append(Reply(500, b"{}"))
    replica = env.upstream.replica
    await env.dispatch()
    await env.flights_ended()
    await env.dispatch()
    assert replica.trials_in_flight == 1
    replica.owned_until_s = env.clock.monotonic()
    calls = len(env.engine.calls)
    await asyncio.wait(list(env.dispatcher._trials.under_way))
    await asyncio.sleep(0)  # its callbacks
    assert (len(env.engine.calls), replica.trials_in_flight) == (calls, 0)
    replica.owned_until_s = float("inf")
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 1


# ---- drain ----


async def test_drain_waits_for_calls_in_flight_and_starts_no_more(env: WorkerEnv) -> None:
    batch = await env.batch(50)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    draining = asyncio.create_task(env.dispatcher.drain(60.0))
    await asyncio.sleep(0)
    env.engine.let_go()
    await draining
    await env.committer.finish(env.clock.now())
    assert len(env.engine.calls) == 4
    assert not env.engine.cancelled
    assert len(await env.committed_lines(batch)) == 4
    await env.dispatch()
    assert len(env.engine.calls) == 4
    env.start()
    env.engine.holds = False
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 51))
    assert len(env.engine.calls) == 50


async def test_calls_that_outlast_the_drain_are_aborted_and_their_chunks_released(
    env: WorkerEnv,
) -> None:
    await env.batch(50)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    await env.dispatcher.drain(0.01)
    await env.committer.finish(env.clock.now())
    assert len(env.engine.cancelled) == 4
    assert env.replica.in_flight == 0
    assert len(await env.store.work.claim_chunks("x", [MODEL], 9, env.clock.now(), 30)) == 1


async def test_a_claim_under_way_when_the_drain_begins_is_given_back(env: WorkerEnv) -> None:
    await env.batch(10)
    tick = asyncio.create_task(env.dispatch())
    await asyncio.sleep(0)
    assert not tick.done()
    await env.dispatcher.drain(60.0)
    await tick
    await env.committer.finish(env.clock.now())
    assert not env.engine.calls
    assert len(await env.store.work.claim_chunks("x", [MODEL], 9, env.clock.now(), 30)) == 1


# ---- claims that fail ----


async def test_a_chunk_whose_lines_cannot_be_read_is_not_in_the_way_of_the_others(
    env: WorkerEnv,
) -> None:
    batch = await env.batch(300)
    env.blobs.fail("read_ranges", BlobsUnavailable("the bucket is away"))
    with pytest.raises(BlobsUnavailable):
        await env.dispatch()
    await env.beat()
    env.clock.advance(1.0)
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(129, 301))
    env.clock.advance(limits.LEASE_TTL_S)
    assert await env.store.work.reap(env.clock.now()) == 1
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 301))


async def test_a_store_that_refuses_a_claim_does_not_hold_back_retries(env: WorkerEnv) -> None:
    await env.batch(1)
    env.engine.script.append(Reply(429, b""))
    await env.dispatch()
    await env.flights_ended()
    env.clock.advance(limits.BACKOFF_CAP_S)
    env.work.fail("claim_chunks", StoreUnavailable("locked"))
    with pytest.raises(StoreUnavailable):
        await env.dispatch()
    await env.flights_ended()
    assert len(env.engine.calls) == 2


# ---- many replicas ----


async def test_replicas_of_one_model_share_its_work(env: WorkerEnv) -> None:
    batch = await env.batch(600)
    engines = [FakeEngine(url=f"http://fake{n}/v1") for n in range(3)]
    env.start([upstream(engine, window=2) for engine in engines])
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 601))
    assert all(engine.calls for engine in engines)
    assert all(engine.peak <= 2 for engine in engines)


async def test_a_dead_replica_leaves_its_work_to_the_others(env: WorkerEnv) -> None:
    batch = await env.batch(300)
    dead, well = FakeEngine(url="http://dead/v1"), FakeEngine(url="http://well/v1")
    dead.otherwise = NoReply("connect", "refused")
    env.start([upstream(dead), upstream(well)])
    await env.work_off()
    seen = await env.see(batch)
    assert (seen.counts.completed, seen.counts.failed) == (300, 0)
    assert len(dead.calls) < 50


async def test_a_batch_whose_input_is_gone_ends_with_what_it_has(env: WorkerEnv) -> None:
    batch = await env.batch(5)
    await env.hand.settle(batch.id, ok=[2], bad=[4])
    await env.hand.let_go(batch.id)
    await env.real_blobs.delete("inputs/in1")
    env.dispatcher.announce()
    await env.dispatch()
    await env.beat()
    assert (await env.see(batch)).status == "finalizing"
    assert env.engine.calls == []
    await env.assemble()
    ended = await env.see(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 1, 4)
    assert [error.code for error in ended.errors] == ["input_lost"]


async def test_a_store_without_plan_and_input_is_taken_to_be_away(env: WorkerEnv) -> None:
    """Blobs that are all missing mean a folder that is not mounted, or the wrong bucket."""
    batch = await env.batch(5)
    await env.real_blobs.delete("inputs/in1")
    await env.real_blobs.delete(f"plans/{batch.id}-1")
    with pytest.raises(BlobNotFound):
        await env.dispatch()
    assert (await env.see(batch)).status == "in_progress"


async def test_an_answer_without_usage_is_charged_an_estimate_and_marked(env: WorkerEnv) -> None:
    said = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"Hi there"}}]}'
    env.engine.otherwise = Reply(200, said)
    batch = await env.batch(3)
    await env.work_off()
    seen = await env.see(batch)
    assert seen.usage.unreported == 3
    assert seen.usage.input_tokens > 0
    assert seen.usage.output_tokens == 3 * 2
    tally = env.dispatcher.tallies.of(env.replica.name, "test-model")
    assert (tally.succeeded, tally.unreported) == (3, 3)
    cost = (await env.store.ledger.cost([batch.id]))[batch.id]
    assert cost.usage == seen.usage
    entries = await env.store.ledger.entries(batch.id)
    assert sum(entry.usage.unreported for entry in entries) == 3
