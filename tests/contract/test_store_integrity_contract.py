"""Contract of CareStore: what rows need, and how a loss is taken."""

from decimal import Decimal

import pytest

from lowtide.core.accounts.money import model_prices
from lowtide.core.batches.batch import INPUT_LOST, Batch
from lowtide.core.batches.chunk import ChunkLease, mark_done
from lowtide.core.integrity.consistency import PLAN_LOST, RESULT_FILE_LOST, BlobRole, Reference
from lowtide.core.usage import NO_USAGE
from lowtide.ports.integrity import RevertedResults
from testkit.store_fixture import PER_ANSWER, StoreFixture, outcomes

PRICES = {"m": model_prices(Decimal(1), Decimal(1), Decimal(2), Decimal("0.5"))}
PER_REQUEST_PICO = PRICES["m"].batch.charge(PER_ANSWER)


async def references(world: StoreFixture, need: BlobRole) -> list[Reference]:
    return await world.store.care.references(need, after="", limit=100)


async def keys(world: StoreFixture, need: BlobRole) -> list[str]:
    return [reference.key for reference in await references(world, need)]


async def two_segments(world: StoreFixture) -> tuple[Batch, ChunkLease]:
    """A chunk of four: 0 and 1 (failed) in segments/a, 2 in segments/b, 3 not run."""
    world.prices = PRICES
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0, 1], failed=[1]), segment="segments/a", held=[lease])
    await world.commit(outcomes(lease, [2]), segment="segments/b", held=[lease])
    return batch, lease


def bits(*indices: int) -> bytes:
    return mark_done(bytes(16), indices)


async def test_each_need_lists_the_blobs_of_the_rows_that_have_it(world: StoreFixture) -> None:
    batch, _ = await two_segments(world)
    assert await keys(world, "input") == await keys(world, "upload")
    (plan,) = await references(world, "plan")
    assert (plan.key, plan.owner, plan.bytes) == (f"plans/{batch.id}", batch.id, 4 * 20)
    assert await keys(world, "segment") == ["segments/a", "segments/b"]
    assert await keys(world, "result") == []


async def test_a_page_begins_behind_the_key_that_it_is_given(world: StoreFixture) -> None:
    await two_segments(world)
    (first,) = await world.store.care.references("segment", after="", limit=1)
    (second,) = await world.store.care.references("segment", after=first.key, limit=1)
    assert [first.key, second.key] == ["segments/a", "segments/b"]
    assert await world.store.care.references("segment", after=second.key, limit=1) == []


async def test_an_ended_batch_needs_its_result_files_and_nothing_else(world: StoreFixture) -> None:
    batch = await world.completed(failed=1)
    assert await keys(world, "input") == await keys(world, "plan") == []
    assert await keys(world, "segment") == []
    found = await references(world, "result")
    assert {each.owner for each in found} == {batch.output_file_id, batch.error_file_id}
    assert {(each.lines, each.sha256) for each in found} == {(3, "cd" * 32), (1, "cd" * 32)}


async def test_a_reference_stands_until_its_row_lets_go(world: StoreFixture) -> None:
    file = await world.file()
    (reference,) = await references(world, "upload")
    assert await world.store.care.is_needed(reference)
    await world.store.files.delete("p1", file.id, world.now)
    assert not await world.store.care.is_needed(reference)


async def test_readers_and_holders_are_the_batches_that_would_suffer(world: StoreFixture) -> None:
    batch, _ = await two_segments(world)
    (key,) = await keys(world, "input")
    assert await world.store.care.readers(key) == [batch.id]
    assert await world.store.care.holders("segments/a") == [batch.id]
    assert await world.store.care.holders("segments/z") == []


async def test_lost_results_are_taken_back_to_the_last_token_and_dollar(
    world: StoreFixture,
) -> None:
    batch, lease = await two_segments(world)
    taken = await world.store.care.lose_results(
        batch.id, ["segments/a"], {lease.key.seq: bits(0, 1)}, world.now
    )
    assert taken == RevertedResults(2, PER_REQUEST_PICO, True)
    seen = await world.see(batch)
    assert (seen.status, seen.counts.completed, seen.counts.failed) == ("in_progress", 1, 0)
    assert seen.usage == PER_ANSWER
    assert seen.error_file_id is None and seen.output_file_id is not None
    cost = (await world.store.ledger.cost([batch.id]))[batch.id]
    assert (cost.requests, cost.charge_pico) == (1, PER_REQUEST_PICO)
    entries = await world.store.ledger.entries(batch.id)
    assert sum(entry.charge_pico for entry in entries) == PER_REQUEST_PICO
    assert len({entry.seq for entry in entries}) == len(entries) == 3
    spent = await world.store.ledger.spent_pico("org_default", world.now.replace(day=1, hour=0))
    assert spent == PER_REQUEST_PICO


async def test_what_was_taken_back_runs_again_and_is_charged_once(world: StoreFixture) -> None:
    batch, lease = await two_segments(world)
    await world.store.care.lose_results(
        batch.id, ["segments/a"], {lease.key.seq: bits(0, 1)}, world.now
    )
    await world.commit(outcomes(lease, [3]), held=[lease])
    world.pass_time(60)
    assert await world.store.work.reap(world.now) == 1
    again = await world.claim_one()
    assert again.done == bits(2, 3)
    receipt = await world.commit(outcomes(again, [0, 1], failed=[1]))
    assert receipt.settled == {batch.id}
    ended = await world.assemble(batch)
    assert (ended.counts.completed, ended.counts.failed) == (3, 1)
    cost = (await world.store.ledger.cost([batch.id]))[batch.id]
    assert (cost.requests, cost.charge_pico) == (3, 3 * PER_REQUEST_PICO)


async def test_the_slices_that_are_left_count_without_the_lost_ones(world: StoreFixture) -> None:
    batch, lease = await two_segments(world)
    await world.store.care.lose_results(
        batch.id, ["segments/a"], {lease.key.seq: bits(0, 1)}, world.now
    )
    await world.commit(outcomes(lease, [3]), segment="segments/c", held=[lease])
    rows = await world.store.results.slices(batch.id)
    assert [(r.segment_key, r.completed_before, r.failed_before) for r in rows] == [
        ("segments/b", 0, 0),
        ("segments/c", 1, 0),
    ]
    assert len({row.seq for row in rows}) == 2


async def test_a_settled_batch_goes_back_to_work_and_its_assembler_is_fenced(
    world: StoreFixture,
) -> None:
    world.prices = PRICES
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    await world.commit(outcomes(lease), segment="segments/a")
    assembler = await world.assembly()
    taken = await world.store.care.lose_results(
        batch.id, ["segments/a"], {lease.key.seq: bits(0, 1, 2, 3)}, world.now
    )
    assert taken == RevertedResults(4, 4 * PER_REQUEST_PICO, True)
    seen = await world.see(batch)
    assert (seen.status, seen.counts.settled, seen.usage) == ("in_progress", 0, NO_USAGE)
    assert seen.finalizing_at is None and seen.in_progress_at == batch.in_progress_at
    assert seen.output_file_id is None
    assert not await world.store.lifecycle.finish(
        assembler, output=None, errors=None, now=world.now
    )
    await world.settle(await world.claim_one())
    assert (await world.assemble(batch)).counts.completed == 4


@pytest.mark.parametrize("wrong", [bits(0), bits(0, 3), bits(0, 1, 2)])
async def test_bits_that_are_not_those_of_the_lost_slices_change_nothing(
    world: StoreFixture, wrong: bytes
) -> None:
    batch, lease = await two_segments(world)
    before = await world.see(batch)
    care = world.store.care
    assert (
        await care.lose_results(batch.id, ["segments/a"], {lease.key.seq: wrong}, world.now) is None
    )
    assert await care.lose_results(batch.id, ["segments/a"], {}, world.now) is None
    assert await world.see(batch) == before


async def test_without_bits_the_batch_ends_and_lists_what_was_lost(world: StoreFixture) -> None:
    batch, lease = await two_segments(world)
    taken = await world.store.care.lose_results(
        batch.id, ["segments/a"], None, world.now, PLAN_LOST
    )
    assert taken == RevertedResults(2, PER_REQUEST_PICO, False)
    seen = await world.see(batch)
    assert (seen.status, [e.code for e in seen.errors]) == ("finalizing", ["plan_lost"])
    await world.commit(released=[lease])
    ended = await world.assemble(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 1, 3)


async def test_a_stopped_batch_stays_stopped_whatever_it_loses(world: StoreFixture) -> None:
    batch, lease = await two_segments(world)
    await world.store.lifecycle.lose_input(batch.id, INPUT_LOST, world.now)
    taken = await world.store.care.lose_results(
        batch.id, ["segments/a"], {lease.key.seq: bits(0, 1)}, world.now
    )
    assert taken == RevertedResults(2, PER_REQUEST_PICO, False)
    assert [e.code for e in (await world.see(batch)).errors] == ["input_lost"]
    assert await world.claim() == []


async def test_losing_twice_takes_back_once(world: StoreFixture) -> None:
    batch, lease = await two_segments(world)
    lost = {lease.key.seq: bits(0, 1)}
    care = world.store.care
    assert await care.lose_results(batch.id, ["segments/a"], lost, world.now)
    assert await care.lose_results(batch.id, ["segments/a"], lost, world.now) is None
    assert (await world.see(batch)).counts.completed == 1


async def test_an_ended_batch_loses_nothing(world: StoreFixture) -> None:
    batch = await world.completed()
    (row,) = await world.store.results.slices(batch.id)
    care = world.store.care
    assert await care.lose_results(batch.id, [row.segment_key], None, world.now) is None
    assert await world.see(batch) == batch


async def test_a_lost_file_is_marked_once_and_its_batch_says_so(world: StoreFixture) -> None:
    batch = await world.completed()
    (file,) = await references(world, "result")
    care = world.store.care
    assert not await care.lose_file(file.owner, "elsewhere", RESULT_FILE_LOST)
    assert await care.lose_file(file.owner, file.key, RESULT_FILE_LOST)
    assert not await care.lose_file(file.owner, file.key, RESULT_FILE_LOST)
    found = await world.store.files.by_id(file.owner)
    assert found is not None and found.status == "lost"
    assert [e.code for e in (await world.see(batch)).errors] == ["result_file_lost"]
    assert await keys(world, "result") == []


async def test_a_file_moves_to_another_key_once(world: StoreFixture) -> None:
    await world.completed()
    (file,) = await references(world, "result")
    care = world.store.care
    assert await care.move_file(file.owner, file.key, "results/new")
    assert not await care.move_file(file.owner, file.key, "results/newer")
    assert await keys(world, "result") == ["results/new"]
