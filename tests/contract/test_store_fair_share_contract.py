"""Contract of claims between organizations: whose turn it is, and what a claim is charged."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from lowtide import limits
from lowtide.core.accounts.tenancy import OrganizationLimits
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.scheduling.fair_queue import OUTPUT_COST, work_of
from lowtide.core.scheduling.forecast import cell_of
from lowtide.core.usage import Usage
from lowtide.limits import LOCALITY_CHUNKS, OUTPUT_TOKENS_ASSUMED, SUPPLY_LOW
from testkit.store_fixture import DAY_S, PER_ANSWER, TTL_S, StoreFixture, keys, outcomes


async def tenant(world: StoreFixture, project: str, **bounds: int) -> str:
    """A project of an organization of its own."""
    other = await world.organization(limits=OrganizationLimits(**bounds))
    return await world.project(project, other.id)


def by_project(leases: Sequence[ChunkLease]) -> Counter[str]:
    return Counter(lease.project_id for lease in leases)


async def claimed(world: StoreFixture, chunks: int, *, at_once: int = 1) -> Counter[str]:
    """Claim that many, a few at a time, and count them by project."""
    counts: Counter[str] = Counter()
    for _ in range(chunks // at_once):
        counts += by_project(await world.claim(at_once))
    return counts


async def test_organizations_with_work_share_a_pool_alike(world: StoreFixture) -> None:
    for project in ("a", "b", "c"):
        await world.running(*[("m", 2)] * 40, project=await tenant(world, project))
    assert await claimed(world, 30) == {"a": 10, "b": 10, "c": 10}


async def test_a_late_deadline_or_a_low_priority_costs_no_turn(world: StoreFixture) -> None:
    """Priority and deadline order an organization's own batches, never those of others."""
    urgent, modest = await tenant(world, "a"), await tenant(world, "b")
    await world.running(*[("m", 2)] * 40, project=urgent, priority=9)
    await world.running(*[("m", 2)] * 40, project=modest, window_s=7 * DAY_S)
    assert await claimed(world, 20) == {"a": 10, "b": 10}


async def test_an_organization_gets_its_weight(world: StoreFixture) -> None:
    await world.running(*[("m", 2)] * 60, project=await tenant(world, "a", weight=3))
    await world.running(*[("m", 2)] * 60, project=await tenant(world, "b"))
    assert await claimed(world, 40) == {"a": 30, "b": 10}


async def test_a_changed_weight_applies_from_then_on(world: StoreFixture) -> None:
    first = await world.organization()
    await world.running(*[("m", 2)] * 60, project=await world.project("a", first.id))
    await world.running(*[("m", 2)] * 60, project=await tenant(world, "b"))
    assert await claimed(world, 10) == {"a": 5, "b": 5}
    assert await world.store.tenants.change_organization(
        first.id, limits=OrganizationLimits(weight=4), spend_cap_pico=None, now=world.now
    )
    assert await claimed(world, 20) == {"a": 16, "b": 4}


async def test_a_large_claim_goes_from_one_to_the_next_by_a_few_chunks(world: StoreFixture) -> None:
    await world.running(*[("m", 2)] * 40, project=await tenant(world, "a"))
    await world.running(*[("m", 2)] * 40, project=await tenant(world, "b"))
    leases = await world.claim(3 * LOCALITY_CHUNKS)
    turns = [lease.project_id for lease in leases]
    assert turns == ["a"] * LOCALITY_CHUNKS + ["b"] * LOCALITY_CHUNKS + ["a"] * LOCALITY_CHUNKS
    assert [lease.key.seq for lease in leases[: 2 * LOCALITY_CHUNKS]] == [
        *range(LOCALITY_CHUNKS),
        *range(LOCALITY_CHUNKS),
    ], "neighbours in the plan, which share prefixes, stay together"


async def test_work_counts_and_not_requests(world: StoreFixture) -> None:
    large, small = await tenant(world, "a"), await tenant(world, "b")
    await world.running(*[("m", 8)] * 40, project=large)
    await world.running(*[("m", 2)] * 40, project=small)
    assert await claimed(world, 25) == {"a": 5, "b": 20}


async def test_who_comes_late_gets_no_credit_for_that(world: StoreFixture) -> None:
    await world.running(*[("m", 2)] * 60, project=await tenant(world, "a"))
    assert await claimed(world, 30) == {"a": 30}
    await world.running(*[("m", 2)] * 60, project=await tenant(world, "b"))
    assert await claimed(world, 10) == {"a": 5, "b": 5}


async def test_who_comes_back_gets_no_credit_for_the_pause(world: StoreFixture) -> None:
    first, second = await tenant(world, "a"), await tenant(world, "b")
    await world.running(("m", 2), project=first)
    await world.running(*[("m", 2)] * 60, project=second)
    leases = await world.claim(21)
    for lease in leases:
        if lease.project_id == "a":
            await world.settle(lease)
    await world.running(*[("m", 2)] * 60, project=first)
    assert await claimed(world, 10) == {"a": 5, "b": 5}


async def test_after_an_idle_time_all_begin_alike(world: StoreFixture) -> None:
    first, second = await tenant(world, "a"), await tenant(world, "b")
    await world.running(*[("m", 2)] * 9, project=first)
    for lease in await world.claim():
        await world.settle(lease)
    await world.running(*[("m", 2)] * 40, project=second)
    await world.running(*[("m", 2)] * 40, project=first)
    assert await claimed(world, 10) == {"a": 5, "b": 5}


async def test_what_work_did_cost_counts_once_it_is_known(world: StoreFixture) -> None:
    """All were estimated alike; the answers of one are ten times as long."""
    long, short = await tenant(world, "a"), await tenant(world, "b")
    await world.running(*[("m", 1)] * 200, project=long)
    await world.running(*[("m", 1)] * 200, project=short)
    counts: Counter[str] = Counter()
    for _ in range(100):
        lease = await world.claim_one()
        counts[lease.project_id] += 1
        tokens = 1000 if lease.project_id == "a" else 100
        await world.commit(outcomes(lease, usage=Usage(output_tokens=tokens)))
    assert 9 <= counts["b"] / counts["a"] <= 11, counts


async def test_chunks_that_come_back_are_not_charged(world: StoreFixture) -> None:
    first, second = await tenant(world, "a"), await tenant(world, "b")
    await world.running(*[("m", 4)] * 40, project=first)
    await world.running(*[("m", 4)] * 40, project=second)
    ten = [lease for _ in range(10) for lease in await world.claim(1, worker="lost")]
    five = [lease for lease in ten if lease.project_id == "a"]
    await world.commit(released=five[:2], held=[*five[2:]], worker="lost")
    assert await claimed(world, 2) == {"a": 2}, "it was given two less than the other"
    world.pass_time(TTL_S)
    assert await world.store.work.reap(world.now) > 0
    assert await claimed(world, 20) == {"a": 10, "b": 10}


async def test_pools_do_not_count_for_each_other(world: StoreFixture) -> None:
    both, one = await tenant(world, "a"), await tenant(world, "b")
    await world.running(*[("n", 2)] * 30, project=both)
    await world.claim(models=("n",))
    await world.running(*[("m", 2)] * 30, project=both)
    await world.running(*[("m", 2)] * 30, project=one)
    assert await claimed(world, 10) == {"a": 5, "b": 5}


async def test_who_runs_all_it_may_gains_no_credit_meanwhile(world: StoreFixture) -> None:
    bounded = await tenant(world, "a", requests_in_flight=2)
    await world.running(*[("m", 2)] * 60, project=bounded)
    await world.running(*[("m", 2)] * 60, project=await tenant(world, "b"))
    held = [lease for _ in range(21) for lease in await world.claim(1)]
    assert by_project(held) == {"a": 1, "b": 20}
    mine = next(lease for lease in held if lease.project_id == "a")
    await world.settle(mine)
    more = [lease for _ in range(2) for lease in await world.claim(1)]
    assert by_project(more)["a"] == 1


async def test_urgent_batches_go_before_all_turns_and_are_charged(world: StoreFixture) -> None:
    first, second = await tenant(world, "a"), await tenant(world, "b")
    late = await world.running(*[("m", 2)] * 6, project=first, window_s=2 * DAY_S)
    soon = await world.running(*[("m", 2)] * 4, project=first, window_s=DAY_S)
    await world.running(*[("m", 2)] * 60, project=second)
    await world.store.capacity.mark_urgent("m", [soon.id, late.id])
    assert (await world.store.capacity.capacity()).urgent == {"m": [soon.id, late.id]}
    leases = await world.claim(10)
    assert [lease.key.batch_id for lease in leases] == [soon.id] * 4 + [late.id] * 6
    await world.running(*[("m", 2)] * 60, project=first)
    assert await claimed(world, 10) == {"b": 10}, "what was urgent is made up for"


async def test_the_mark_can_be_taken_away(world: StoreFixture) -> None:
    await world.running(*[("m", 2)] * 6, project=await tenant(world, "a"))
    batch = await world.running(*[("m", 2)] * 6, project=await tenant(world, "b"))
    await world.store.capacity.mark_urgent("m", [batch.id])
    await world.store.capacity.mark_urgent("m", [])
    assert await claimed(world, 4) == {"a": 2, "b": 2}


async def test_an_urgent_batch_keeps_its_organizations_bound(world: StoreFixture) -> None:
    batch = await world.running(
        *[("m", 2)] * 6, project=await tenant(world, "a", requests_in_flight=2)
    )
    await world.store.capacity.mark_urgent("m", [batch.id])
    assert len(await world.claim()) == 1


async def test_a_batch_that_is_urgent_for_one_model_waits_its_turn_for_others(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 1), ("n", 1), project=await tenant(world, "b"))
    first = await world.running(("n", 1), project=await tenant(world, "a"))
    await world.store.capacity.mark_urgent("m", [batch.id])
    leases = await world.claim(models=("n",))
    assert {lease.key.batch_id for lease in leases} == {batch.id, first.id}
    assert keys(await world.claim(models=("n", "m")))[0].batch_id == batch.id


# ---- the backlog, and what pools get done


async def test_the_backlog_is_what_batches_in_progress_have_left(world: StoreFixture) -> None:
    await world.completed()
    project = await tenant(world, "a", weight=7)
    batch = await world.running(("m", 4), ("n", 3), project=project, priority=2)
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0]), held=[lease])
    found = {part.model: part for part in (await world.store.capacity.capacity()).backlog}
    assert found.keys() == {"m", "n"}
    part = found["m"]
    assert (part.batch_id, part.weight, part.priority) == (batch.id, 7.0, 2)
    assert (part.requests, part.settled) == (4, 1)
    assert (part.planned_tokens, part.settled_tokens) == (400, 100)
    assert part.deadline_at == batch.expires_at
    assert part.usage == PER_ANSWER
    assert part.planned_cost == 400 + 4 * OUTPUT_COST * OUTPUT_TOKENS_ASSUMED


async def test_a_long_backlog_is_read_in_parts_between_which_others_are_served(
    world: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROWS_AT_ONCE", 2)
    made = [await world.running(("m", 1)) for _ in range(5)]
    pauses, sleep = [], asyncio.sleep

    async def counted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", counted)
    found = (await world.store.capacity.capacity()).backlog
    assert {part.batch_id for part in found} == {batch.id for batch in made}
    assert pauses == [0, 0, 0]


async def test_a_pool_has_the_pace_that_its_beats_had(world: StoreFixture) -> None:
    await world.running(*[("m", 10)] * 60)
    for _ in range(60):
        lease = await world.claim_one()
        world.pass_time(2)
        await world.commit(outcomes(lease))
    pace = (await world.store.capacity.capacity()).paces["m"]
    assert pace.rate is not None
    assert pace.rate == pytest.approx(10 * work_of(PER_ANSWER) / 2, rel=0.01)
    assert pace.output_per_request == pytest.approx(PER_ANSWER.output_tokens)


async def test_time_without_work_is_not_part_of_a_pace(world: StoreFixture) -> None:
    await world.running(*[("m", 10)] * 80)
    for number in range(80):
        if number == 40:
            world.pass_time(600)
        lease = await world.claim_one()
        world.pass_time(2)
        await world.commit(outcomes(lease))
    pace = (await world.store.capacity.capacity()).paces["m"]
    assert pace.rate is not None
    assert pace.rate == pytest.approx(10 * work_of(PER_ANSWER) / 2, rel=0.05)


async def test_an_hour_under_load_teaches_its_cell_of_the_week(world: StoreFixture) -> None:
    await world.running(*[("m", 2)] * 200, window_s=7 * DAY_S)
    hour = cell_of(world.now)
    for _ in range(130):
        lease = await world.claim_one()
        world.pass_time(30)
        await world.commit(outcomes(lease))
    cells = (await world.store.capacity.capacity()).cells["m"]
    assert cells.keys() == {hour}
    assert cells[hour].weeks == 1
    assert cells[hour].p50 == pytest.approx(2 * work_of(PER_ANSWER) / 30, rel=0.05)


async def test_a_new_plan_is_estimated_by_the_answers_that_a_model_gave(
    world: StoreFixture,
) -> None:
    await world.running(*[("m", 30)] * 2)
    for lease in await world.claim():
        world.pass_time(1)
        await world.settle(lease)
    await world.running(("m", 10))
    (part,) = (await world.store.capacity.capacity()).backlog
    planned = 10 * 100 + 10 * OUTPUT_COST * PER_ANSWER.output_tokens
    assert part.planned_cost == pytest.approx(planned)


async def test_what_has_not_ended_is_counted_by_state_and_shown_by_what_is_due_first(
    world: StoreFixture,
) -> None:
    await world.completed()
    first = await world.validating()
    world.pass_time(10)
    second = await world.validating()
    found = await world.store.capacity.unfinished(10)
    assert found.states == {"validating": (2, first.created_at)}
    assert [batch.id for batch in found.batches] == [first.id, second.id]
    assert [batch.id for batch in (await world.store.capacity.unfinished(1)).batches] == [first.id]


# ---- a worker that has enough of some


async def beside(world: StoreFixture, *projects: str, limit: int = 4) -> list[ChunkLease]:
    """A claim of a worker that has enough of those projects' organizations."""
    found = [await world.store.tenants.project(project) for project in projects]
    supplied = {project.organization_id for project in found if project is not None}
    assert len(supplied) == len(projects)
    return await world.store.work.claim_chunks(
        "w1", ("m",), limit, world.now, TTL_S, supplied=supplied
    )


async def test_a_worker_that_has_enough_of_one_gets_a_chunk_of_each_other(
    world: StoreFixture,
) -> None:
    for name in ("a", "b", "c"):
        await world.running(*[("m", SUPPLY_LOW)] * 9, project=await tenant(world, name))
    await world.claim(9)
    assert by_project(await beside(world, "a")) == {"b": 1, "c": 1}


async def test_small_chunks_come_several_at_a_time(world: StoreFixture) -> None:
    for name in ("a", "b"):
        await world.running(*[("m", SUPPLY_LOW // 2)] * 9, project=await tenant(world, name))
    await world.claim(1)
    assert by_project(await beside(world, "a", limit=9)) == {"b": 2}


async def test_such_a_claim_takes_no_more_than_it_asks_for(world: StoreFixture) -> None:
    for name in ("a", "b", "c", "d"):
        await world.running(*[("m", SUPPLY_LOW)] * 9, project=await tenant(world, name))
    await world.claim(4)
    assert len(await beside(world, "a", limit=2)) == 2


async def test_whoever_was_given_the_least_comes_first(world: StoreFixture) -> None:
    for name in ("a", "b", "c"):
        await world.running(*[("m", SUPPLY_LOW)] * 9, project=await tenant(world, name))
    assert by_project(await beside(world, "a", "c")) == {"b": 1}
    assert by_project(await beside(world, "a", limit=1)) == {"c": 1}


async def test_it_is_leased_whatever_it_was_given_before(world: StoreFixture) -> None:
    """Work is counted by tokens: calls that are slow and short would keep others waiting."""
    await world.running(*[("m", SUPPLY_LOW)] * 9, project=await tenant(world, "a"))
    await world.running(*[("m", SUPPLY_LOW)] * 40, project=await tenant(world, "b"))
    assert [len(await beside(world, "a")) for _ in range(20)] == [1] * 20
    assert by_project(await world.claim(9)) == {"a": 9}, "which is made up for"


async def test_nobody_is_leased_beside_an_urgent_batch_of_who_has_enough(
    world: StoreFixture,
) -> None:
    batch = await world.running(*[("m", 2)] * 9, project=await tenant(world, "a"))
    await world.running(*[("m", 2)] * 9, project=await tenant(world, "b"))
    await world.store.capacity.mark_urgent("m", [batch.id])
    assert await beside(world, "a") == []
    assert by_project(await beside(world, "b", limit=1)) == {"a": 1}


async def test_an_organizations_bound_holds_beside_others_as_well(world: StoreFixture) -> None:
    await world.running(*[("m", 2)] * 9, project=await tenant(world, "a"))
    await world.running(*[("m", 2)] * 9, project=await tenant(world, "b", requests_in_flight=2))
    assert by_project(await beside(world, "a")) == {"b": 1}
    assert await beside(world, "a") == []


async def test_a_lease_tells_its_organizations_weight(world: StoreFixture) -> None:
    await world.running(("m", 2), project=await tenant(world, "a", weight=3))
    await world.running(("m", 2), project=await tenant(world, "b"))
    assert {lease.project_id: lease.weight for lease in await world.claim()} == {"a": 3, "b": 1}
