"""The Together SDK before 2.0, which validates all that it reads."""

import asyncio
import inspect
import runpy
from pathlib import Path

import requests
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
from together.error import InvalidRequestError

ENDED = {"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"}


def the_snippet() -> None:
    write_input("batch_input.jsonl", together=True)
    said = runpy.run_path(str(Path(__file__).with_name("seed_snippet.py")))
    batch, client = said["batch_stat"], said["client"]
    client.files.retrieve_content(id=batch.error_file_id, output="batch_errors.jsonl")
    check_results(Path("batch_output.jsonl").read_bytes(), Path("batch_errors.jsonl").read_bytes())
    check("progress is 100", f"{batch.progress:.1f}" == "100.0")
    listed = client.batches.list_batches()
    check("the batch is in the list", batch.id in [each.id for each in listed])
    endpoint = inspect.signature(client.batches.create_batch).parameters["endpoint"]
    check("the SDK insists on an endpoint", endpoint.default is inspect.Parameter.empty)


def files(client: together.Together) -> None:
    uploaded = client.files.upload(file="batch_input.jsonl", purpose="batch-api")
    check("the size is told", uploaded.bytes == Path("batch_input.jsonl").stat().st_size)
    check("the name is told", uploaded.filename == "batch_input.jsonl")
    found = client.files.retrieve(uploaded.id)
    check("the purpose is kept", found.purpose == "batch-api" and found.processed)
    client.files.retrieve_content(id=uploaded.id, output="again.jsonl")
    same = Path("again.jsonl").read_bytes() == Path("batch_input.jsonl").read_bytes()
    check("the bytes come back as they went", same)
    check("the list has it", uploaded.id in [file.id for file in client.files.list().data])
    check("delete says so", client.files.delete(uploaded.id).deleted)
    refusal(lambda: client.files.retrieve(uploaded.id), InvalidRequestError, uploaded.id)


def calls_of_others(client: together.Together) -> None:
    """Files that other clients made are no trouble for an SDK that validates each purpose.

    By the shared path a file keeps the shape of the client that made it, so only the mount can
    answer for one of those.
    """
    foreign = openai_file(b"{}\n")
    listed = client.files.list().data
    check("the list can be read beside foreign files", listed is not None)
    if "/together/" in str(client.client.base_url):
        check("a foreign file can be read", client.files.retrieve(foreign).purpose == "batch-api")


def openai_file(content: bytes) -> str:
    """As the OpenAI SDK does: one form with the bytes in it."""
    posted = requests.post(
        f"{ADDRESS}/openai/v1/files",
        data={"purpose": "batch"},
        files={"file": ("batch.jsonl", content)},
        timeout=30,
    )
    return str(posted.json()["id"])


def cancel(client: together.Together) -> None:
    write_input("slow.jsonl", SLOW_TEXTS, together=True)
    file = client.files.upload(file="slow.jsonl", purpose="batch-api")
    batch = client.batches.create_batch(file.id, CHAT)
    until(lambda: client.batches.get_batch(batch.id), lambda seen: seen.status == "IN_PROGRESS")
    check("cancel is accepted", client.batches.cancel_batch(batch.id).id == batch.id)
    ended = until(lambda: client.batches.get_batch(batch.id), lambda seen: seen.status in ENDED)
    check("it ends cancelled", ended.status == "CANCELLED")
    client.files.retrieve_content(id=ended.error_file_id, output="cancelled.jsonl")
    check("the rest is told", Path("cancelled.jsonl").read_text().count("batch_cancelled") >= 20)


def refusals(client: together.Together) -> None:
    refusal(lambda: client.batches.get_batch("nope"), InvalidRequestError, "No batch found")
    refusal(lambda: client.batches.create_batch("file-x", CHAT), InvalidRequestError, "file-x")
    Path("bad.jsonl").write_text('{"custom_id": "a", "body": {}}\n{"custom_id": "a"\n')
    file = client.files.upload(file="bad.jsonl", purpose="batch-api")
    batch = client.batches.create_batch(file.id, CHAT)
    ended = until(lambda: client.batches.get_batch(batch.id), lambda seen: seen.status in ENDED)
    check("a bad file fails", ended.status == "FAILED")
    check(f"and says where: {ended.error}", "line" in (ended.error or ""))


async def asynchronous(base: str, file_id: str) -> None:
    client = together.AsyncTogether(base_url=base)
    batch = await client.batches.create_batch(file_id, CHAT)
    await until_async(lambda: client.batches.get_batch(batch.id), lambda seen: seen.status in ENDED)
    listed = await client.batches.list_batches()
    check("async: create, get and list", batch.id in [each.id for each in listed])
    check("async: files", file_id in [file.id for file in (await client.files.list()).data])


def main() -> None:
    the_snippet()
    for base in (f"{ADDRESS}/v1", f"{ADDRESS}/together/v1", ADDRESS):
        client = together.Together(base_url=base)
        files(client)
        calls_of_others(client)
        cancel(client)
        refusals(client)
        file = client.files.upload(file="batch_input.jsonl", purpose="batch-api")
        asyncio.run(asynchronous(base, file.id))
        models = client.models.list()
        check(f"models by {base}", "deepseek-ai/DeepSeek-V3" in [m.id for m in models])


main()
