"""`lowtide backup` beside a server at work, killed, run again; `lowtide restore`, and on it goes.

Real processes. Whatever the backup's moment was, after a restore each line ends once and is charged
once.
"""

import asyncio
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command
from runbook_env import Site, check_delivered, prompts

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S

REQUESTS = 480  # at sixteen a second far more than the test needs, however slow the machine
ANSWER_S = 0.25
FEW = 40
FILES = 30


@pytest.fixture
def engine() -> Iterator[EchoEngine]:
    with running_echo_engine() as engine:
        yield engine


async def test_a_backup_of_a_server_at_work_is_restored_and_goes_on(
    tmp_path: Path, engine: EchoEngine
) -> None:
    site = Site(tmp_path, [engine])
    backups = tmp_path / "backups"
    async with site.serving() as life:
        env = life.env
        done = await env.end(await env.start(prompts(5, 0.0)))
        batch = await env.start(prompts(REQUESTS, ANSWER_S))
        await env.until(batch, lambda seen: seen["request_counts"]["completed"] >= 8)
        code, report, reported = await site.run("backup", backups / "1")
        assert (code, report["missing"]) == (0, 0), reported
        await env.until(batch, lambda seen: seen["request_counts"]["completed"] >= 20)
        code, second, reported = await site.run("backup", backups / "2")
        assert (code, second["base"], second["missing"]) == (0, str(backups / "1"), 0), reported
        assert report["new"] == report["blobs"] and 0 < second["new"] < second["blobs"]
        counts = (await env.see(batch))["request_counts"]
        more = counts["completed"] + 4
        await env.until(batch, lambda seen: seen["request_counts"]["completed"] >= more)
        life.command.send(signal.SIGKILL)  # the power goes
    asked_before = engine.calls.copy()
    shutil.rmtree(site.data_dir)

    engine.hurries = True  # the rest need not take as long
    code, _, reported = await site.run("restore", backups / "2")
    assert code == 0, reported
    assert (await site.run("restore", backups / "2"))[0] == 2, "the data directory is not empty now"
    async with site.serving() as life:
        ended = await life.end(batch)
        assert await check_delivered(life.env, ended, REQUESTS) == Counter(ok=REQUESTS)
        assert await check_delivered(life.env, done, 5) == Counter(ok=5)
        code, found = await site.doctor("--deep")
        assert code == 0 and found["drift"][0]["verdict"] == "ok"
    again = engine.calls - asked_before
    assert 0 < again.total() <= REQUESTS - 20, "what finished before the backup is not run again"


async def test_a_backup_that_is_killed_at_any_moment_goes_on(
    tmp_path: Path, engine: EchoEngine
) -> None:
    site = Site(tmp_path, [engine])
    dest = tmp_path / "backups" / "1"
    async with site.serving() as life:
        for _ in range(FILES):
            await life.env.upload(prompts(1))
        batch = await life.env.start(prompts(FEW))
        await life.env.until(batch, lambda seen: seen["request_counts"]["completed"] >= 1)
        for seen in ("backup.partial", "lowtide.db.partial", "blobs.sha256.partial"):
            words = ("backup", dest, "--config", site.config())
            async with await Command.start(*words, cwd=tmp_path) as killed:
                await there(dest / seen, dest / "manifest.json")  # the last if it was too quick
                killed.send(signal.SIGKILL)
        if not (dest / "manifest.json").exists():
            code, answer, reported = await site.run("restore", dest)
            assert (code, answer["error"]["code"]) == (2, "partial"), reported
            code, report, reported = await site.run("backup", dest)
            assert (code, report["missing"]) == (0, 0), reported
        await life.env.end(batch)
    shutil.rmtree(site.data_dir)
    assert (await site.run("restore", dest))[0] == 0
    async with site.serving() as life:
        ended = await life.end(batch)
        assert await check_delivered(life.env, ended, FEW) == Counter(ok=FEW)
        code, found = await site.doctor("--deep")
        assert code == 0 and found["drift"][0]["verdict"] == "ok"


async def there(*paths: Path) -> None:
    """Wait until another process has made one of the files; no event tells of it."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE_S
        while not any(path.exists() for path in paths):
            assert time.monotonic() < end, f"none of {paths} ever came"
            time.sleep(0.001)

    await asyncio.to_thread(wait)


async def test_a_backup_of_another_pair_says_what_to_use(tmp_path: Path) -> None:
    site = Site(tmp_path, [], database_url="postgresql://nowhere/x", blob_url="s3://bucket")
    code, answer, reported = await site.run("backup", tmp_path / "b")
    assert code == 2 and answer["error"]["code"] == "not_embedded"
    assert "pg_dump" in reported and "doctor --repair" in reported
