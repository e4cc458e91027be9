"""What a claim costs against the length of the queue: 10 to 10 million requests.

    python -m bench.bench_claims [--postgres URL]

A claim takes two chunks, which is what a worker with a window of 64 asks for, and the next one
takes the two after it: medians of CLAIMS of them, on a store as the product opens it (SQLite in a
file with `synchronous=FULL`; PostgreSQL, that of the tests unless a URL is given). The queue has up
to 1,000 batches of 100 organizations. The yardstick of the same run is the smallest transaction
that the store can commit. The last line of stdout is the result as JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, text

from lowtide.core.accounts.tenancy import Organization
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import NOTHING_DONE
from lowtide.limits import CHUNK_REQUESTS_MAX
from lowtide.store.schema.rows import USAGE_FIELDS, batch_values, organization_values
from lowtide.store.schema.schedule_tables import virtual_times
from lowtide.store.schema.tables import batch_models, batches, chunks, organizations
from lowtide.store.sql_store import SqlStore
from testkit.postgres import running_postgres
from testkit.store_fixture import NOON, TTL_S

SIZES: Final = (10, 1_000, 100_000, 1_000_000, 10_000_000)
BATCHES_MAX: Final = 1_000
TENANTS_MAX: Final = 100
CLAIMS: Final = 40
AT_ONCE: Final = 2
ROWS: Final = 2_000


async def fill(store: SqlStore, requests: int) -> None:
    """Queue that many requests, without the work of validating them."""
    sizes = [CHUNK_REQUESTS_MAX] * (requests // CHUNK_REQUESTS_MAX)
    sizes += [requests % CHUNK_REQUESTS_MAX] if requests % CHUNK_REQUESTS_MAX else []
    count = min(BATCHES_MAX, max(1, len(sizes) // 10))
    tenants = min(TENANTS_MAX, count)
    async with store._db.write() as conn:
        for n in range(tenants):
            organization = Organization(id=f"org_{n}", name="t", created_at=NOON)
            await conn.execute(insert(organizations), organization_values(organization))
            await conn.execute(
                insert(virtual_times),
                {"model": "m", "organization_id": f"org_{n}", "virtual_time": 0.0},
            )
        records = [_batch(n, tenants, len(sizes[n::count])) for n in range(count)]
        await conn.execute(insert(batches), records)
        await conn.execute(insert(batch_models), [_share(record) for record in records])
        rows = []
        for n, record in enumerate(records):
            for seq, size in enumerate(sizes[n::count]):
                rows.append(_chunk(record, seq, size))
                if len(rows) == ROWS:
                    await conn.execute(insert(chunks), rows)
                    rows = []
        if rows:
            await conn.execute(insert(chunks), rows)
    async with store._db.write() as conn:
        await conn.execute(text("ANALYZE"))


def _batch(n: int, tenants: int, count: int) -> dict[str, Any]:
    record = Batch(
        id=f"batch_{n}",
        project_id=f"proj_{n % tenants}",
        user_id="u",
        dialect="openai",
        input_file_id="file-1",
        input_bytes=1,
        endpoint="/v1/chat/completions",
        status="in_progress",
        completion_window_s=86400,
        created_at=NOON + timedelta(seconds=n),
        expires_at=NOON + timedelta(hours=1 + n % 168),
        plan_key="plans/1",
    )
    own = {"digest": f"d{n}", "input_key": "files/1", "answered_at": NOON, "results_seq": 0}
    own |= {"task_token": 0, "organization_id": f"org_{n % tenants}"}
    return batch_values(record) | own | {"total": count * CHUNK_REQUESTS_MAX}


def _share(record: dict[str, Any]) -> dict[str, Any]:
    sums = ("planned_tokens", "settled_tokens", "completed", "failed", *USAGE_FIELDS)
    share = {"batch_id": record["id"], "model": "m", "requests": record["total"]}
    return share | dict.fromkeys(sums, 0) | {"planned_cost": 1.0}


def _chunk(record: dict[str, Any], seq: int, size: int) -> dict[str, Any]:
    return {
        "batch_id": record["id"],
        "seq": seq,
        "organization_id": record["organization_id"],
        "state": "waiting",
        "model": "m",
        "priority": 0,
        "deadline_at": record["expires_at"],
        "batch_created_at": record["created_at"],
        "first": seq * CHUNK_REQUESTS_MAX,
        "count": size,
        "input_tokens": size * 100,
        "input_bytes": size * 500,
        "done": NOTHING_DONE,
        "settled": 0,
        "token": 0,
        "cost": size * 1100.0,
    }


async def measure(url: str, requests: int) -> dict[str, Any]:
    store = SqlStore(url)
    await store.open()
    try:
        await fill(store, requests)
        for warm in range(3):
            await _claim(store, f"w{warm}")
            await store.work.release_worker(f"w{warm}")
        claims, commits = [], []
        for _ in range(CLAIMS):
            begin = time.perf_counter()
            leases = await _claim(store, "w")
            claims.append(time.perf_counter() - begin)
            if not leases:
                raise RuntimeError("the queue ran dry")
            if requests <= CLAIMS * AT_ONCE * CHUNK_REQUESTS_MAX:
                await store.work.release_worker("w")  # a short queue is claimed again and again
            begin = time.perf_counter()
            await store.batches.mark_answered("batch_0", NOON)
            commits.append(time.perf_counter() - begin)
        return {
            "requests": requests,
            "chunks": -(-requests // CHUNK_REQUESTS_MAX),
            "claim_ms": statistics.median(claims) * 1e3,
            "p90_ms": statistics.quantiles(claims, n=10)[-1] * 1e3,
            "commit_ms": statistics.median(commits) * 1e3,
        }
    finally:
        await store.aclose()


async def _claim(store: SqlStore, worker: str) -> list[Any]:
    return list(await store.work.claim_chunks(worker, ("m",), AT_ONCE, NOON, TTL_S))


def sqlite() -> list[dict[str, Any]]:
    results = []
    for requests in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}"
            results.append(asyncio.run(measure(url, requests)))
            print("sqlite", results[-1], file=sys.stderr)
    return results


def postgres(url: str | None) -> list[dict[str, Any]]:
    """`url`: of an empty database, for one size; None: the tests' own, one for each."""
    results = []
    if url is not None:
        return [asyncio.run(measure(url, SIZES[-1]))]
    with running_postgres() as server:
        for requests in SIZES:
            with server.database() as name:
                results.append(asyncio.run(measure(server.url(name), requests)))
                print("postgres", results[-1], file=sys.stderr)
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", metavar="URL", help="measure the longest queue there")
    url = parser.parse_args().postgres
    found = {"sqlite": sqlite(), "postgres": postgres(url)}
    flat = {
        name: rows[-1]["claim_ms"] / rows[0]["claim_ms"] for name, rows in found.items() if rows
    }
    print(json.dumps({"at_once": AT_ONCE, **found, "longest_over_shortest": flat}))


if __name__ == "__main__":
    main()
