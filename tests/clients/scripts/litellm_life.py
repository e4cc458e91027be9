"""LiteLLM, whose strict models read each answer of the OpenAI dialect."""

import asyncio
import os

import litellm
import openai
from checks import CHAT, SLOW_TEXTS, check, check_results, refusal, until, until_async, write_input

TO_US = {
    "custom_llm_provider": "openai",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": "key",
}
ENDED = {"completed", "failed", "expired", "cancelled"}


def upload(path: str) -> str:
    with open(path, "rb") as opened:  # noqa: PTH123
        return str(litellm.create_file(file=opened, purpose="batch", **TO_US).id)


def create(file_id: str) -> str:
    batch = litellm.create_batch(
        completion_window="24h", endpoint=CHAT, input_file_id=file_id, metadata={"a": "b"}, **TO_US
    )
    check("created", (batch.status, batch.metadata) == ("validating", {"a": "b"}))
    return str(batch.id)


def life() -> None:
    file_id = upload(write_input("batch.jsonl"))
    check("the file is there", litellm.file_retrieve(file_id=file_id, **TO_US).id == file_id)
    batch_id = create(file_id)
    ended = until(
        lambda: litellm.retrieve_batch(batch_id=batch_id, **TO_US),
        lambda seen: seen.status in ENDED,
    )
    check("it completes", ended.status == "completed" and ended.request_counts.completed == 3)
    check_results(
        litellm.file_content(file_id=ended.output_file_id, **TO_US).content,
        litellm.file_content(file_id=ended.error_file_id, **TO_US).content,
    )
    listed = litellm.list_batches(limit=5, **TO_US)
    check("the list begins with it", listed.data[0].id == batch_id)
    check("deleted", litellm.file_delete(file_id=file_id, **TO_US).deleted)


def cancel() -> None:
    batch_id = create(upload(write_input("slow.jsonl", SLOW_TEXTS)))
    cancelled = litellm.cancel_batch(batch_id=batch_id, **TO_US)
    check("cancelling", cancelled.status in ("cancelling", "cancelled"))
    ended = until(
        lambda: litellm.retrieve_batch(batch_id=batch_id, **TO_US),
        lambda seen: seen.status in ENDED,
    )
    check("cancelled", ended.status == "cancelled")
    refusal(
        lambda: litellm.retrieve_batch(batch_id="batch_x", **TO_US),
        openai.NotFoundError, "batch_x",
    )  # fmt: skip


async def asynchronous() -> None:
    with open("batch.jsonl", "rb") as opened:  # noqa: ASYNC230, PTH123
        file = await litellm.acreate_file(file=opened, purpose="batch", **TO_US)
    batch = await litellm.acreate_batch(
        completion_window="24h", endpoint=CHAT, input_file_id=file.id, **TO_US
    )
    ended = await until_async(
        lambda: litellm.aretrieve_batch(batch_id=batch.id, **TO_US),
        lambda seen: seen.status in ENDED,
    )
    output = await litellm.afile_content(file_id=ended.output_file_id, **TO_US)
    errors = await litellm.afile_content(file_id=ended.error_file_id, **TO_US)
    check_results(output.content, errors.content)
    check("async list", (await litellm.alist_batches(limit=1, **TO_US)).data[0].id == batch.id)


life()
cancel()
asyncio.run(asynchronous())
