"""A fleet is brought to the next version under load: first the schema, then workers, then the API.

"Next" is this code with one more revision of the schema, an expanding one. What runs on the old
version meanwhile must not notice; clients, who come through a balancer that asks `/ready`, neither.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from command_line import lowtide
from openai import AsyncOpenAI, DefaultAsyncHttpx2Client
from shared_fleet import Balancer, Machines, Owners, stop

from lowtide.store.schema.tables import HEAD
from testkit.echo_engine import EchoEngine, asks, running_echo_engine
from testkit.next_version import NEXT_HEAD
from testkit.patience import PATIENCE_S
from testkit.postgres import PostgresServer

LONG, SHORT = 800, 12
ANSWER_S = 0.2
LEASE_TTL_S = 600.0
"""Longer than the test: nothing here may have to wait for a lease to run out."""
DELAY_S = 1.5


class Submitter:
    """A client with the real SDK, its retries as they come, that checks every answer."""

    def __init__(self, base_url: str) -> None:
        self.retries = 0
        self.calls = 0
        self.rounds = 0
        self.went_on = asyncio.Condition()
        http = DefaultAsyncHttpx2Client(event_hooks={"request": [self._count]})
        self._client = AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none", http_client=http)

    async def _count(self, request: Any) -> None:
        self.calls += 1
        self.retries += request.headers.get("x-stainless-retry-count", "0") != "0"

    async def begin(self, texts: list[str], model: str) -> str:
        content = asks(texts, model)
        file = await self._client.files.create(file=("in.jsonl", content), purpose="batch")
        batch = await self._client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        return batch.id

    async def finish(self, batch_id: str, texts: list[str]) -> None:
        """Poll it to its end; each line answered once, in order, by its own answer."""
        counted = 0
        async with asyncio.timeout(2 * PATIENCE_S):
            while True:
                batch = await self._client.batches.retrieve(batch_id)
                assert batch.request_counts is not None
                assert batch.request_counts.completed >= counted, "counts went backwards"
                counted = batch.request_counts.completed
                if batch.status == "completed":
                    break
                assert batch.status in ("validating", "in_progress", "finalizing"), batch
                await asyncio.sleep(0.05)
        assert (counted, batch.error_file_id) == (len(texts), None)
        content = (await self._client.files.content(batch.output_file_id or "")).text
        lines: list[dict[str, Any]] = [json.loads(line) for line in content.splitlines()]
        assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(1, len(texts) + 1)]
        answers = [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
        assert answers == [f"echo: {text}" for text in texts]

    async def repeat(self, until: asyncio.Event) -> None:
        """Small batches, one after another."""
        while not until.is_set():
            async with self.went_on:
                self.rounds += 1
                self.went_on.notify_all()
            texts = [f"round {self.rounds} q{number}" for number in range(SHORT)]
            await self.finish(await self.begin(texts, "n"), texts)

    async def close(self) -> None:
        await self._client.close()


@asynccontextmanager
async def at_work(submitter: Submitter, engines: list[EchoEngine]) -> AsyncIterator[None]:
    """A long batch runs, and small ones come and go, as long as the context lasts."""
    done = asyncio.Event()
    texts = [f"wait {ANSWER_S} long {number}" for number in range(LONG)]
    async with asyncio.TaskGroup() as group:
        long = await submitter.begin(texts, "m")
        group.create_task(submitter.repeat(done))
        try:
            yield
        finally:
            done.set()
            for engine in engines:
                engine.hurries = True
        await submitter.finish(long, texts)
    await submitter.close()


async def test_no_call_fails_and_no_line_is_lost_while_every_process_is_replaced(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    async with AsyncExitStack() as stack:
        engines = [stack.enter_context(running_echo_engine()) for _ in range(4)]
        machines = Machines(
            tmp_path,
            postgres_url,
            engines,
            models="mnmn",  # so that small batches need not wait for the long one
            lease_ttl_s=LEASE_TTL_S,
            shutdown_delay_s=DELAY_S,
        )
        balancer = await stack.enter_async_context(Balancer())
        old_api, old_address = await machines.api("old-api")
        await stack.enter_async_context(old_api)
        old = [await stack.enter_async_context(await machines.worker(f"old-{n}")) for n in (1, 2)]
        balancer.add(old_address)
        await balancer.until(old_address, ready=True)
        owners = await stack.enter_async_context(Owners.watched(postgres_url))
        await owners.until(lambda shares: [len(s) for s in shares.values()] == [2, 2])

        submitter = Submitter(balancer.address)
        async with at_work(submitter, engines):
            new = []
            for number, worker in enumerate(old, start=1):
                # The first of them migrates, beside everything that runs.
                process = await machines.worker(f"new-{number}", newer=True)
                new.append(await stack.enter_async_context(process))
                await owners.until(lambda shares: len(shares) == 3)
                await stop(worker)
                await owners.until(lambda shares: [len(s) for s in shares.values()] == [2, 2])
            name = postgres_url.partition("?")[0].rpartition("/")[2]
            version = "SELECT version_num FROM alembic_version"
            assert postgres.sql(version, database=name) == f"{NEXT_HEAD}\n"

            # The old version may still start: a machine that comes back in the middle of it all.
            late = await stack.enter_async_context(await machines.worker("old-3"))
            await owners.until(lambda shares: len(shares) == 3)
            await stop(late)
            config = tmp_path / "old-3.toml"
            _, reported, _ = await lowtide("doctor", "--config", config, "--json", cwd=tmp_path)
            (store,) = (c for c in json.loads(reported)["checks"] if c["name"] == "store")
            assert (
                store["verdict"] != "fail" and f"newer than this version's {HEAD}" in store["what"]
            )

            new_api, new_address = await machines.api("new-api", newer=True)
            await stack.enter_async_context(new_api)
            balancer.add(new_address)
            await balancer.until(new_address, ready=True)
            stopping = asyncio.create_task(stop(old_api))
            await balancer.until(old_address, ready=False)
            await stopping
            rounds = submitter.rounds
            async with asyncio.timeout(PATIENCE_S), submitter.went_on:
                await submitter.went_on.wait_for(lambda: submitter.rounds >= rounds + 2)

        calls = sum((engine.calls for engine in engines), Counter[str]())
        repeated = {text: times for text, times in calls.items() if times > 1}
        assert repeated == {}, "no call to an engine was dropped"
        print(
            f"{submitter.calls} client calls, {submitter.retries} of them retries of the SDK,"
            f" {submitter.rounds} small batches beside one of {LONG}"
        )
        assert submitter.retries <= 2, "retries are for what cannot be helped"
        await asyncio.gather(*(stop(process) for process in (*new, new_api)))


async def test_code_that_the_newer_schema_shuts_out_says_so_and_does_not_start(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    postgres.sql(
        "UPDATE alembic_version SET version_num = '0999'",
        "UPDATE schema_compatibility SET least_code = '0998'",
        database=name,
    )
    config = tmp_path / "lowtide.toml"
    config.write_text(f"[server]\ndatabase_url = {json.dumps(postgres_url)}\n")
    code, _, reported = await lowtide("worker", "--config", config, cwd=tmp_path)
    assert code != 0
    reported = " ".join(reported.split())
    assert (
        "schema 0999" in reported
        and "schema 0998 or later" in reported
        and f"up to {HEAD}" in reported
    )
