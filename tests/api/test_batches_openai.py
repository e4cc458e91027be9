"""Batches through the OpenAI SDK, as it is installed."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from batch_env import CHAT, Env, open_bench

from lowtide.core.batches.batch import BatchError


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def client(env: Env) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=f"{env.http_api.url}/v1", max_retries=0) as client:
        yield client


def test_a_batch_lives_from_create_to_completed(env: Env, client: openai.OpenAI) -> None:
    file = env.upload(3)
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"run": "1"}
    )
    assert batch.id.startswith("batch_")
    assert (batch.object, batch.status, batch.completion_window) == ("batch", "validating", "24h")
    assert batch.metadata == {"run": "1"}
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0
    assert batch.expires_at == batch.created_at + 86400

    env.plan()
    env.settle(batch.id, ok=[2], bad=[3])
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "in_progress"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 1, "failed": 1}
    assert batch.model == "test-model"

    env.settle(batch.id, ok=[1])
    assert client.batches.retrieve(batch.id).status == "finalizing"
    env.assemble()
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.usage is not None
    assert batch.usage.total_tokens == 26
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    assert client.files.content(batch.output_file_id).text.count("\n") == 2


def test_a_list_is_walked_page_by_page_to_its_end(env: Env, client: openai.OpenAI) -> None:
    file = env.upload()
    ids = [
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
        for _ in range(7)
    ]
    assert [batch.id for batch in client.batches.list(limit=3)] == ids[::-1]
    page = client.batches.list(limit=3)
    assert page.has_more is True
    page = client.batches.list(limit=3, after=ids[3])
    assert [batch.id for batch in page.data] == ids[:3][::-1]
    assert page.has_more is False


def test_cancel_answers_with_the_instant_of_the_cancel(env: Env, client: openai.OpenAI) -> None:
    batch = client.batches.create(
        input_file_id=env.upload().id, endpoint=CHAT, completion_window="24h"
    )
    cancelled = client.batches.cancel(batch.id)
    assert cancelled.status == "cancelling"
    assert cancelled.cancelling_at
    assert client.batches.cancel(batch.id).status == "cancelling", "twice is once"
    env.assemble()
    with pytest.raises(openai.ConflictError) as caught:
        client.batches.cancel(batch.id)
    assert caught.value.code == "batch_ended"
    assert "Cannot cancel a batch with status 'cancelled'." in caught.value.message


def test_a_completed_batch_cannot_be_cancelled(env: Env, client: openai.OpenAI) -> None:
    batch = client.batches.create(
        input_file_id=env.upload(1).id, endpoint=CHAT, completion_window="24h"
    )
    env.plan()
    env.settle(batch.id, ok=[1])
    assert client.batches.cancel(batch.id).status == "finalizing"
    env.assemble()
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        client.batches.cancel(batch.id)


def test_a_failed_batch_names_the_lines_at_fault(env: Env, client: openai.OpenAI) -> None:
    batch = client.batches.create(
        input_file_id=env.upload().id, endpoint=CHAT, completion_window="24h"
    )
    errors = [BatchError("invalid_json_line", "Not JSON.", line) for line in range(1, 21)]
    env.reject(errors, 400)
    failed = client.batches.retrieve(batch.id)
    assert failed.status == "failed"
    assert failed.failed_at
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(e.code, e.line) for e in failed.errors.data[:2]] == [
        ("invalid_json_line", 1),
        ("invalid_json_line", 2),
    ]
    assert len(failed.errors.data) == 20
    assert failed.to_dict()["errors_total"] == 400
    (listed,) = client.batches.list().data
    assert listed.errors is not None
    assert listed.errors.data is not None
    assert len(listed.errors.data) == 10


def test_an_unknown_batch_is_not_found_by_its_id(client: openai.OpenAI) -> None:
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError) as caught:
            call("batch_nope")
        assert "No batch found with id 'batch_nope'." in str(caught.value)
        assert caught.value.code == "batch_not_found"


def test_a_wrong_create_is_told_what_is_wrong(env: Env, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="No such File object: file-x"):
        client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(
            input_file_id=env.upload().id, endpoint="/v1/moderations", completion_window="24h"
        )
    assert (caught.value.param, caught.value.code) == ("endpoint", "invalid_value")
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.list(limit=101)
    assert caught.value.param == "limit"


def test_a_retry_of_the_sdk_after_a_timeout_makes_one_batch(env: Env) -> None:
    file = env.upload()
    env.http_api.run(_arm(env, 1))
    with openai.OpenAI(
        api_key="k", base_url=f"{env.http_api.url}/v1", max_retries=5, timeout=2.0
    ) as client:
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    env.http_api.run(_release(env))
    with openai.OpenAI(api_key="k", base_url=f"{env.http_api.url}/v1", max_retries=0) as client:
        assert [b.id for b in client.batches.list()] == [batch.id]


async def test_the_async_client_works_as_well(env: Env) -> None:
    file_id = env.upload(1).id
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{env.http_api.url}/v1") as client:
        ids = [
            (
                await client.batches.create(
                    input_file_id=file_id, endpoint=CHAT, completion_window="24h"
                )
            ).id
            for _ in range(3)
        ]
        assert [batch.id async for batch in client.batches.list(limit=2)] == ids[::-1]
        assert (await client.batches.retrieve(ids[0])).status == "validating"
        assert (await client.batches.cancel(ids[0])).cancelling_at
        with pytest.raises(openai.NotFoundError, match="No batch found"):
            await client.batches.retrieve("batch_nope")


async def _arm(env: Env, count: int) -> None:
    env.batches.arm(count)


async def _release(env: Env) -> None:
    env.batches.release.set()
