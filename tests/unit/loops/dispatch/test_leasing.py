"""How far ahead of its windows a worker leases."""

from worker_env import MODEL, WorkerEnv

from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.loops.dispatch.chunks import ChunkClaims, ChunkReader
from lowtide.loops.dispatch.leasing import Leasing

FAR_S = 100.0


async def leasing_at(env: WorkerEnv, core: Dispatch, rate_per_s: int) -> Leasing:
    """One that has seen so many requests finish each second."""
    claims, reader = ChunkClaims("w", env.store.work, 30.0), ChunkReader(core, env.real_blobs)
    leasing = Leasing(claims, reader, [env.upstream])
    await leasing.claim(env.clock.now(), 0.0)
    for second in range(1, 20):
        core.finished += rate_per_s
        leasing.announce()
        await leasing.claim(env.clock.now(), float(second))
    return leasing


async def test_half_a_second_of_work_is_low_where_claims_are_quick(env: WorkerEnv) -> None:
    core = Dispatch()
    leasing = await leasing_at(env, core, 1000)
    leasing.record_claim_time(0.01)
    core.ready[MODEL] = 550
    assert not leasing.needs_claim(MODEL, FAR_S)
    core.ready[MODEL] = 450
    assert leasing.needs_claim(MODEL, FAR_S)


async def test_more_is_leased_ahead_where_claims_take_long(env: WorkerEnv) -> None:
    """While one takes a second, the windows work off a thousand requests."""
    core = Dispatch()
    leasing = await leasing_at(env, core, 1000)
    core.ready[MODEL] = 2000
    assert not leasing.needs_claim(MODEL, FAR_S)
    leasing.record_claim_time(1.0)
    assert leasing.needs_claim(MODEL, FAR_S)
    for _ in range(20):
        leasing.record_claim_time(0.01)
    assert not leasing.needs_claim(MODEL, FAR_S), "it was slow for a while, long ago"


async def test_what_is_leased_ahead_has_a_bound_however_slow_claims_are(env: WorkerEnv) -> None:
    core = Dispatch()
    leasing = await leasing_at(env, core, 1000)
    leasing.record_claim_time(3600.0)
    core.ready[MODEL] = 5100
    assert not leasing.needs_claim(MODEL, FAR_S)
