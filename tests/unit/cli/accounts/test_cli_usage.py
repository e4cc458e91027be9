"""`lowtide usage`, the cost of a batch, and dry runs: figures as the ledger has them."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import SIDES, Installation, Prompt, running_installation
from prompt import Run

from lowtide.cli import server_commands
from lowtide.cli.batches import batches
from lowtide.cli.terminal import command_errors, units
from lowtide.core.accounts.money import model_prices
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database
from testkit.store_fixture import PER_ANSWER, StoreFixture

OCTOBER = datetime(2026, 10, 31, 23, 59, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, 0, 0, tzinfo=UTC)
PRICES = model_prices(Decimal("0.88"), Decimal("0.44"), Decimal("1.1"), Decimal("0.5"))
EACH = Decimal(PRICES.batch.charge(PER_ANSWER)) / 10**12
"""Dollars that one answer costs in a batch; twice that live."""

SPAN = ("--since", "2026-10-01", "--until", "2026-12-01")


async def _fill(database: Path) -> None:
    """Two days, two models, two organizations with a project each: 4 answers a batch."""
    place_empty_database(database)
    store = SqlStore.sqlite(database)
    await store.open()
    world = StoreFixture(store)
    world.prices = {"m": PRICES, "n": PRICES}
    research = await world.organization()
    await world.project("proj_research", research.id)
    for world.now, project, model in (
        (OCTOBER, "proj_default", "m"),
        (NOVEMBER, "proj_default", "m"),
        (NOVEMBER, "proj_default", "n"),
        (NOVEMBER, "proj_research", "m"),
    ):
        await world.running((model, 4), project=project)
        await world.settle(await world.claim_one(models=(model,)))
    await store.aclose()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("home")
    asyncio.run(_fill(home / "data" / "lowtide.db"))
    with running_installation(home) as one:
        yield one


@pytest.fixture(params=SIDES)
def ask(request: pytest.FixtureRequest, installation: Installation, run_main: Run) -> Prompt:
    return Prompt(run_main, installation.at(request.param))


def amounts(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[str, ...], Decimal]:
    return {tuple(row[key] for key in keys): Decimal(row["amount"]) for row in rows}


def test_json_groups_as_asked_and_sums_to_the_total(ask: Prompt) -> None:
    answer = ask.json("usage", *SPAN, "--by", "project,day")
    assert amounts(answer["data"], "day", "project_id") == {
        ("2026-10-31", "proj_default"): 4 * EACH,
        ("2026-11-01", "proj_default"): 8 * EACH,
        ("2026-11-01", "proj_research"): 4 * EACH,
    }
    total = answer["total"]
    assert total["requests"] == 16
    assert total["cached_tokens"] == 16 * PER_ANSWER.cached_tokens
    assert Decimal(total["amount"]) == Decimal(total["saved"]) == 16 * EACH
    assert Decimal(total["live_amount"]) == 32 * EACH


def test_until_is_not_included_and_since_is(ask: Prompt) -> None:
    october = ask.json("usage", "--since", "2026-10-01", "--until", "2026-11-01")
    assert october["total"]["requests"] == 4
    november = ask.json("usage", "--since", "2026-11-01", "--until", "2026-11-02")
    assert november["total"]["requests"] == 12


def test_by_default_it_is_this_month_by_day_and_model(ask: Prompt) -> None:
    answer = ask.json("usage")
    now = datetime.now(UTC)
    assert answer["since"] == f"{now:%Y-%m}-01T00:00:00+00:00"
    assert datetime.fromisoformat(answer["until"]) <= now
    assert answer["group_by"] == ["day", "model"]


def test_a_span_counts_back_from_now(ask: Prompt) -> None:
    since = datetime.fromisoformat(ask.json("usage", "--since", "30d")["since"])
    assert abs((datetime.now(UTC) - since).total_seconds() - 30 * 86400) < 60


def test_csv_is_exact_and_without_the_total(ask: Prompt) -> None:
    outcome = ask("usage", *SPAN, "--by", "model", "--csv")
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert amounts(rows, "model") == {("m",): 12 * EACH, ("n",): 4 * EACH}
    assert [row["output_tokens"] for row in rows] == ["60", "20"]


def test_a_table_ends_in_the_total(ask: Prompt) -> None:
    outcome = ask("usage", *SPAN)
    table = [line.split("\t") for line in outcome.out.splitlines()]
    assert table[0][:3] == ["day", "model", "requests"]
    assert [row[:3] for row in table[1:]] == [
        ["2026-10-31", "m", "4"],
        ["2026-11-01", "m", "8"],
        ["2026-11-01", "n", "4"],
        ["total", "", "16"],
    ]
    dollars = [units.human_dollars(16 * EACH * share) for share in (1, 2, 1)]
    assert table[-1][-3:] == dollars
    assert "2026-10-01 00:00 to 2026-12-01 00:00 UTC" in outcome.err


def test_without_groups_there_is_one_line(ask: Prompt) -> None:
    lines = ask("usage", *SPAN, "--by", "none").out.splitlines()
    assert len(lines) == 2
    assert lines[1].split("\t")[0] == "16"
    empty = ask("usage", "--since", "2026-01-01", "--until", "2026-01-02", "--by", "none")
    assert empty.out.splitlines()[1].split("\t")[0] == "0"


def test_one_project_or_one_organization_by_name(ask: Prompt) -> None:
    of_project = ask.json("usage", *SPAN, "--project", "Default")
    assert of_project["total"]["requests"] == 12
    organization = next(o for o in ask.json("orgs", "list")["data"] if o["id"] != "org_default")
    of_organization = ask.json("usage", *SPAN, "--org", organization["name"])
    assert of_organization["total"]["requests"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "colour"), "There are: day, model, project, none"),
        (("--since", "yesterday"), "--since 'yesterday' is no span and no date"),
        (("--since", "2026-12-01", "--until", "2026-11-01"), "since is later than until"),
        (("--since", "2020-01-01"), "A report spans at most"),
        (("--project", "nope"), "There are: proj_research (proj_research), proj_default"),
        (("--org", "nope"), "There is no organization 'nope'"),
        (("--csv", "--json"), "exclude each other"),
    ],
)
def test_what_makes_no_sense_is_refused(
    ask: Prompt, arguments: tuple[str, ...], words: str
) -> None:
    outcome = ask("usage", *arguments)
    assert outcome.code == command_errors.USAGE
    assert words in outcome.err


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "$0.00"),
        ("1234.5", "$1,234.50"),
        ("1", "$1.00"),
        ("0.5", "$0.5000"),
        ("0.0123", "$0.0123"),
        ("0.0000123456", "$0.000012"),
        ("0.000000000001", "$0.0000000000010"),
    ],
)
def test_small_amounts_keep_two_digits(amount: str, text: str) -> None:
    assert units.human_dollars(Decimal(amount)) == text


# ---- a batch, and one that is not created yet


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, scripted: Any) -> Any:
    """A server whose one answer is this."""

    def answer(body: dict[str, Any]) -> Any:
        server = scripted(httpx.Response(200, json=body))
        for module in (batches, server_commands):
            monkeypatch.setattr(module, "connect", lambda *_: server.client)
        return server

    return answer


def batch(**more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 1000, "output_tokens": 20}
    return {"id": "batch_1", "status": "completed", "usage": usage} | more


def test_a_batch_shows_tokens_and_cost(run_main: Run, answering: Any) -> None:
    usage = {
        "input_tokens": 1000,
        "output_tokens": 20,
        "input_tokens_details": {"cached_tokens": 600},
    }
    cost = {"currency": "usd", "amount": "1.25", "live_amount": "2.50", "saved": "1.25"}
    answering(batch(usage=usage, cost=cost))
    out = run_main("batches", "get", "batch_1").out
    assert "tokens: 1,000 in (600 cached), 20 out\n" in out
    assert "cost: $1.25 (live $2.50, saved $1.25)\n" in out


def test_a_batch_without_a_price_shows_no_cost(run_main: Run, answering: Any) -> None:
    cost = {"currency": "usd", "amount": "0.00", "live_amount": "0.00", "saved": "0.00"}
    answering(batch(cost=cost))
    assert "cost" not in run_main("batches", "get", "batch_1").out


def estimate(**more: Any) -> dict[str, Any]:
    money = {"currency": "usd", "amount": "3.00", "live_amount": "6.00", "saved": "3.00"}
    tokens = {"input_tokens": 1000, "output_tokens_max": 2000}
    return {
        "object": "batch.estimate",
        "requests": 2,
        "models": [{"model": "m", "requests": 2, **tokens, **money}],
        "totals": {**tokens, **money},
        "errors": None,
        "errors_total": 0,
        "would_exceed": [],
    } | more


def test_a_dry_run_asks_for_one_and_shows_the_price(run_main: Run, answering: Any) -> None:
    server = answering(estimate())
    outcome = run_main("batches", "create", "file-1", "--dry-run")
    assert json.loads(server.requests[0].content)["dry_run"] is True
    assert outcome.code == command_errors.DONE
    assert "m\t2\t1,000\t2,000\t$6.00\t$3.00\t$3.00\n" in outcome.out
    assert "As a batch $3.00; live $6.00. Saved: $3.00." in outcome.out
    assert "2 requests would run" in outcome.out


def test_a_dry_run_names_the_limits_that_would_be_passed(run_main: Run, answering: Any) -> None:
    cap = {
        "limit": "spend_cap",
        "code": "spend_cap_exceeded",
        "model": None,
        "allowed": "5.00",
        "used": "4.00",
        "asked": "3.00",
    }
    tokens = {
        "limit": "enqueued_tokens_per_model",
        "code": "token_limit_exceeded",
        "model": "m",
        "allowed": 100,
        "used": None,
        "asked": 1000,
    }
    answering(estimate(would_exceed=[cap, tokens]))
    outcome = run_main("batches", "create", "file-1", "--dry-run")
    assert outcome.code == command_errors.BATCH_FAILED
    assert "spend_cap: allowed $5.00, used $4.00, asked $3.00" in outcome.out
    assert "enqueued_tokens_per_model of m: allowed 100, asked 1,000" in outcome.out


def test_a_dry_run_lists_bad_lines(run_main: Run, answering: Any) -> None:
    errors = {"data": [{"code": "missing", "message": "No model.", "line": 7, "param": None}]}
    answering(estimate(models=[], errors=errors, errors_total=40))
    outcome = run_main("batches", "create", "file-1", "--dry-run")
    assert outcome.code == command_errors.BATCH_FAILED
    assert "line 7: missing: No model." in outcome.out
    assert "and 39 more errors" in outcome.out and "Bad: 40 errors" in outcome.out


def test_a_dry_run_as_json_is_the_server_s_answer(run_main: Run, answering: Any) -> None:
    answering(estimate())
    outcome = run_main("batches", "create", "file-1", "--dry-run", "--json")
    assert (outcome.code, json.loads(outcome.out)) == (command_errors.DONE, estimate())
