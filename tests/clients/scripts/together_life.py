"""The Together SDK since 2.0, synchronous and asynchronous, by shared paths and by the mount."""

import asyncio
import os
from pathlib import Path

import together
from checks import (
    ADDRESS,
    CHAT,
    SLOW_TEXTS,
    check,
    check_results,
    refusal,
    until,
    until_async,
    write_input,
)

ENDED = {"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"}
SUFFIX = os.environ["TOGETHER_BASE_URL"].removeprefix(ADDRESS)


def life(client: together.Together) -> None:
    write_input("batch.jsonl", together=True)
    file = client.files.upload(file=Path("batch.jsonl"), purpose="batch-api", check=False)
    size = Path("batch.jsonl").stat().st_size
    check("the upload is told", (file.bytes, file.filename) == (size, "batch.jsonl"))
    created = client.batches.create(input_file_id=file.id, endpoint=CHAT)
    job = created.job
    check("the job is created", job and job.id and job.status == "VALIDATING")
    ended = until(lambda: client.batches.retrieve(job.id), lambda seen: seen.status in ENDED)
    check("it completes", (ended.status, ended.progress) == ("COMPLETED", 100.0))
    check("times are times", ended.completed_at >= ended.created_at)
    check_results(
        client.files.content(ended.output_file_id).read(),
        client.files.content(ended.error_file_id).read(),
    )
    with client.files.with_streaming_response.content(ended.output_file_id) as streamed:
        check("streamed the same", streamed.read().count(b"\n") == 3)
    check("the list begins with it", client.batches.list()[0].id == job.id)
    check("the file list has it", file.id in [each.id for each in client.files.list().data])
    check("the same file again", client.batches.create(input_file_id=file.id, endpoint=CHAT).job)


def files(client: together.Together) -> None:
    write_input("files.jsonl", ("one", "two", "three"), together=True)
    file = client.files.upload(file=Path("files.jsonl"), purpose="batch-api")
    check("checked by the SDK and uploaded", client.files.retrieve(file.id).purpose == "batch-api")
    check("same bytes", client.files.content(file.id).read() == Path("files.jsonl").read_bytes())
    check("deleted", client.files.delete(file.id).deleted)
    refusal(lambda: client.files.retrieve(file.id), together.NotFoundError, file.id)
    refusal(lambda: client.files.content(file.id), together.NotFoundError, file.id)


def cancel(client: together.Together) -> None:
    write_input("slow.jsonl", SLOW_TEXTS, together=True)
    file = client.files.upload(file=Path("slow.jsonl"), purpose="batch-api", check=False)
    job = client.batches.create(input_file_id=file.id, endpoint=CHAT).job
    until(lambda: client.batches.retrieve(job.id), lambda seen: seen.progress > 0)
    status = client.batches.cancel(job.id).status
    check("cancel is accepted", status in ("IN_PROGRESS", "CANCELLED"))
    ended = until(lambda: client.batches.retrieve(job.id), lambda seen: seen.status in ENDED)
    check("it ends cancelled", ended.status == "CANCELLED")
    output = client.files.content(ended.output_file_id).read()
    check("what was done is kept", output.count(b"\n") == 1 and b"echo: quick" in output)
    rest = client.files.content(ended.error_file_id).read()
    check("the rest is told", rest.count(b"batch_cancelled") == 20)


def refusals(client: together.Together) -> None:
    refusal(lambda: client.batches.retrieve("nope"), together.NotFoundError, "No batch found")
    refusal(
        lambda: client.batches.create(input_file_id="file-x", endpoint=CHAT),
        together.NotFoundError, "file-x",
    )  # fmt: skip
    Path("bad.jsonl").write_text('{"custom_id": "a", "body": {}}\n')
    file = client.files.upload(file=Path("bad.jsonl"), purpose="batch-api", check=False)
    job = client.batches.create(input_file_id=file.id, endpoint=CHAT).job
    ended = until(lambda: client.batches.retrieve(job.id), lambda seen: seen.status in ENDED)
    check(f"a bad file fails: {ended.error}", ended.status == "FAILED" and "line 1" in ended.error)


async def asynchronous(base: str) -> None:
    async with together.AsyncTogether(base_url=base) as client:
        file = await client.files.upload(file=Path("batch.jsonl"), purpose="batch-api", check=False)
        job = (await client.batches.create(input_file_id=file.id, endpoint=CHAT)).job
        ended = await until_async(
            lambda: client.batches.retrieve(job.id), lambda seen: seen.status in ENDED
        )
        output = await client.files.content(ended.output_file_id)
        errors = await client.files.content(ended.error_file_id)
        check_results(await output.read(), await errors.read())
        check("async list", job.id in [each.id for each in await client.batches.list()])
        again = (await client.batches.create(input_file_id=file.id, endpoint=CHAT)).job
        check("async cancel", (await client.batches.cancel(again.id)).status)
        check("async delete", (await client.files.delete(file.id)).deleted)


def main() -> None:
    for base in (ADDRESS + SUFFIX, f"{ADDRESS}/together{SUFFIX}"):
        with together.Together(base_url=base) as client:
            life(client)
            files(client)
            cancel(client)
            refusals(client)
        asyncio.run(asynchronous(base))


main()
