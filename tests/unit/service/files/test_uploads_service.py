"""Putting parts together: once, whoever asks; whole or not at all, whatever happens meanwhile."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lowtide import limits
from lowtide.blobs.url import open_blobs
from lowtide.config import LimitSettings
from lowtide.core.errors import LowtideError
from lowtide.core.files.upload import Choice, Upload
from lowtide.loops.batches.housekeeping import SweepLoop
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store, StoreUnavailable
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.files.files import FileService
from lowtide.service.files.upload_keys import UploadKeys
from lowtide.service.files.uploads import NewUpload, UploadService
from lowtide.service.files.uploads_completion import UploadCompleter
from lowtide.system import new_id
from testkit.manual_clock import ManualClock
from testkit.patience import PATIENCE_S

DATA = b"first line\nsecond line\nthe third"


class GatedBlobs:
    """The folder, whose reading of parts waits until a test lets it go on."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.reading = asyncio.Event()
        self.go_on = asyncio.Event()
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def stream(
        self, key: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        self.reads += 1
        self.reading.set()
        await self.go_on.wait()
        async for block in self._blobs.stream(key, offset, length):
            yield block


class WatchedClock(ManualClock):
    """Lets a test wait until somebody has lain down to sleep, for the n-th time."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = 0
        self._changed = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self._begun += 1
        self._changed.set()
        await super().sleep(seconds)

    async def slept(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self._begun < times:
                self._changed.clear()
                await self._changed.wait()


class Env:
    """One project's uploads, and as many processes to complete them as a test wants."""

    def __init__(self, store: Store, folder: Path, clock: WatchedClock) -> None:
        self.store = store
        self.folder = folder
        self.clock = clock
        self.blobs = GatedBlobs(open_blobs("file", folder))
        self.blobs.go_on.set()
        allowance = Quotas(store.tenants, store.ledger, clock, LimitSettings())
        self.files = FileService(
            store.files, self.blobs, clock, new_id, allowance, UploadKeys(store.idempotency, clock)
        )
        self.uploads = UploadService(store.uploads, self.files, self.blobs, clock, new_id)
        self.processes: list[UploadCompleter] = []
        self.completions = self.process()

    def process(self) -> UploadCompleter:
        made = UploadCompleter(self.store.uploads, self.store.files, self.blobs, self.clock, new_id)
        self.processes.append(made)
        return made

    async def upload(self, *pieces: bytes, checksum: str = "") -> tuple[Upload, Choice]:
        pieces = pieces or (DATA[:7], DATA[7:])
        size = sum(map(len, pieces))
        new = NewUpload(filename="x", purpose="batch", bytes=size, ttl_s=3600, checksum=checksum)
        upload = await self.uploads.begin("p", new)
        ids = []
        for piece in pieces:
            async with self.uploads.part(upload, size) as intake:
                await intake.write(piece)
            ids.append((await self.uploads.keep_part(upload, intake)).id)
        return upload, Choice(ids=tuple(ids))

    def stored(self, under: str) -> list[Path]:
        return [path for path in (self.folder / under).rglob("*") if path.is_file()]

    async def sweep(self) -> None:
        await SweepLoop(self.store.results, self.blobs, self.clock).tick(self.clock.now())


@pytest.fixture
async def env(store: Store, tmp_path: Path) -> AsyncIterator[Env]:
    made = Env(store, tmp_path / "blobs", WatchedClock())
    yield made
    made.blobs.go_on.set()
    for process in made.processes:
        await process.aclose()


async def test_a_file_is_its_parts_measured_in_one_pass(env: Env) -> None:
    upload, choice = await env.upload()
    file = await env.completions.complete(upload, choice, "org")
    assert (file.bytes, file.lines) == (len(DATA), 3)
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    assert await env.blobs.read(file.blob_key) == DATA
    assert await env.files.get("p", upload.file_id) == file
    await env.sweep()
    assert env.stored("parts") == []
    assert len(env.stored("files")) == 1


async def test_callers_that_come_back_join_the_completion_under_way(env: Env) -> None:
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    first = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    first.cancel()  # its client gave up
    again = [asyncio.create_task(env.completions.complete(upload, choice, "org")) for _ in range(3)]
    await asyncio.sleep(0)
    env.blobs.go_on.set()
    files = await asyncio.gather(*again)
    assert env.blobs.reads == 2, "each part once"
    assert {file.id for file in files} == {upload.file_id}
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_caller_that_comes_to_another_process_waits_for_the_first(env: Env) -> None:
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    first = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    second = asyncio.create_task(env.process().complete(upload, choice, "org"))
    await env.clock.slept(2)  # the renewal of the first, and the second's wait
    env.blobs.go_on.set()
    file = await first
    env.clock.advance(limits.COMPLETION_POLL_S)
    assert await second == file
    assert env.blobs.reads == 2


async def test_a_hold_is_renewed_as_long_as_it_takes(env: Env) -> None:
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    first = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    for times in range(1, 10):
        await env.clock.slept(times)
        env.clock.advance(limits.LEASE_TTL_S / 3)
    await env.clock.slept(10)
    assert await env.store.uploads.hold(upload.id, env.clock.now(), 30.0) is None
    env.blobs.go_on.set()
    assert (await first).bytes == len(DATA)


async def test_a_process_that_stops_leaves_the_upload_as_it_was(env: Env) -> None:
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    first = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    await env.completions.aclose()
    with pytest.raises(LowtideError) as refused:
        await first
    assert refused.value.code == "server_stopping"
    assert env.stored("files") == []
    env.blobs.go_on.set()
    assert (await env.process().complete(upload, choice, "org")).bytes == len(DATA), "at once"


async def test_after_a_crash_whoever_asks_completes_it_when_the_hold_has_run_out(
    env: Env,
) -> None:
    upload, choice = await env.upload()
    dead = await env.store.uploads.hold(upload.id, env.clock.now(), limits.LEASE_TTL_S)
    assert dead is not None
    asked = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.clock.slept(1)
    env.clock.advance(limits.LEASE_TTL_S)
    assert (await asked).bytes == len(DATA)


async def test_an_upload_cancelled_while_it_is_put_together_becomes_no_file(env: Env) -> None:
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    asked = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    await env.uploads.cancel("p", upload.id)
    env.blobs.go_on.set()
    with pytest.raises(LowtideError) as refused:
        await asked
    assert refused.value.code == "upload_closed"
    assert await env.store.files.by_id(upload.file_id) is None
    await env.sweep()
    assert env.stored("") == []


async def test_parts_swept_away_meanwhile_end_it_with_the_reason(env: Env) -> None:
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    asked = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    await env.uploads.cancel("p", upload.id)
    await env.sweep()
    env.blobs.go_on.set()
    with pytest.raises(LowtideError) as refused:
        await asked
    assert refused.value.code == "upload_closed"


async def test_a_part_whose_bytes_were_lost_is_told_so(env: Env) -> None:
    upload, choice = await env.upload()
    for path in env.stored("parts"):
        path.unlink()
    with pytest.raises(LowtideError) as refused:
        await env.completions.complete(upload, choice, "org")
    assert refused.value.code == "file_lost"


async def test_a_checksum_that_the_bytes_do_not_have_makes_no_file(env: Env) -> None:
    upload, choice = await env.upload(checksum="0" * 64)
    with pytest.raises(LowtideError, match="SHA-256") as refused:
        await env.completions.complete(upload, choice, "org")
    assert refused.value.param == "checksum"
    assert env.stored("files") == []
    assert len(env.stored("parts")) == 2


def with_md5(choice: Choice, md5: str) -> Choice:
    return msgspec.structs.replace(choice, md5=md5)


async def test_parts_known_to_be_others_are_not_read_again(env: Env) -> None:
    upload, choice = await env.upload()
    for number in range(60):
        with pytest.raises(LowtideError, match="MD5") as refused:
            await env.completions.complete(upload, with_md5(choice, f"{number:032x}"), "org")
        assert refused.value.code == "invalid_request"
    assert env.blobs.reads == 2, "each part once"
    right = with_md5(choice, hashlib.md5(DATA, usedforsecurity=False).hexdigest())
    assert (await env.completions.complete(upload, right, "org")).bytes == len(DATA)


async def test_an_upload_that_was_read_in_vain_a_few_times_is_cancelled(env: Env) -> None:
    pieces = [bytes([65 + number]) for number in range(limits.COMPLETION_FAILURES_MAX)]
    upload, choice = await env.upload(*pieces)
    for turn in range(limits.COMPLETION_FAILURES_MAX):
        turned = Choice(ids=choice.ids[turn:] + choice.ids[:turn], md5="0" * 32)
        with pytest.raises(LowtideError, match="MD5"):
            await env.completions.complete(upload, turned, "org")
    with pytest.raises(LowtideError, match="is cancelled") as refused:
        await env.completions.complete(upload, choice, "org")
    assert refused.value.code == "upload_closed"


async def test_a_completion_waits_for_none_of_another_organization(env: Env) -> None:
    env.blobs.go_on.clear()
    theirs = [await env.upload() for _ in range(6)]
    held = [asyncio.create_task(env.completions.complete(*each, "org_a")) for each in theirs]
    mine = asyncio.create_task(env.completions.complete(*await env.upload(), "org_b"))
    await env.blobs.reading.wait()
    async with asyncio.timeout(PATIENCE_S):
        while env.blobs.reads < limits.COMPLETIONS_AT_ONCE // 2 + 1:
            assert not mine.done()
            await asyncio.sleep(0)
    env.blobs.go_on.set()
    assert (await mine).bytes == len(DATA)
    await asyncio.gather(*held)


async def test_a_commit_whose_answer_was_lost_is_found_by_the_repetition(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, choice = await env.upload()
    real = env.store.uploads.complete

    async def unheard(*args: Any) -> bool:
        await real(*args)
        raise StoreUnavailable("gone")

    monkeypatch.setattr(env.store.uploads, "complete", unheard)
    with pytest.raises(StoreUnavailable):
        await env.completions.complete(upload, choice, "org")
    file = await env.completions.complete(upload, choice, "org")
    assert await env.blobs.read(file.blob_key) == DATA, "the blob was left alone"


async def test_a_store_that_is_away_while_the_hold_is_renewed_ends_nothing(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    asked = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    await env.clock.slept(1)

    async def away(*args: Any) -> bool:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(env.store.uploads, "keep_hold", away)
    env.clock.advance(limits.LEASE_TTL_S / 3)
    await env.clock.slept(2)
    env.blobs.go_on.set()
    assert (await asked).bytes == len(DATA)


async def test_a_caller_waits_within_bounds_and_the_work_goes_on(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMPLETION_WAIT_S", 0.01)
    upload, choice = await env.upload()
    env.blobs.go_on.clear()
    with pytest.raises(LowtideError) as refused:
        await env.completions.complete(upload, choice, "org")
    assert refused.value.code == "upload_completing"
    env.blobs.go_on.set()
    monkeypatch.setattr(limits, "COMPLETION_WAIT_S", 30.0)
    assert (await env.completions.complete(upload, choice, "org")).bytes == len(DATA)
    assert env.blobs.reads == 2


async def test_only_so_many_files_are_put_together_at_once(env: Env) -> None:
    env.blobs.go_on.clear()
    begun = [await env.upload(b"x") for _ in range(limits.COMPLETIONS_AT_ONCE + 2)]
    asked = [
        asyncio.create_task(env.completions.complete(*each, f"org{place % 3}"))
        for place, each in enumerate(begun)
    ]
    await env.clock.slept(limits.COMPLETIONS_AT_ONCE)
    assert env.blobs.reads <= limits.COMPLETIONS_AT_ONCE
    env.blobs.go_on.set()
    assert len({file.id for file in await asyncio.gather(*asked)}) == len(begun)


async def test_a_part_that_comes_too_late_leaves_no_bytes(env: Env) -> None:
    upload, choice = await env.upload()
    async with env.uploads.part(upload, 100) as intake:
        await intake.write(b"late")
    await env.completions.complete(upload, choice, "org")
    with pytest.raises(LowtideError) as refused:
        await env.uploads.keep_part(upload, intake)
    assert refused.value.code == "upload_closed"
    await env.sweep()
    assert env.stored("parts") == []


async def test_a_part_that_comes_while_they_are_put_together_is_refused(env: Env) -> None:
    upload, choice = await env.upload()
    async with env.uploads.part(upload, 100) as intake:
        await intake.write(b"late")
    env.blobs.go_on.clear()
    asked = asyncio.create_task(env.completions.complete(upload, choice, "org"))
    await env.blobs.reading.wait()
    with pytest.raises(LowtideError, match="being put together"):
        await env.uploads.keep_part(upload, intake)
    seen = await env.uploads.get("p", upload.id)
    with pytest.raises(LowtideError, match="being put together"):
        env.uploads.check_open(seen)
    env.blobs.go_on.set()
    await asked


async def test_one_numbered_part_takes_one_body_at_a_time(env: Env) -> None:
    new = NewUpload(filename="x", purpose="batch", bytes=8, ttl_s=3600, parts=2)
    upload = await env.uploads.begin("p", new)
    async with env.uploads.part(upload, 8, 1), env.uploads.part(upload, 8, 2):
        with pytest.raises(LowtideError) as refused:
            async with env.uploads.part(upload, 8, 1):
                raise AssertionError("it was let in")
    assert refused.value.code == "upload_busy"


async def test_parts_under_way_together_have_no_more_bytes_than_the_upload_has_room_for(
    env: Env,
) -> None:
    new = NewUpload(filename="x", purpose="batch", bytes=8, ttl_s=3600, parts=3)
    upload = await env.uploads.begin("p", new)
    async with env.uploads.part(upload, 8, 1) as one, env.uploads.part(upload, 8, 2) as two:
        await one.write(b"12345")
        await two.write(b"123")
        with pytest.raises(LowtideError) as refused:
            await two.write(b"4")
    assert refused.value.code == "upload_busy"
    async with env.uploads.part(upload, 8, 1) as again:
        await again.write(b"12345678")
    assert not env.uploads._under_way, "what ended is not remembered"
