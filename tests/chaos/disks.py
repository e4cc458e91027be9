"""Disks that are full or cannot be written, and too few file descriptors.

Each scenario plants its condition while batches run, asks the API for what it cannot do then, ends
the condition, and leaves the account to the judge: everything must go on, and nothing be lost.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx
from children import ChildFailed
from client import Job, Watch, WrongAnswer
from faults import Fault
from installations import Env, fleet_house, sqlite_house
from mounts import ext4, filled, remount, tmpfs
from rounds import Plague

DISK_MIB: Final = 48
GOING_S: Final = 30.0
BEATS_S: Final = 1.0
FILE_BYTES: Final = 1024
SPARE_FILES: Final = 1
Scenario = Callable[[Path], Any]
"""An async context: a node, and what is done to it."""


async def _under_way(jobs: Sequence[Job], watch: Watch) -> None:
    """Some of a batch has settled, and much has not."""
    if not await watch.until(lambda: any(job.settled > 50 for job in jobs), GOING_S):
        raise WrongAnswer("nothing has settled")


async def _upload(env: Env, size: int = 1 << 16) -> httpx.Response:
    form = {"file": ("probe.jsonl", b"x" * size)}
    return await env.http.post("/v1/files", data={"purpose": "batch"}, files=form)


def _must(holds: bool, words: str) -> None:
    if not holds:
        raise WrongAnswer(words)


async def _refuses(env: Env, status: int, code: str) -> None:
    """Uploads are refused as documented, and reading goes on."""
    for _ in range(3):
        sent = await _upload(env)
        reported = sent.json().get("error", {}).get("code")
        _must((sent.status_code, reported) == (status, code), f"an upload: {sent.text}")
        listed = await env.http.get("/v1/batches")
        _must(listed.status_code == 200, f"a list: {listed.text}")
        await asyncio.sleep(0.3)


def _said_so(env: Env, *words: str) -> None:
    reported = env.children["serve"].reported()
    _must(
        any(word in reported for word in words), f"the log has none of {words}: {reported[-1500:]}"
    )


@asynccontextmanager
async def full(folder: Path) -> AsyncIterator[tuple[Env, Plague]]:
    """The disk with database and blobs fills up, and is cleared."""
    with tmpfs(folder / "disk", DISK_MIB) as disk:

        async def plague(
            env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
        ) -> None:
            await _under_way(jobs, watch)
            at = time.monotonic()
            async with filled(disk):
                await asyncio.sleep(BEATS_S)
                await _refuses(env, 507, "storage_full")
                settled = [job.settled for job in jobs]
                await asyncio.sleep(BEATS_S + random.random())
                _must(settled == [job.settled for job in jobs], "a beat found room on a full disk")
            mended_at = time.monotonic()
            # Leases cannot be renewed on a full disk: after they ended, what was gathered in memory
            # runs again, if they are taken back before the first commit with room. That one comes
            # after a pause that grew with the condition.
            until = mended_at + (mended_at - at) + BEATS_S
            faults.append(Fault("full", "disk", at, "dispatch", mended_at, mended_at, until))
            _said_so(env, "no room", "no space left")
            _must((await _upload(env)).status_code == 200, "an upload with room again")

        async with sqlite_house(folder, data=disk) as env:
            yield env, plague


@asynccontextmanager
async def small_files(folder: Path) -> AsyncIterator[tuple[Env, Plague]]:
    """No file may grow, its own log included: what a quota does, and needs no root."""

    async def plague(
        env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
    ) -> None:
        serve = env.children["serve"]
        await _under_way(jobs, watch)
        at = time.monotonic()
        with serve.bounded(resource.RLIMIT_FSIZE, FILE_BYTES):
            await asyncio.sleep(BEATS_S)
            await _refuses(env, 507, "storage_full")
            await asyncio.sleep(BEATS_S + random.random())
        mended_at = time.monotonic()
        until = mended_at + (mended_at - at) + BEATS_S
        faults.append(Fault("small files", "serve", at, "dispatch", mended_at, mended_at, until))
        _must((await _upload(env)).status_code == 200, "an upload with room again")

    async with sqlite_house(folder) as env:
        yield env, plague


@asynccontextmanager
async def full_and_killed(folder: Path) -> AsyncIterator[tuple[Env, Plague]]:
    """The disk is full, the server is killed, and started before there is room again."""
    with tmpfs(folder / "disk", DISK_MIB) as disk:

        async def plague(
            env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
        ) -> None:
            serve = env.children["serve"]
            await _under_way(jobs, watch)
            started = True
            full_at = time.monotonic()
            async with filled(disk):
                await asyncio.sleep(random.random())
                at = await serve.kill()
                try:
                    await serve.start()
                except ChildFailed as failed:
                    _must("Traceback" not in str(failed), f"no plain word: {failed}")
                    started = False
                await asyncio.sleep(BEATS_S)
            mended_at = time.monotonic()
            if not started:
                await serve.ended()
                await serve.start()
            fault = Fault("full, killed", "serve", full_at, "dispatch", mended_at, mended_at, at)
            fault.starved_s = 0.0 if started else serve.starved_s()
            faults.append(fault)

        async with sqlite_house(folder, data=disk) as env:
            yield env, plague


@asynccontextmanager
async def read_only_blobs(folder: Path) -> AsyncIterator[tuple[Env, Plague]]:
    """The folder of blobs cannot be written for some seconds; the database can."""
    with tmpfs(folder / "disk", DISK_MIB) as disk:

        async def plague(
            env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
        ) -> None:
            await _under_way(jobs, watch)
            await remount(disk, "ro")
            at = time.monotonic()
            try:
                await _refuses(env, 503, "storage_unavailable")
                await asyncio.sleep(BEATS_S + random.random())
            finally:
                await remount(disk, "rw")
            mended_at = time.monotonic()
            faults.append(Fault("read-only blobs", "disk", at, "dispatch", mended_at, mended_at))
            _said_so(env, "Read-only file system")

        async with sqlite_house(folder, blob_url=disk.as_uri()) as env:
            yield env, plague


@asynccontextmanager
async def failed_disk(folder: Path) -> AsyncIterator[tuple[Env, Plague]]:
    """The kernel makes an ext4 read-only; the server is ended, the disk mended, and on it goes."""
    with ext4(folder / "disk", DISK_MIB) as disk:

        async def plague(
            env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
        ) -> None:
            serve = env.children["serve"]
            await _under_way(jobs, watch)
            failed_at = time.monotonic()
            disk.fail()
            await asyncio.sleep(BEATS_S)
            await _refuses(env, 503, "storage_unavailable")
            settled = [job.settled for job in jobs]
            await asyncio.sleep(random.random())
            _must(settled == [job.settled for job in jobs], "a beat on a read-only disk")
            at = await serve.kill()
            try:
                await serve.start()
                raise WrongAnswer("it started on a read-only disk")
            except ChildFailed as failed:
                _must("Traceback" not in str(failed), f"no plain word: {failed}")
                await serve.ended()
            disk.mend()
            mended_at = time.monotonic()
            await serve.start()
            fault = Fault("failed disk", "serve", failed_at, "dispatch", mended_at, mended_at, at)
            fault.starved_s = serve.starved_s()
            faults.append(fault)

        async with sqlite_house(folder, data=disk.folder) as env:
            yield env, plague
            await env.children["serve"].kill()  # before its disk is unmounted


@asynccontextmanager
async def few_files(folder: Path) -> AsyncIterator[tuple[Env, Plague]]:
    """The server may open no further file for some seconds; clients come all the same."""

    async def plague(
        env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
    ) -> None:
        serve = env.children["serve"]
        await _under_way(jobs, watch)
        at = time.monotonic()
        with serve.bounded(resource.RLIMIT_NOFILE, serve.open_files() + SPARE_FILES):
            statuses = await asyncio.gather(*(_status(_upload(env)) for _ in range(20)))
            allowed = {200, 503, 507, None}
            _must(set(statuses) <= allowed, f"uploads were answered {sorted(map(str, statuses))}")
            await asyncio.sleep(BEATS_S + random.random())
        mended_at = time.monotonic()
        until = mended_at + (mended_at - at) + BEATS_S
        faults.append(Fault("few files", "serve", at, "dispatch", mended_at, mended_at, until))

    async with sqlite_house(folder) as env:
        yield env, plague


@asynccontextmanager
async def few_files_for_a_worker(folder: Path) -> AsyncIterator[tuple[Env, Plague]]:
    """The same to one of two workers, for longer than its lease."""

    async def plague(
        env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
    ) -> None:
        worker = random.choice(env.of_role("worker"))
        await _under_way(jobs, watch)
        at = time.monotonic()
        with worker.bounded(resource.RLIMIT_NOFILE, worker.open_files() - SPARE_FILES):
            await asyncio.sleep(3 * BEATS_S + random.random())
        mended_at = time.monotonic()
        until = mended_at + (mended_at - at) + BEATS_S
        faults.append(Fault("few files", worker.name, at, "dispatch", mended_at, mended_at, until))

    async with fleet_house(folder) as env:
        yield env, plague


async def _status(ask: Awaitable[httpx.Response]) -> int | None:
    """None: no answer, as it is when a server accepts nobody."""
    try:
        return (await asyncio.wait_for(ask, 5.0)).status_code
    except (httpx.TransportError, TimeoutError):
        return None


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "full": full,
    "small-files": small_files,
    "full-and-killed": full_and_killed,
    "read-only-blobs": read_only_blobs,
    "failed-disk": failed_disk,
    "few-files": few_files,
    "few-files-for-a-worker": few_files_for_a_worker,
}
