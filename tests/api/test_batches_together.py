"""Batches through the Together SDK, as it is installed."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import together
from batch_env import CHAT, Env, open_bench

from lowtide import limits
from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.reporting.progress import Progress


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def client(env: Env) -> Iterator[together.Together]:
    with together.Together(api_key="k", base_url=env.http_api.url, max_retries=0) as client:
        yield client


def create(env: Env, client: together.Together, requests: int = 3) -> str:
    file = env.upload(requests, purpose="batch-api")
    job = client.batches.create(input_file_id=file.id, endpoint=CHAT).job
    assert job is not None
    assert job.id is not None
    return job.id


def test_a_batch_lives_from_create_to_completed(env: Env, client: together.Together) -> None:
    file = env.upload(4, purpose="batch-api")
    created = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", priority=2
    )
    job = created.job
    assert created.warning is None
    assert job is not None
    assert job.id is not None
    assert (job.status, job.progress, job.error) == ("VALIDATING", 0.0, None)
    assert (job.input_file_id, job.file_size_bytes) == (file.id, file.bytes)
    assert job.user_id
    assert job.created_at is not None
    assert job.job_deadline is not None
    assert job.job_deadline - job.created_at == timedelta(days=1)

    env.plan()
    env.settle(job.id, ok=[2], bad=[3])
    job = client.batches.retrieve(job.id)
    assert (job.status, job.progress, job.x_model_id) == ("IN_PROGRESS", 50.0, "test-model")

    assert job.id is not None
    env.settle(job.id, ok=[1, 4])
    assert client.batches.retrieve(job.id).status == "IN_PROGRESS"
    env.assemble()
    job = client.batches.retrieve(job.id)
    assert (job.status, job.progress) == ("COMPLETED", 100.0)
    assert job.completed_at is not None
    assert job.output_file_id is not None
    assert job.error_file_id is not None
    assert client.files.content(job.output_file_id).read().count(b"\n") == 3


def test_a_model_for_the_whole_batch_has_to_be_there(env: Env, client: together.Together) -> None:
    file = env.upload(purpose="batch-api")
    created = client.batches.create(input_file_id=file.id, endpoint=CHAT, model_id="org/m-1")
    assert created.job is not None
    with pytest.raises(together.NotFoundError, match="GET /v1/models lists"):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, model_id="org/none")


def test_the_list_is_all_batches_newest_first(env: Env, client: together.Together) -> None:
    ids = [create(env, client) for _ in range(25)]
    assert [job.id for job in client.batches.list()] == ids[::-1]


def test_cancelling_is_in_progress_until_it_is_cancelled(
    env: Env, client: together.Together
) -> None:
    batch_id = create(env, client)
    assert client.batches.cancel(batch_id).status == "IN_PROGRESS"
    env.assemble()
    assert client.batches.retrieve(batch_id).status == "CANCELLED"
    with pytest.raises(together.ConflictError, match="Cannot cancel a batch with status"):
        client.batches.cancel(batch_id)


def test_a_long_list_is_made_in_steps(
    env: Env, client: together.Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PAGE_STEP_BATCHES", 2)
    ids = [create(env, client, requests=1) for _ in range(5)]
    steps, progress = [], env.http_api.services.progress.of

    async def counted(batches: Sequence[Batch]) -> list[Progress]:
        steps.append(len(batches))
        return await progress(batches)

    monkeypatch.setattr(env.http_api.services.progress, "of", counted)
    assert [job.id for job in client.batches.list()] == ids[::-1]
    assert steps == [2, 2, 1]


def test_a_failed_batch_says_why_in_one_sentence(env: Env, client: together.Together) -> None:
    batch_id = create(env, client)
    env.reject([BatchError("duplicate_custom_id", "Twice.", 7, "custom_id")], 1)
    job = client.batches.retrieve(batch_id)
    assert (job.status, job.error) == ("FAILED", "line 7: Twice.")
    with pytest.raises(together.ConflictError, match="Cannot cancel a batch with status 'failed'"):
        client.batches.cancel(batch_id)


def test_refusals_carry_our_words(env: Env, client: together.Together) -> None:
    with pytest.raises(together.NotFoundError, match="No batch found with id 'batch_nope'"):
        client.batches.retrieve("batch_nope")
    with pytest.raises(together.NotFoundError, match="No such File object: file-x"):
        client.batches.create(input_file_id="file-x", endpoint=CHAT)
    file_id = env.upload(purpose="batch-api").id
    with pytest.raises(together.BadRequestError, match="/v1/embeddings"):
        client.batches.create(input_file_id=file_id, endpoint="/v1/audio/translations")


async def test_the_async_client_works_as_well(env: Env) -> None:
    file_id = env.upload(1, purpose="batch-api").id
    async with together.AsyncTogether(api_key="k", base_url=env.http_api.url) as client:
        job = (await client.batches.create(input_file_id=file_id, endpoint=CHAT)).job
        assert job is not None
        assert job.id is not None
        assert [listed.id for listed in await client.batches.list()] == [job.id]
        assert (await client.batches.retrieve(job.id)).status == "VALIDATING"
        assert (await client.batches.cancel(job.id)).status == "IN_PROGRESS"
        with pytest.raises(together.NotFoundError, match="No batch found"):
            await client.batches.retrieve("batch_nope")
