"""docs/how-to/runbooks.md, tried: each loss made real on real processes, then its commands.

What remains deliverable is delivered: no line lost or doubled, none charged twice.
"""

import asyncio
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from product_env import Json
from runbook_env import Life, Site, check_delivered, prompts

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S
from testkit.postgres import PostgresServer

REQUESTS = 60
ALL = Counter(ok=REQUESTS)


@pytest.fixture
def engine() -> Iterator[EchoEngine]:
    with running_echo_engine() as engine:
        yield engine


@pytest.fixture
def shared(tmp_path: Path, engine: EchoEngine, postgres_url: str) -> Site:
    """Many machines: PostgreSQL and a folder that all of them see."""
    blob_url = (tmp_path / "blobs").as_uri()
    return Site(tmp_path, [engine], database_url=postgres_url, blob_url=blob_url)


async def some_done(life: Life, batch: Json, count: int = 8) -> None:
    await life.env.until(batch, lambda seen: seen["request_counts"]["completed"] >= count)


# ---- a process is lost ----


async def test_worker_lost(shared: Site, engine: EchoEngine) -> None:
    """Nothing to do: another one takes over within a lease."""
    async with shared.serving("api", "api") as api, shared.working("w1") as lost:
        batch = await api.env.start(prompts(REQUESTS, 0.2))
        await some_done(api, batch)
        lost.send(signal.SIGKILL)
        engine.hurries = True
        async with shared.working("w2"):
            ended = await api.env.end(batch)
            assert await check_delivered(api.env, ended, REQUESTS) == ALL


async def test_api_lost(shared: Site) -> None:
    """Workers go on without it, and any other one answers for it."""
    async with shared.working("w1"):
        async with shared.serving("api-1", "api") as first:
            batch = await first.env.start(prompts(REQUESTS))
            await some_done(first, batch, 1)
            first.command.send(signal.SIGKILL)
        async with shared.serving("api-2", "api") as second:
            ended = await second.env.end(batch)
            assert await check_delivered(second.env, ended, REQUESTS) == ALL


# ---- the database is lost ----


async def test_database_lost_and_restored_to_an_older_point(
    shared: Site, tmp_path: Path, engine: EchoEngine, postgres: PostgresServer
) -> None:
    """Blobs are newer than rows then: some are orphans, some that rows name were deleted since."""
    database = urlsplit(shared.database_url).path.removeprefix("/")
    dump = tmp_path / "older.dump"
    async with shared.serving("api", "api") as api, shared.working("w1") as worker:
        done = await api.env.end(await api.env.start(prompts(5, 0.0)))
        batch = await api.env.start(prompts(REQUESTS, 0.2))
        await some_done(api, batch)
        slices = f"SELECT count(*) FROM slices WHERE batch_id = '{batch['id']}'"
        async with asyncio.timeout(PATIENCE_S):  # one is lost below, and another is not
            while int(postgres.sql(slices, database=database)) < 2:
                await api.env.see(batch)
        postgres.tool("pg_dump", "-Fc", "-f", str(dump), "-d", shared.database_url)
        first = f"SELECT segment_key FROM slices WHERE batch_id = '{batch['id']}' ORDER BY seq"
        named = postgres.sql(f"{first} LIMIT 1", database=database).strip()
        engine.hurries = True
        await api.env.end(batch)
        younger = await api.env.end(await api.env.start(prompts(3, 0.0)))
        await api.env.http.delete(f"/v1/files/{done['output_file_id']}")
        for process in (worker, api.command):
            process.send(signal.SIGKILL)
    folder = tmp_path / "blobs"
    (plan,) = folder.glob(f"plans/{batch['id']}-*")
    plan.unlink()  # as the sweep does, a minute after the end of the batch
    (folder / named).unlink()  # and this an hour after
    asked_before = engine.calls.copy()

    postgres.sql(f"DROP DATABASE {database} WITH (FORCE)", f"CREATE DATABASE {database}")
    postgres.tool("pg_restore", "-d", shared.database_url, str(dump))
    code, found = await shared.doctor()
    assert code == 1 and any("plan of a batch" in drift["what"] for drift in found["drift"])
    repairs = await shared.mend()
    assert {repair["needed_as"] for repair in repairs} == {"plan", "segment"}
    async with shared.serving("api", "api") as api, shared.working("w1"):
        ended = await api.end(batch)
        assert await check_delivered(api.env, ended, REQUESTS) == ALL
        assert (await api.env.http.get(f"/v1/batches/{younger['id']}")).status_code == 404
        async with asyncio.timeout(PATIENCE_S):
            while (await shared.doctor())[0] != 0:
                pass
    again = engine.calls - asked_before
    assert 0 < again.total() < REQUESTS, "what the older database had is not run again"
    code, found = await shared.doctor()
    bad = [one for checks in found.values() for one in checks if one["verdict"] == "fail"]
    assert not bad, "\n".join(map(str, bad))


# ---- blobs are lost ----


async def test_folder_damaged(tmp_path: Path, engine: EchoEngine) -> None:
    """A disk that lost some files of the embedded pair, while the server runs on."""
    site = Site(tmp_path, [engine])
    async with site.serving() as life:
        done = await life.env.end(await life.env.start(prompts(5, 0.0)))
        batch = await life.env.start(prompts(REQUESTS, 0.2))
        await some_done(life, batch)
        newest = max(site.blobs.glob("segments/*"), key=lambda path: path.stat().st_mtime)
        for lost in (*site.blobs.glob("results/*"), newest):
            lost.unlink()
        code, found = await site.doctor()
        assert code == 1 and len(found["drift"]) >= 1
        await site.mend()
        engine.hurries = True
        ended = await life.end(batch)
        assert await check_delivered(life.env, ended, REQUESTS) == ALL
        assert await check_delivered(life.env, done, 5) == Counter(ok=5)
        assert (await site.doctor("--deep"))[0] == 0


async def test_folder_not_mounted(tmp_path: Path, engine: EchoEngine) -> None:
    """Nothing is given up for it, by the server or by doctor, and mounting it mends all."""
    site = Site(tmp_path, [engine])
    async with site.serving() as life:
        batch = await life.env.start(prompts(REQUESTS))
        await some_done(life, batch, 1)
        life.command.send(signal.SIGKILL)
    away = site.blobs.rename(tmp_path / "away")
    code, answer, _ = await site.run("doctor", "--repair", "--yes")
    assert (code, answer["error"]["code"]) == (2, "all_blobs_missing")
    async with site.serving() as life:
        code, found = await site.doctor()
        assert code == 1 and "every blob" in found["drift"][0]["what"]
        assert (await life.env.see(batch))["status"] == "in_progress"
        life.command.send(signal.SIGKILL)
    for path in sorted(site.blobs.rglob("*"), reverse=True):
        path.rmdir()
    site.blobs.rmdir()
    away.rename(site.blobs)
    async with site.serving() as life:
        ended = await life.end(batch)
        assert await check_delivered(life.env, ended, REQUESTS) == ALL


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of an S3 with the bucket `lowtide`."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    empty(f"http://{host}:{port}")
    yield f"http://{host}:{port}"
    server.stop()


def empty(address: str) -> None:
    """A fresh bucket in the place of whatever was there."""
    urlopen(Request(f"{address}/moto-api/reset", method="POST")).close()
    urlopen(Request(f"{address}/lowtide", method="PUT")).close()


async def test_bucket_lost(
    tmp_path: Path, engine: EchoEngine, postgres_url: str, bucket: str
) -> None:
    """Every batch that it held ends, with each line named; the next one is as if nothing was."""
    site = Site(
        tmp_path,
        [engine],
        database_url=postgres_url,
        blob_url="s3://lowtide/here",
        environ={
            "AWS_ENDPOINT": bucket,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
    )
    async with site.serving("api", "api") as api, site.working("w1") as worker:
        done = await api.env.end(await api.env.start(prompts(5, 0.0)))
        batch = await api.env.start(prompts(REQUESTS, 0.2))
        await some_done(api, batch)
        for process in (worker, api.command):
            process.send(signal.SIGKILL)
    empty(bucket)
    code, answer, _ = await site.run("doctor", "--repair", "--yes")
    assert (code, answer["error"]["code"]) == (2, "all_blobs_missing")
    async with site.serving("api", "api") as api, site.working("w1"):
        await mended(site)
        ended = await api.end(batch)
        assert ended["status"] == "completed" and ended["errors"]["data"][0]["code"] == "input_lost"
        assert await check_delivered(api.env, ended, REQUESTS) == Counter(input_lost=REQUESTS)
        lost = await api.env.http.get(f"/v1/files/{done['output_file_id']}/content")
        assert (lost.status_code, lost.json()["error"]["code"]) == (410, "file_lost")
        after = await api.env.end(await api.env.start(prompts(5, 0.0)))
        assert await check_delivered(api.env, after, 5) == Counter(ok=5)


async def mended(site: Site) -> None:
    """Repair until nothing is left: what a dead worker had leased must run out first, and a worker
    tells of a task that failed before the repair until that was tried again.
    """
    async with asyncio.timeout(PATIENCE_S):
        while True:
            code, _, _ = await site.run("doctor", "--repair", "--yes", "--accept-loss")
            if code == 0 and (await site.doctor())[0] == 0:
                return


# ---- the rest ----


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
async def test_disk_full(tmp_path: Path, engine: EchoEngine) -> None:
    """Work waits, nothing is lost, and it goes on by itself when there is room."""
    site = Site(tmp_path, [engine])
    async with site.serving() as life:
        batch = await life.env.start(prompts(REQUESTS, 0.1))
        await some_done(life, batch, 4)
        pid = life.command.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        stuck = "cannot be stored"
        await life.env.until(batch, lambda seen: stuck in (seen["reason"] or ""))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        ended = await life.end(batch)
        assert await check_delivered(life.env, ended, REQUESTS) == ALL
        assert (await site.doctor("--deep"))[0] == 0


async def test_engine_lost(tmp_path: Path) -> None:
    """Of two, one dies: the other does it all; of one, the batch says why and waits."""
    with ExitStack() as stack:
        first = stack.enter_context(running_echo_engine())
        second = stack.enter_context(running_echo_engine())
        site = Site(tmp_path, [first, second])
        async with site.serving() as life:
            batch = await life.env.start(prompts(REQUESTS, 0.1))
            await some_done(life, batch)
            first.stop()
            ended = await life.env.end(batch)
            assert await check_delivered(life.env, ended, REQUESTS) == ALL
            code, found = await site.doctor("--quick")
            (dead,) = [f for name, (f,) in found.items() if name == f"replica {first.url}"]
            assert code == 1 and dead["verdict"] == "fail"


@pytest.fixture
def five_minutes_fast(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose clock is wrong."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import datetime, lowtide.system as system\n"
        "true = system.SystemClock.now\n"
        "system.SystemClock.now = lambda clock: true(clock) + datetime.timedelta(minutes=5)\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])}


async def test_clock_wrong(shared: Site, five_minutes_fast: dict[str, str]) -> None:
    """A machine whose clock is minutes off is refused before it takes anything."""
    async with shared.serving("api", "api"):
        pass  # so that there is a schema to look at
    async with await shared.start("worker", name="w1", **five_minutes_fast) as wrong:
        code, _, reported = await wrong.ended()
    assert code == 2 and "300.0 s ahead of the database's" in reported and "NTP" in reported
    shared.environ.update(five_minutes_fast)
    code, found = await shared.doctor()
    assert code == 1 and "ahead of" in found["store"][0]["what"]
