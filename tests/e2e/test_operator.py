"""From an empty folder to a bill: first key, server in keys mode, a batch by an SDK, revocation."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from command_line import Command, lowtide, request_line, write_lines

from lowtide import limits
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import ScriptedEngine, completion, reply

SETTINGS = """
[auth]
mode = "keys"
[dispatch]
commit_interval_s = 0.1
[[replica]]
url = "{url}"
models = ["m"]
[[model]]
id = "m"
input_price = 0.88
output_price = 1.1
"""


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    async with ScriptedEngine(otherwise=(reply(completion()),)) as engine:
        (tmp_path / "lowtide.toml").write_text(SETTINGS.format(url=engine.url))
        yield tmp_path


async def ask_json(home: Path, *arguments: str, **environ: str) -> Any:
    code, out, reported = await lowtide(*arguments, "--json", cwd=home, **environ)
    assert code == 0, reported
    return json.loads(out)


async def a_batch(client: openai.AsyncOpenAI, path: Path) -> openai.types.Batch:
    """Uploaded, created, and watched to its end."""
    file = await client.files.create(file=path, purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    async with asyncio.timeout(PATIENCE_S):
        while batch.status not in ("completed", "failed"):
            await asyncio.sleep(0.1)  # as a client polls
            batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    return batch


async def refused(client: openai.AsyncOpenAI) -> None:
    """Wait until the server no longer takes this client's key."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await client.batches.list()
            except openai.AuthenticationError:
                return
            await asyncio.sleep(0.1)


async def test_from_the_first_key_to_the_bill(home: Path) -> None:
    made = await ask_json(home, "keys", "create", "sdk", "--expires", "1d")
    root = await ask_json(home, "keys", "create", "root", "--scopes", "read,admin")
    lines = [
        request_line(f"r{n}") | {"method": "POST", "url": "/v1/chat/completions"} for n in range(5)
    ]
    batch_file = write_lines(home / "b.jsonl", lines)
    async with await Command.start("serve", "--port", "0", "--json", cwd=home) as server:
        address = (await server.printed_json())["address"]
        at_server = {"LOWTIDE_SERVER": address, "LOWTIDE_API_KEY": root["key"]}
        async with openai.AsyncOpenAI(
            api_key=made["key"], base_url=f"{address}/v1", max_retries=0
        ) as client:
            batch = await a_batch(client, batch_file)
            assert batch.model_extra is not None
            cost = batch.model_extra["cost"]
            assert Decimal(cost["amount"]) * 2 == Decimal(cost["live_amount"]) > 0

            by_server, by_database, own = await asyncio.gather(
                ask_json(home, "usage", "--by", "model", **at_server),
                ask_json(home, "usage", "--by", "model"),
                ask_json(home, "usage", "--server", address, LOWTIDE_API_KEY=made["key"]),
            )
            for answer in (by_server, by_database, own):
                assert {name: answer["total"][name] for name in cost} == cost
                assert answer["total"]["requests"] == 5
            assert by_server["data"] == by_database["data"]

            listed = await ask_json(home, "keys", "list", **at_server)
            used = {key["name"]: key["last_used_at"] for key in listed["data"]}
            assert used["sdk"] >= made["created_at"]

            # Beside the server, which must find out by itself.
            code, out, _ = await lowtide("keys", "revoke", made["id"], cwd=home)
            assert code == 0 and f"within {limits.KEY_CACHE_S:.0f} s" in out
            await refused(client)

        _, out, _ = await lowtide("keys", "list", cwd=home, **at_server)
        assert any({made["id"], "revoked"} <= set(row.split("\t")) for row in out.splitlines())


async def test_a_key_that_is_revoked_by_the_server_is_dead_at_once(home: Path) -> None:
    root = await ask_json(home, "keys", "create", "root", "--scopes", "admin")
    async with await Command.start("serve", "--port", "0", "--json", cwd=home) as server:
        address = (await server.printed_json())["address"]
        at_server = {"LOWTIDE_SERVER": address, "LOWTIDE_API_KEY": root["key"]}
        made = await ask_json(home, "keys", "create", "sdk", **at_server)
        async with openai.AsyncOpenAI(
            api_key=made["key"], base_url=f"{address}/v1", max_retries=0
        ) as client:
            assert (await client.batches.list()).data == []
            await ask_json(home, "keys", "revoke", made["key"], **at_server)
            with pytest.raises(openai.AuthenticationError):
                await client.batches.list()

        with_sdk = {"LOWTIDE_SERVER": address, "LOWTIDE_API_KEY": made["key"]}
        code, _, reported = await lowtide("keys", "list", cwd=home, **with_sdk)
        assert code == 2 and "--api-key" in reported
        reader = await ask_json(home, "keys", "create", "r", "--scopes", "read", **at_server)
        with_reader = {"LOWTIDE_SERVER": address, "LOWTIDE_API_KEY": reader["key"]}
        code, _, reported = await lowtide("keys", "list", cwd=home, **with_reader)
        assert code == 2 and "scope 'admin'" in reported


async def test_a_dry_run_at_the_server_and_validate_agree(home: Path) -> None:
    root = await ask_json(home, "keys", "create", "root", "--scopes", "admin,read,submit")
    lines = [request_line(f"r{n}") for n in range(3)]
    for line in lines:
        line["body"]["max_tokens"] = 1000
    batch_file = write_lines(home / "b.jsonl", lines)
    offline = await ask_json(home, "validate", str(batch_file))
    async with await Command.start("serve", "--port", "0", "--json", cwd=home) as server:
        address = (await server.printed_json())["address"]
        at_server = {"LOWTIDE_SERVER": address, "LOWTIDE_API_KEY": root["key"]}
        file = await ask_json(home, "files", "upload", str(batch_file), **at_server)
        dry = await ask_json(home, "batches", "create", file["id"], "--dry-run", **at_server)
        assert (await ask_json(home, "batches", "list", **at_server))["data"] == []
    for name in ("amount", "live_amount", "saved"):
        assert dry["totals"][name] == offline["totals"][name]
    assert Decimal(dry["totals"]["saved"]) > 3 * 1000 * Decimal("1.1") / 2 / 10**6
