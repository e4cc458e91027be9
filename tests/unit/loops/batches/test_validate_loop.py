"""loops/batches/validate.py: a file in, a plan or the list of bad lines out."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from worker_env import MODEL, WorkerEnv

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.batches.batch import Batch
from lowtide.core.files.file import File
from lowtide.core.validation.planner import Planner
from lowtide.core.validation.validator import Validator
from lowtide.loops.batches.validate import ValidateLoop
from lowtide.ports.blobs import BlobsFull, BlobsUnavailable
from lowtide.service.accounts.quotas import Quotas
from testkit.patience import PATIENCE_S

GOOD = b'{"custom_id":"r-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"%s",'
GOOD += b'"messages":[{"role":"user","content":"hi"}]}}\n'


class Validation:
    """The loop with uploads of our own making."""

    def __init__(self, env: WorkerEnv, bytes_max: int | None = None) -> None:
        self.env = env
        self.woken: list[str] = []
        self.files = 0
        bounds = LimitSettings(enqueued_tokens_per_model=1000)
        self.loop = ValidateLoop(
            "w",
            env.store.lifecycle,
            env.blobs,  # type: ignore[arg-type]
            env.clock,
            Planner(
                Catalogue([ModelEntry(id=MODEL, aliases=("short",), context_length=200)]),
                lambda: bounds,
            ),
            Quotas(env.store.tenants, env.store.ledger, env.clock, bounds),
            self.woken.append,
            bytes_max=bytes_max,
        )

    async def batch(self, content: bytes) -> Batch:
        self.files += 1
        env, now = self.env, self.env.clock.now()
        file = File(
            id=f"file-v{self.files}",
            project_id="proj_default",
            purpose="batch",
            filename="input.jsonl",
            status="uploaded",
            dialect="openai",
            created_at=now,
            bytes=len(content),
            lines=content.count(b"\n"),
            sha256=sha256(content).hexdigest(),
            blob_key=f"files/v{self.files}",
        )
        await env.real_blobs.put(file.blob_key, content)
        await env.store.files.add(file)
        batch = await env.hand.submit(file, f"batch_v{self.files}")
        env.clock.advance(1.0)
        return batch

    async def tick(self) -> None:
        await self.loop.tick(self.env.clock.now())


@pytest.fixture
def validation(env: WorkerEnv) -> Validation:
    return Validation(env)


def lines(count: int, model: bytes = b"test-model") -> bytes:
    return b"".join(GOOD % (n, model) for n in range(1, count + 1))


async def test_a_good_file_becomes_a_batch_in_progress_and_the_dispatcher_is_told(
    env: WorkerEnv, validation: Validation
) -> None:
    batch = await validation.batch(lines(30))
    await validation.tick()
    seen = await env.see(batch)
    assert (seen.status, seen.counts.total, seen.model) == ("in_progress", 30, MODEL)
    assert validation.woken == ["dispatch"]
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 31))


async def test_an_alias_is_the_model_it_stands_for(env: WorkerEnv, validation: Validation) -> None:
    batch = await validation.batch(lines(3, b"short"))
    await validation.tick()
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 3
    assert all(b'"model":"test-model"' in call.body for call in env.engine.calls)


async def test_a_prompt_beyond_the_context_is_a_warning_of_a_batch_that_runs(
    env: WorkerEnv, validation: Validation
) -> None:
    long = lines(2).replace(b'"hi"', b'"' + b"many words " * 300 + b'"', 1)
    batch = await validation.batch(long)
    await validation.tick()
    seen = await env.see(batch)
    assert seen.status == "in_progress"
    assert [(w.code, w.line) for w in seen.warnings] == [("context_exceeded", 1)]


async def test_a_file_of_another_kind_fails_with_one_error_that_names_it(
    env: WorkerEnv, validation: Validation
) -> None:
    batch = await validation.batch(b"custom_id,prompt\n" + b"1,hello\n" * 100)
    await validation.tick()
    seen = await env.see(batch)
    assert (seen.status, seen.errors_total) == ("failed", 1)
    assert [error.code for error in seen.errors] == ["invalid_file_format"]
    assert "CSV" in seen.errors[0].message


async def test_a_bad_file_fails_with_its_bad_lines_and_costs_nothing(
    env: WorkerEnv, validation: Validation
) -> None:
    batch = await validation.batch(lines(2) + b"{oops\n" + lines(1, b"unknown"))
    await validation.tick()
    seen = await env.see(batch)
    assert seen.status == "failed"
    assert [error.line for error in seen.errors] == [3, 4]
    await env.work_off()
    assert not env.engine.calls


async def test_a_batch_beyond_the_enqueued_tokens_fails_and_leaves_no_plan_behind(
    env: WorkerEnv, validation: Validation
) -> None:
    first = await validation.batch(lines(100))
    second = await validation.batch(lines(100))
    await validation.tick()
    await validation.tick()
    states = {(await env.see(batch)).status for batch in (first, second)}
    assert "failed" in states
    kept = [info.key async for info in env.real_blobs.list("plans/")]
    assert len(kept) == ("in_progress" in states)


async def test_a_file_whose_bytes_are_gone_fails_its_batch_and_says_so(
    env: WorkerEnv, validation: Validation
) -> None:
    batch = await validation.batch(lines(3))
    await env.real_blobs.delete("files/v1")
    await validation.tick()
    seen = await env.see(batch)
    assert (seen.status, seen.errors[0].code) == ("failed", "file_not_found")


async def test_a_batch_waits_while_something_stands_in_place_of_the_folder(
    env: WorkerEnv, validation: Validation, tmp_path: Path
) -> None:
    batch = await validation.batch(lines(3))
    away = (tmp_path / "blobs").rename(tmp_path / "away")
    (tmp_path / "blobs").write_bytes(b"a file")
    with pytest.raises(BlobsUnavailable):
        await validation.tick()
    assert (await env.see(batch)).status == "validating"
    (tmp_path / "blobs").unlink()
    away.rename(tmp_path / "blobs")
    env.clock.advance(limits.TASK_RETRY_S)
    await env.store.work.reap(env.clock.now())
    await validation.tick()
    assert (await env.see(batch)).status == "in_progress"


async def test_a_batch_whose_plan_cannot_be_stored_is_not_in_the_way_of_the_next(
    env: WorkerEnv, validation: Validation
) -> None:
    first, second = await validation.batch(lines(3)), await validation.batch(lines(4))
    env.blobs.fail("put", BlobsFull("no space left"))
    with pytest.raises(BlobsFull):
        await validation.tick()
    await validation.tick()
    assert (await env.see(second)).status == "in_progress"
    env.clock.advance(limits.TASK_RETRY_S)
    await env.store.work.reap(env.clock.now())
    await validation.tick()
    assert (await env.see(first)).status == "in_progress"


async def test_cancelled_in_the_middle_it_is_free_at_once_and_begins_again(
    env: WorkerEnv, validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await validation.batch(lines(3))
    reading = asyncio.Event()

    async def stuck(*_: Any) -> AsyncIterator[bytes]:
        yield lines(1)
        reading.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(env.blobs, "stream", stuck, raising=False)
    tick = asyncio.create_task(validation.tick())
    async with asyncio.timeout(PATIENCE_S):
        await reading.wait()
    tick.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tick
    monkeypatch.undo()
    await validation.tick()
    assert (await env.see(batch)).counts.total == 3


async def test_a_place_for_short_files_is_not_held_up_by_a_long_one(env: WorkerEnv) -> None:
    places = Validation(env, bytes_max=1_000)
    long = await places.batch(lines(100))
    short = await places.batch(lines(1))
    await places.tick()
    await places.tick()
    assert (await env.see(short)).status == "in_progress"
    assert (await env.see(long)).status == "validating"


async def test_a_file_of_blank_lines_is_read_no_further_than_needed(
    env: WorkerEnv, validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BLANK_LINES_MAX", 1_000)
    batch = await validation.batch(b"\n" * 5_000_000)
    blocks: list[int] = []
    feed = Validator.feed
    monkeypatch.setattr(
        Validator, "feed", lambda self, block: (blocks.append(len(block)), feed(self, block))[1]
    )
    await validation.tick()
    seen = await env.see(batch)
    assert (seen.status, seen.errors[0].code) == ("failed", "invalid_file_format")
    most = 2 * limits.REQUESTS_PER_BATCH  # blank lines, of a byte each
    assert sum(blocks) <= most + limits.LINES_AT_ONCE
