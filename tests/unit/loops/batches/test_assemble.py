"""loops/batches/assemble.py: result files out of segments, and what stands in its way."""

import asyncio
import json
from datetime import timedelta

import pytest
from worker_env import WorkerEnv

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.ports.blobs import BlobsFull, BlobsUnavailable
from testkit.patience import PATIENCE_S


@pytest.fixture
def loop(env: WorkerEnv) -> AssembleLoop:
    return AssembleLoop(
        "w",
        env.store.lifecycle,
        env.store.results,
        env.blobs,  # type: ignore[arg-type]
        env.clock,
    )


async def content(env: WorkerEnv, batch: Batch, file_id: str | None) -> list[str]:
    file = await env.store.files.get(batch.project_id, file_id or "")
    if file is None:
        return []
    data = await env.real_blobs.read(file.blob_key)
    assert (len(data), data.count(b"\n")) == (file.bytes, file.lines)
    return [json.loads(line)["custom_id"] for line in data.splitlines()]


async def test_without_a_settled_batch_it_asks_again_after_the_poll(
    env: WorkerEnv, loop: AssembleLoop
) -> None:
    await env.batch(5)
    now = env.clock.now()
    assert await loop.tick(now) == now + timedelta(seconds=limits.IDLE_POLL_S)


async def test_lines_of_many_beats_come_out_in_input_order(
    env: WorkerEnv, loop: AssembleLoop
) -> None:
    batch = await env.batch(300)
    await env.hand.settle(batch.id, ok=[300, 7, 150], bad=[200])
    await env.hand.settle(batch.id, ok=[1], bad=[299, 2])
    rest = [line for line in range(1, 301) if line not in (300, 7, 150, 200, 1, 299, 2)]
    await env.hand.settle(batch.id, ok=rest[::-1])
    await loop.tick(env.clock.now())
    done = await env.see(batch)
    assert done.status == "completed"
    output = await content(env, batch, done.output_file_id)
    errors = await content(env, batch, done.error_file_id)
    assert errors == ["r-2", "r-200", "r-299"]
    assert output == [f"r-{n}" for n in range(1, 301) if n not in (2, 200, 299)]


async def test_a_batch_stopped_early_is_assembled_once_its_last_chunk_is_back(
    env: WorkerEnv, loop: AssembleLoop
) -> None:
    batch = await env.batch(300)
    await env.hand.settle(batch.id, ok=[1, 2], bad=[130])
    await env.store.batches.cancel(batch.project_id, batch.id, env.clock.now())
    await loop.tick(env.clock.now())
    assert (await env.see(batch)).status == "cancelling"
    await env.hand.let_go(batch.id)
    await loop.tick(env.clock.now())
    done = await env.see(batch)
    assert (done.status, done.counts.completed, done.counts.failed) == ("cancelled", 2, 298)
    assert await content(env, batch, done.output_file_id) == ["r-1", "r-2"]
    assert await content(env, batch, done.error_file_id) == [f"r-{n}" for n in range(3, 301)]


async def test_a_batch_that_cannot_be_assembled_is_not_in_the_way_of_the_next(
    env: WorkerEnv, loop: AssembleLoop
) -> None:
    first = await env.batch(3)
    await env.hand.settle(first.id, ok=[1, 2, 3])
    env.clock.advance(1.0)
    second = await env.batch(3)
    await env.hand.settle(second.id, ok=[1, 2, 3])
    env.blobs.fail("read_ranges", BlobsUnavailable("away"))
    with pytest.raises(BlobsUnavailable):
        await loop.tick(env.clock.now())
    await loop.tick(env.clock.now())
    assert (await env.see(second)).status == "completed"
    assert (await env.see(first)).status == "finalizing"
    env.clock.advance(limits.TASK_RETRY_S)
    assert await env.store.work.reap(env.clock.now()) == 1
    await loop.tick(env.clock.now())
    assert (await env.see(first)).status == "completed"


async def test_cancelled_in_the_middle_it_leaves_the_batch_to_whoever_comes_next(
    env: WorkerEnv, loop: AssembleLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await env.batch(3)
    await env.hand.settle(batch.id, ok=[1, 2, 3])
    reading = asyncio.Event()

    async def stuck(*_: object) -> list[bytes]:
        reading.set()
        await asyncio.get_running_loop().create_future()
        return []

    monkeypatch.setattr(env.blobs, "read_ranges", stuck, raising=False)
    tick = asyncio.create_task(loop.tick(env.clock.now()))
    async with asyncio.timeout(PATIENCE_S):
        await reading.wait()
    tick.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tick
    monkeypatch.undo()
    await loop.tick(env.clock.now())
    assert (await env.see(batch)).status == "completed"


async def test_a_disk_that_is_full_only_delays_the_result(
    env: WorkerEnv, loop: AssembleLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await env.batch(3)
    await env.hand.settle(batch.id, ok=[1, 2, 3])

    def full(_: str) -> None:
        raise BlobsFull("no space left")

    monkeypatch.setattr(env.blobs, "write", full, raising=False)
    with pytest.raises(BlobsFull):
        await loop.tick(env.clock.now())
    monkeypatch.undo()
    env.clock.advance(limits.TASK_RETRY_S)
    await env.store.work.reap(env.clock.now())
    await loop.tick(env.clock.now())
    assert (await env.see(batch)).status == "completed"


async def test_what_never_ran_is_listed_even_when_its_input_is_gone(
    env: WorkerEnv, loop: AssembleLoop
) -> None:
    batch = await env.batch(3)
    await env.hand.settle(batch.id, ok=[2])
    await env.hand.let_go(batch.id)
    await env.store.batches.cancel(batch.project_id, batch.id, env.clock.now())
    await env.real_blobs.delete("inputs/in1")
    await loop.tick(env.clock.now())
    done = await env.see(batch)
    assert (done.status, done.counts.completed, done.counts.failed) == ("cancelled", 1, 2)
    file = await env.store.files.get(batch.project_id, done.error_file_id or "")
    assert file is not None
    lines = [json.loads(x) for x in (await env.real_blobs.read(file.blob_key)).splitlines()]
    assert [line["id"].rpartition("-")[2] for line in lines] == ["1", "3"]
    assert {(line["custom_id"], line["error"]["code"]) for line in lines} == {
        ("", "batch_cancelled")
    }
