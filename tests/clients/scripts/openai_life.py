"""The OpenAI SDK, synchronous and asynchronous, by the shared paths and by the mount."""

import asyncio
import io
from pathlib import Path

import openai
from checks import (
    ADDRESS,
    CHAT,
    MODEL,
    SLOW_TEXTS,
    check,
    check_results,
    refusal,
    until,
    until_async,
    write_input,
)
from openai.types import Batch

ENDED = {"completed", "failed", "expired", "cancelled"}


def create(client: openai.OpenAI, file_id: str, **more: object) -> Batch:
    return client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h", **more
    )  # type: ignore[call-overload]


def end(client: openai.OpenAI, batch_id: str) -> Batch:
    return until(lambda: client.batches.retrieve(batch_id), lambda seen: seen.status in ENDED)


def life(client: openai.OpenAI) -> None:
    with Path(write_input("batch.jsonl")).open("rb") as opened:
        file = client.files.create(file=opened, purpose="batch")
    size = Path("batch.jsonl").stat().st_size
    check("the upload is told", (file.bytes, file.filename) == (size, "batch.jsonl"))
    check("usable at once", client.files.wait_for_processing(file.id).status == "processed")
    batch = create(client, file.id, metadata={"night": "1"})
    check("created validating", (batch.status, batch.metadata) == ("validating", {"night": "1"}))
    ended = end(client, batch.id)
    Batch.model_validate(ended.to_dict(), strict=True)
    check("it completes", ended.status == "completed")
    counts = ended.request_counts
    check("all are counted", (counts.total, counts.completed, counts.failed) == (4, 3, 1))
    check("the instants are in order", ended.created_at <= ended.in_progress_at <= ended.finalizing_at <= ended.completed_at)  # fmt: skip # noqa: E501
    output = client.files.content(ended.output_file_id)
    output.write_to_file("output.jsonl")
    check_results(Path("output.jsonl").read_bytes(), client.files.content(ended.error_file_id).text)
    made = client.files.retrieve(ended.output_file_id)
    check("the output is a file", (made.purpose, made.bytes) == ("batch_output", len(output.content)))  # fmt: skip # noqa: E501


def lists(client: openai.OpenAI) -> None:
    file = client.files.create(file=Path(write_input("few.jsonl", ("a", "b"))), purpose="batch")
    ids = [create(client, file.id).id for _ in range(5)]
    seen = []
    for batch in client.batches.list(limit=2):
        seen.append(batch.id)
        if batch.id == ids[0]:
            break
    check("paging is complete, newest first", seen == ids[::-1])
    page = client.batches.list(limit=2, after=ids[1])
    check("pages go on after an id", page.data[0].id == ids[0])
    files = [client.files.create(file=b"{}\n", purpose="batch").id for _ in range(3)]
    listed = [each.id for each in client.files.list(purpose="batch", order="desc", limit=3).data]
    check("files by purpose and order", listed == files[::-1])
    check("models", MODEL in [model.id for model in client.models.list()])
    check("one model", client.models.retrieve(MODEL).id == MODEL)


def files(client: openai.OpenAI) -> None:
    content = Path(write_input("few.jsonl", ("a", "b"))).read_bytes()
    for what in (content, io.BytesIO(content), ("schön.jsonl", content, "application/jsonl")):
        file = client.files.create(file=what, purpose="batch")
        check(f"same bytes as {file.filename}", client.files.content(file.id).content == content)
        check("deleted", client.files.delete(file.id).deleted)
        refusal(lambda: client.files.retrieve(file.id), openai.NotFoundError, file.id)  # noqa: B023


def cancel(client: openai.OpenAI) -> None:
    slow = Path(write_input("slow.jsonl", SLOW_TEXTS))
    file = client.files.create(file=slow, purpose="batch")
    batch = create(client, file.id)
    until(lambda: client.batches.retrieve(batch.id), lambda seen: seen.request_counts.completed)
    check("cancelling", client.batches.cancel(batch.id).cancelling_at)
    ended = end(client, batch.id)
    check("cancelled", ended.status == "cancelled" and ended.cancelled_at)
    check("what was done is kept", client.files.content(ended.output_file_id).text.count("\n") == 1)
    rest = client.files.content(ended.error_file_id).text
    check("the rest is told", rest.count('"batch_cancelled"') == 20)


def refusals(client: openai.OpenAI) -> None:
    refusal(lambda: client.batches.retrieve("batch_x"), openai.NotFoundError, "batch_x")
    refusal(lambda: create(client, "file-x"), openai.NotFoundError, "file-x")
    file = client.files.create(file=b'{"custom_id": 1}\nno json\n', purpose="batch")
    ended = end(client, create(client, file.id).id)
    places = [error.line for error in ended.errors.data]
    check("a bad file fails, line by line", ended.status == "failed" and set(places) == {1, 2})


async def asynchronous(base: str) -> None:
    async with openai.AsyncOpenAI(base_url=base) as client:
        file = await client.files.create(file=Path("batch.jsonl"), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        ended = await until_async(
            lambda: client.batches.retrieve(batch.id), lambda seen: seen.status in ENDED
        )
        check_results(
            (await client.files.content(ended.output_file_id)).content,
            (await client.files.content(ended.error_file_id)).content,
        )
        first = await anext(aiter(client.batches.list(limit=1)))
        check("async list", first.id == batch.id)
        again = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        check("async cancel", (await client.batches.cancel(again.id)).cancelling_at)
        check("async delete", (await client.files.delete(file.id)).deleted)


def main() -> None:
    for base in (f"{ADDRESS}/v1", f"{ADDRESS}/openai/v1"):
        with openai.OpenAI(base_url=base) as client:
            life(client)
            lists(client)
            files(client)
            cancel(client)
            refusals(client)
        asyncio.run(asynchronous(base))


main()
