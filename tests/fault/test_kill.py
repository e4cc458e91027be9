"""A server that is killed at any moment, again and again, and a batch that does not notice.

FAULT_ROUNDS sets how many seeds are played (2 in the test command).
"""

import os
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from served_child import PRICES, WINDOW, Json, LoggingEngine, served

from lowtide import limits
from lowtide.core.accounts.money import dollars
from lowtide.core.usage import Usage
from testkit.patience import PATIENCE_S

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "2"))
KILLS = 3
REQUESTS = 1500
DELAY_S = 0.01


def price_of(output: list[Json]) -> int:
    """Pico-dollars of what the output file says was used, at the batch price."""
    used = [line["response"]["body"]["usage"] for line in output]
    return sum(
        PRICES.batch.charge(
            Usage(
                input_tokens=use["prompt_tokens"],
                cached_tokens=use["prompt_tokens_details"]["cached_tokens"],
                output_tokens=use["completion_tokens"],
            )
        )
        for use in used
    )


def settled(folder: Path, batch_id: str) -> int:
    """Lines whose end is committed."""
    with closing(sqlite3.connect(folder / "data" / "lowtide.db")) as database:
        found = database.execute(
            "SELECT completed + failed FROM batches WHERE id = ?", (batch_id,)
        ).fetchone()
    return int(found[0])


def charged(folder: Path, batch_id: str) -> tuple[int, int]:
    """Requests and pico-dollars of the batch's ledger entries, each priced by its own tokens."""
    database = sqlite3.connect(folder / "data" / "lowtide.db")
    with closing(database):
        entries = database.execute(
            "SELECT requests, input_tokens, cached_tokens, output_tokens, charge_pico"
            " FROM ledger WHERE batch_id = ?",
            (batch_id,),
        ).fetchall()
    for _, given, cached, made, pico in entries:
        tokens = Usage(input_tokens=given, cached_tokens=cached, output_tokens=made)
        assert pico == PRICES.batch.charge(tokens)
    return sum(entry[0] for entry in entries), sum(entry[4] for entry in entries)


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_killed_at_random_moments_no_line_is_lost_or_doubled(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    texts = [f"q{number}" for number in range(1, REQUESTS + 1)]
    batch_id, batch, allowed = "", None, 0
    async with LoggingEngine(DELAY_S) as engine:
        for life in range(KILLS + 1):
            before = len(engine.log)
            async with served(tmp_path, engine) as server:
                batch_id = batch_id or await server.start_batch(texts)
                assert await server.moves_within(batch_id, engine, before, PATIENCE_S)
                batch = await server.ends_within(
                    batch_id, PATIENCE_S if life == KILLS else random.uniform(0.02, 0.6)
                )
                if batch is not None:
                    output = await server.output(batch)
                    break
                await server.kill()
                allowed = len(engine.log) - settled(tmp_path, batch_id)
        assert batch is not None, "it did not complete"
        assert batch["request_counts"] == {"total": REQUESTS, "completed": REQUESTS, "failed": 0}
        price = price_of(output)
        assert Decimal(batch["cost"]["amount"]) == dollars(price), "every answer is billed once"
        assert charged(tmp_path, batch_id) == (REQUESTS, price), "and so does the ledger say"
        answers = [line["response"]["body"]["choices"][0]["message"]["content"] for line in output]
        assert answers == [f"re: {text}" for text in texts]
        repeated = len(engine.log) - REQUESTS
        assert 0 <= repeated <= allowed, "what was committed when it was killed never ran again"
        print(f"seed {seed}: {life} kills, {repeated} requests ran again, {allowed} allowed")


async def test_sigterm_lets_the_calls_in_flight_finish_and_exits_in_good_order(
    tmp_path: Path,
) -> None:
    texts = [f"q{number}" for number in range(1, 201)]
    async with LoggingEngine(0.5) as engine:
        async with served(tmp_path, engine) as server:
            batch_id = await server.start_batch(texts)
            await engine.saw(lambda: len(engine.log) >= 2 * WINDOW)
            code, _ = await server.terminate(PATIENCE_S)
            assert (code, engine.abandoned) == (0, [])
        engine.delay_s = 0.0
        async with served(tmp_path, engine) as server:
            batch = await server.ends_within(batch_id, PATIENCE_S)
            assert batch is not None
            assert len(await server.output(batch)) == 200
        assert len(engine.log) == 200, "nothing ran again"


@pytest.mark.skipif(ROUNDS <= 2, reason="takes the whole time of a drain")
async def test_sigterm_gives_up_on_calls_that_do_not_end(tmp_path: Path) -> None:
    async with LoggingEngine(0.0) as engine, served(tmp_path, engine) as server:
        await server.start_batch(["hang"] * 3)
        await engine.saw(lambda: len(engine.log) >= 1)
        code, seconds = await server.terminate(PATIENCE_S)
        assert code == 0
        assert seconds > limits.DRAIN_S - 1
        await engine.saw_abandoned(1)
