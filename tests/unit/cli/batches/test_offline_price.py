"""`lowtide validate` and the server's dry run give one price, for odd bodies, too."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prompt import Run

from lowtide import config
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.core.accounts.money import dollars_text
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT
from lowtide.core.files.file import File
from lowtide.core.validation.planner import Planner
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.batches.estimates import DryRun, EstimateService
from lowtide.service.catalogue import catalogue_of
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database
from testkit.manual_clock import ManualClock

SETTINGS = """
[[model]]
id = "m"
aliases = ["alias"]
input_price = 2.0
output_price = 4.0
"""
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}


async def dry_run(folder: Path, content: bytes, endpoint: str) -> DryRun:
    """What a server with the settings of the folder says."""
    settings, clock = config.load(folder / "lowtide.toml"), ManualClock()
    place_empty_database(folder / "db")
    store = SqlStore.sqlite(folder / "db")
    await store.open()
    try:
        blobs = FolderBlobs(folder / "blobs")
        await blobs.put("files/f", content)
        file = File(
            id="file-f",
            project_id=DEFAULT_PROJECT,
            purpose="batch",
            filename="b.jsonl",
            status="uploaded",
            dialect="openai",
            created_at=clock.now(),
            bytes=len(content),
            lines=1,
            sha256="",
            blob_key="files/f",
        )
        quotas = Quotas(store.tenants, store.ledger, clock, settings.limits)
        planner = Planner(catalogue_of(settings), lambda: quotas.defaults)
        return await EstimateService(blobs, planner, quotas).dry_run(
            DEFAULT_PROJECT, file, endpoint
        )
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    ("endpoint", "body", "tokens", "is_bounded"),
    [
        ("/v1/completions", {"prompt": "p", "max_tokens": 100, "best_of": 4}, 400, True),
        (CHAT, {**MESSAGES, "max_tokens": -1}, 0, False),
        (CHAT, {**MESSAGES, "max_tokens": 10**11}, 10_000_000, True),
        (CHAT, {**MESSAGES, "max_tokens": 100, "n": "2"}, 200, True),
        (RESPONSES, {"input": "i", "max_tokens": 100}, 0, False),
        (CHAT, {**MESSAGES, "max_tokens": 100, "model": "alias"}, 100, True),
    ],
)
def test_a_file_has_the_same_price_offline_and_at_a_server(
    run_main: Run,
    tmp_path: Path,
    endpoint: str,
    body: dict[str, Any],
    tokens: int,
    is_bounded: bool,
) -> None:
    (tmp_path / "lowtide.toml").write_text(SETTINGS)
    request = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "m"} | body}
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(request) + "\n")
    offline = json.loads(run_main("validate", path, "--json").out)
    server = asyncio.run(dry_run(tmp_path, path.read_bytes(), endpoint)).estimate
    (share,) = offline["models"].values()
    assert share["output_tokens_max"] == server.output_tokens_max == tokens
    assert share["input_tokens"] == server.input_tokens
    assert share["is_bounded"] == server.is_bounded == is_bounded
    assert offline["totals"]["amount"] == dollars_text(server.batch_pico)
    assert offline["totals"]["live_amount"] == dollars_text(server.live_pico)
    assert Decimal(offline["totals"]["live_amount"]) >= tokens * Decimal(4) / 1_000_000


def test_a_negative_bound_is_refused_by_both(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(SETTINGS)
    body = {"model": "m", "max_tokens": -5, **MESSAGES}
    request = {"custom_id": "a", "method": "POST", "url": CHAT, "body": body}
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(request) + "\n")
    offline = json.loads(run_main("validate", path, "--json").out)
    server = asyncio.run(dry_run(tmp_path, path.read_bytes(), CHAT))
    (error,) = server.errors
    assert offline["errors"][0]["message"] == error.message
    assert offline["errors_total"] == server.errors_total == 1
