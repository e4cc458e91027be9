"""Leasing and places of a worker where one organization's work came long before another's."""

from collections import Counter
from typing import Any

import pytest
from worker_env import MODEL, WorkerEnv

from lowtide import limits
from lowtide.core.accounts.tenancy import Organization, Project
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkLease
from testkit.manual_worker import ManualWorker

LINES = 40


@pytest.fixture
async def other(env: WorkerEnv) -> ManualWorker:
    """A second organization's uploads; its requests carry `line n` like everybody's."""
    now = env.clock.now()
    await env.store.tenants.add_organization(Organization(id="org_b", name="b", created_at=now))
    await env.store.tenants.add_project(
        Project(id="proj_b", organization_id="org_b", name="b", created_at=now)
    )
    return ManualWorker(env.store, env.real_blobs, env.clock, project_id="proj_b")


async def batch_of(hand: ManualWorker, requests: int, batch_id: str) -> Batch:
    batch = await hand.submit(await hand.upload(requests), batch_id)
    await hand.plan()
    return batch


def ready(env: WorkerEnv) -> Counter[str]:
    """Requests that could be sent at once, by project."""
    runs = env.dispatcher._core.runs.values()
    counts: Counter[str] = Counter()
    for run in runs:
        counts[run.lease.project_id] += len(run.pending)
    return counts


async def busy_with_many(env: WorkerEnv) -> None:
    """Many batches of one organization, whose calls never end."""
    env.engine.holds = True
    for _ in range(12):
        await env.batch(LINES)
    while await env.dispatch() == 0:
        pass
    await env.engine.saw(lambda: len(env.engine.waiting) == int(env.replica.window))


async def test_a_batch_that_comes_late_is_leased_at_once_and_gets_the_next_place(
    env: WorkerEnv, other: ManualWorker
) -> None:
    await busy_with_many(env)
    await batch_of(other, LINES, "late")
    env.clock.advance(limits.SUPPLY_POLL_S)
    env.dispatcher.announce()
    await env.dispatch()
    assert ready(env)["proj_b"] == LINES
    env.engine.waiting[0].answered.set_result(env.engine.otherwise)
    await env.engine.saw(lambda: len(env.engine.calls) > int(env.replica.window))
    slots = env.dispatcher.calls_on(env.replica.name)
    assert Counter(request.run.lease.project_id for request in slots)["proj_b"] == 1
    await env.dispatcher.drain(0.0)


async def test_it_is_found_at_the_poll_where_nobody_announced_it(
    env: WorkerEnv, other: ManualWorker
) -> None:
    await busy_with_many(env)
    await batch_of(other, LINES, "late")
    due_s = await env.dispatch()
    assert due_s is not None and due_s <= limits.IDLE_POLL_S
    env.clock.advance(limits.IDLE_POLL_S)
    await env.dispatch()
    assert ready(env)["proj_b"] == LINES
    await env.dispatcher.drain(0.0)


async def test_its_next_chunks_come_before_the_last_one_is_gone(
    env: WorkerEnv, other: ManualWorker
) -> None:
    """More is ready than a worker leases ahead: all of it the other one's."""
    await busy_with_many(env)
    await batch_of(other, 10 * limits.CHUNK_REQUESTS_MAX, "late")
    env.dispatcher.announce()
    core, seen = env.dispatcher._core, []
    for _ in range(10):
        env.clock.advance(limits.SUPPLY_POLL_S)
        await env.dispatch()
        seen.append(ready(env)["proj_b"])
        for run in [run for run in core.runs.values() if run.lease.project_id == "proj_b"]:
            for _ in range(min(50, len(run.pending))):
                run.pending.popleft()
                core.ready[MODEL] -= 1
        core.runs_short = True
    assert min(seen) > 0, seen
    await env.dispatcher.drain(0.0)


async def test_looking_for_others_is_bounded_in_time(env: WorkerEnv) -> None:
    """One claim in so long, however much is announced."""
    await busy_with_many(env)
    claims = 0

    async def counted(*args: Any) -> list[ChunkLease]:
        nonlocal claims
        claims += 1
        return await env.store.work.claim_chunks(*args)

    env.work.claim_chunks = counted
    for _ in range(100):
        env.dispatcher.announce()
        await env.dispatch()
        env.clock.advance(limits.SUPPLY_POLL_S / 10)
    assert 9 <= claims <= 11
    await env.dispatcher.drain(0.0)
