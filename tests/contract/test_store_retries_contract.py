"""Contract of RetryStore: one unfinished retry of a tree, and groups of failures as committed."""

import asyncio
from datetime import timedelta

import numpy as np
import pytest

from lowtide import limits
from lowtide.core.accounts.batch_quota import BatchQuota, BatchQuotaReached
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.failures import FailureCount, LineFailure
from lowtide.core.batches.line_sets import pack_lines
from lowtide.core.batches.segment import Finished, encode_segment
from lowtide.ports.retries import BatchEnd, RetryConflict
from lowtide.store.statements import many_keys
from testkit.store_fixture import TTL_S, StoreFixture, result_file

COVERED = pack_lines(np.array([2, 4], np.uint32))


def retry_of(world: StoreFixture, batch: Batch) -> Batch:
    return Batch(
        id=world.fresh("batch_"),
        project_id=batch.project_id,
        user_id="u1",
        dialect=batch.dialect,
        input_file_id=batch.input_file_id,
        input_bytes=batch.input_bytes,
        endpoint=batch.endpoint,
        completion_window_s=batch.completion_window_s,
        created_at=world.now,
        expires_at=world.now + timedelta(seconds=batch.completion_window_s),
        retry_of=batch.id,
        root_id=batch.tree_id,
        model_override="n",
    )


async def test_a_retry_is_inserted_with_the_lines_that_it_covers(world: StoreFixture) -> None:
    batch = await world.completed(failed=2)
    retry = await world.store.retries.add(retry_of(world, batch), COVERED, 1)
    assert await world.see(retry) == retry
    assert (retry.retry_of, retry.tree_id, retry.model_override) == (batch.id, batch.id, "n")
    lease = await world.validation(retry)
    assert lease.covered == COVERED
    assert lease.input_key == f"files/{batch.input_file_id}"
    tree = await world.store.retries.tree(batch.project_id, batch.id)
    assert [each.id for each in tree] == [batch.id, retry.id]
    assert await world.store.retries.tree("p2", batch.id) == []


async def test_many_trees_are_read_at_once_each_in_its_order(
    world: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_keys, "STORE_KEYS_PER_STATEMENT", 4)
    batches = [await world.completed(failed=2) for _ in range(3)]
    world.pass_time(1)
    retry = await world.store.retries.add(retry_of(world, batches[0]), COVERED, 1)
    project, roots = batches[0].project_id, [each.id for each in batches]
    trees = await world.store.retries.trees(project, [*roots, retry.id, "batch_unknown"])
    assert {root: [each.id for each in tree] for root, tree in trees.items()} == {
        roots[0]: [roots[0], retry.id], roots[1]: [roots[1]], roots[2]: [roots[2]],
    }  # fmt: skip
    assert await world.store.retries.trees("p2", roots) == {}


async def test_a_batch_over_its_whole_file_covers_all(world: StoreFixture) -> None:
    batch = await world.validating()
    assert (await world.validation(batch)).covered is None


async def test_one_retry_of_a_tree_is_unfinished_at_a_time(world: StoreFixture) -> None:
    batch = await world.completed(failed=2)
    many = [world.store.retries.add(retry_of(world, batch), COVERED, 1) for _ in range(4)]
    found = await asyncio.gather(*many, return_exceptions=True)
    (added,) = [each for each in found if isinstance(each, Batch)]
    refused = [each for each in found if isinstance(each, RetryConflict)]
    assert [each.unfinished for each in refused] == [added.id] * 3
    await world.store.batches.cancel(added.project_id, added.id, world.now)
    await world.assemble(added)
    with pytest.raises(RetryConflict) as conflict:
        await world.store.retries.add(retry_of(world, batch), COVERED, 1)
    assert conflict.value.unfinished is None, "its lines were chosen without the first retry"
    await world.store.retries.add(retry_of(world, added), COVERED, 2)


async def test_a_retry_counts_as_a_batch_for_the_quota(world: StoreFixture) -> None:
    batch = await world.completed(failed=2)
    quota = BatchQuota(per_hour=1, unfinished=None)
    with pytest.raises(BatchQuotaReached):
        await world.store.retries.add(retry_of(world, batch), COVERED, 1, quota)
    assert len(await world.store.retries.tree(batch.project_id, batch.id)) == 1


async def test_an_unfinished_retry_keeps_the_input_that_it_reads(world: StoreFixture) -> None:
    batch = await world.completed(failed=2)
    await world.store.retries.add(retry_of(world, batch), COVERED, 1)
    assert await world.store.files.delete(batch.project_id, batch.input_file_id, world.now)
    assert f"files/{batch.input_file_id}" not in await world.store.results.garbage()


async def test_what_is_kept_of_the_lines_comes_with_the_end(world: StoreFixture) -> None:
    batch = await world.running(("m", 4))
    await world.settle(await world.claim_one(), failed=1)
    lease = await world.assembly()
    count = FailureCount()
    count.add(4, LineFailure("timeout", "slow", "c"))
    end = BatchEnd(failed=b"failed", succeeded=b"good", failures=count.groups)
    assert await world.store.lifecycle.finish(
        lease,
        output=result_file(batch, "out", 3),
        errors=result_file(batch, "err", 1),
        now=world.now,
        end=end,
    )
    kept = world.store.retries
    assert await kept.line_sets([batch.id, "other"], "failed") == {batch.id: b"failed"}
    assert await kept.line_sets([batch.id], "succeeded") == {batch.id: b"good"}
    assert await kept.line_sets([batch.id], "covered") == {}
    assert await kept.failures(batch.id) == count.groups


async def test_lines_that_no_engine_saw_are_counted_by_batch(world: StoreFixture) -> None:
    batch = await world.running(("m", 4))
    await world.settle(await world.claim_one(), failed=3)
    count = FailureCount()
    count.add(1, LineFailure("400", "too long"))
    for line in (2, 3):
        count.add(line, LineFailure("batch_cancelled", "not executed"))
    assert await world.store.lifecycle.finish(
        await world.assembly(),
        output=result_file(batch, "out", 1),
        errors=result_file(batch, "err", 3),
        now=world.now,
        end=BatchEnd(failed=b"failed", succeeded=b"", failures=count.groups),
    )
    assert await world.store.retries.unexecuted([batch.id, "other"]) == {batch.id: 2}


# ---- groups of failures


def failure(code: str, message: str) -> bytes:
    return b'{"custom_id":"c","error":{"code":"%b","message":"%b"}}\n' % (
        code.encode(),
        message.encode(),
    )


async def test_failures_are_counted_with_the_commit_that_stores_them(world: StoreFixture) -> None:
    batch = await world.running(("m", 8))
    lease = await world.claim_one()
    words = ["no room 1", "no room 2", "gone", "no room 3"]
    pieces = []
    for start in (0, 2):
        finished = [
            Finished(index, index + 1, False, failure("503", words[index]))
            for index in range(start, start + 2)
        ]
        pieces.append(encode_segment([(lease.key, lease.token, finished)])[1][0])
    first = world.beat(pieces[0], held=[lease])
    for _ in range(2):  # a repeated commit counts nothing twice
        await world.store.work.commit_group(first)
    await world.commit(pieces[1], held=[lease])
    groups = {group.shape: group for group in await world.store.retries.failures(batch.id)}
    assert {shape: group.requests for shape, group in groups.items()} == {"no room #": 3, "gone": 1}
    assert [example.line for example in groups["no room #"].examples] == [1, 2, 4]


async def test_outcomes_that_are_dropped_are_not_counted(world: StoreFixture) -> None:
    batch = await world.running(("m", 2))
    lease = await world.claim_one()
    world.pass_time(TTL_S + 1)
    assert await world.store.work.reap(world.now) == 1
    finished = [Finished(0, 1, False, failure("500", "boom"))]
    (piece,) = encode_segment([(lease.key, lease.token, finished)])[1]
    await world.commit(piece, held=[lease])
    assert await world.store.retries.failures(batch.id) == ()


async def test_shapes_above_the_bound_are_one_group(world: StoreFixture) -> None:
    batch = await world.running(("m", 120))
    lease = await world.claim_one()
    for start, stop in ((0, 60), (60, 120)):
        finished = [
            Finished(index, index + 1, False, failure("400", "x" * (index + 1)))
            for index in range(start, stop)
        ]
        (piece,) = encode_segment([(lease.key, lease.token, finished)])[1]
        await world.commit(piece, held=[lease])
    groups = await world.store.retries.failures(batch.id)
    assert len(groups) == limits.FAILURE_SHAPES_MAX + 1
    assert {group.requests for group in groups if group.code == "other"} == {20}
