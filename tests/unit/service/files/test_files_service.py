"""The verbs on files over a real store and folder; what only HTTP shows is in tests/api."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.files.files import (
    FileService,
    checked_checksum,
    checked_expiry,
    checked_filename,
    checked_purpose,
)
from lowtide.service.files.upload_keys import UploadKeys


@pytest.fixture
def files(store: Store, blobs: Blobs, clock: SkippingClock) -> FileService:
    numbers = count(1)
    allowance = Quotas(store.tenants, store.ledger, clock, LimitSettings())
    return FileService(
        store.files,
        blobs,
        clock,
        lambda prefix: f"{prefix}{next(numbers):024d}",
        allowance,
        UploadKeys(store.idempotency, clock),
    )


def stored(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def add(files: FileService, data: bytes = b"x\n", project: str = "p") -> str:
    file_id = files.new_file_id()
    async with files.receive(project, file_id, 0) as intake:
        await intake.write(data)
    await files.keep(project, file_id, intake.content, filename="x", purpose="batch")
    return file_id


async def test_another_projects_file_behaves_as_unknown(files: FileService) -> None:
    file_id = await add(files, project="mine")
    with pytest.raises(LowtideError) as refused:
        await files.get("yours", file_id)
    with pytest.raises(LowtideError) as unknown:
        await files.get("yours", "file-x")
    assert refused.value.code == unknown.value.code == "file_not_found"
    with pytest.raises(LowtideError):
        await files.delete("yours", file_id)
    assert (await files.page("yours")).files == []
    assert (await files.get("mine", file_id)).id == file_id


async def test_an_announced_file_takes_bytes_once(files: FileService) -> None:
    file = await files.announce("p", filename="x", purpose="batch-api")
    assert file.dialect == "together"
    with pytest.raises(LowtideError) as early:
        await files.get_ready("p", file.id)
    assert early.value.code == "file_not_ready"
    contents = []
    for data in (b"first\n", b"second\n"):
        async with files.receive("p", file.id, 0) as intake:
            await intake.write(data)
        contents.append(intake.content)
    await files.fill("p", file.id, contents[0])
    with pytest.raises(LowtideError) as late:
        await files.fill("p", file.id, contents[1])
    assert late.value.code == "upload_invalid"
    kept = await files.get_ready("p", file.id)
    assert b"".join([block async for block in files.stream(kept)]) == b"first\n"
    assert b"".join([block async for block in files.stream(kept, 1, 3)]) == b"irs"


async def test_an_abandoned_intake_leaves_no_blob(files: FileService, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        async with files.receive("p", "file-1", 0) as intake:
            await intake.write(b"x" * limits.STREAM_BLOCK_BYTES * 2)
            raise RuntimeError("the client left")
    assert stored(tmp_path / "blobs") == []


async def test_a_page_knows_whether_another_follows(
    files: FileService, clock: SkippingClock
) -> None:
    made = []
    for _ in range(4):
        made.append(await add(files))
        await clock.sleep(1)
    page = await files.page("p", limit=4, order="asc")
    assert ([file.id for file in page.files], page.has_more) == (made, False)
    page = await files.page("p", limit=3, order="asc")
    assert ([file.id for file in page.files], page.has_more) == (made[:3], True)
    page = await files.page("p", limit=3, order="asc", after=made[2])
    assert ([file.id for file in page.files], page.has_more) == (made[3:], False)
    for limit in (0, limits.PAGE_SIZE_MAX_FILES + 1):
        with pytest.raises(LowtideError):
            await files.page("p", limit=limit)


async def test_a_large_page_is_read_in_steps_between_which_others_get_their_turn(
    files: FileService, clock: SkippingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROWS_AT_ONCE", 2)
    made = []
    for _ in range(7):
        made.append(await add(files))
        await clock.sleep(1)
    asked: list[int] = []
    read = files._files.page

    async def page(*args: Any, limit: int, **rest: Any) -> list[File]:
        asked.append(limit)
        return await read(*args, limit=limit, **rest)

    monkeypatch.setattr(files._files, "page", page)
    for limit, steps in ((7, [2, 2, 2, 2]), (6, [2, 2, 2, 1]), (3, [2, 2]), (2, [2, 1])):
        asked.clear()
        found = await files.page("p", limit=limit, order="asc")
        assert ([file.id for file in found.files], found.has_more) == (made[:limit], limit < 7)
        assert asked == steps


async def test_files_expire_after_thirty_days(files: FileService, clock: SkippingClock) -> None:
    file_id = await add(files)
    await clock.sleep(limits.FILE_TTL_S - 1)
    assert (await files.get("p", file_id)).expires_at is not None
    await clock.sleep(1)
    with pytest.raises(LowtideError):
        await files.get("p", file_id)


@pytest.mark.parametrize("purpose", ["batch", "batch-api"])
def test_our_two_purposes_are_taken(purpose: str) -> None:
    assert checked_purpose(purpose) == purpose


@pytest.mark.parametrize("purpose", [None, "", "fine-tune", "batch_output", "BATCH"])
def test_other_purposes_are_refused_with_ours(purpose: str | None) -> None:
    with pytest.raises(LowtideError) as refused:
        checked_purpose(purpose)
    assert refused.value.param == "purpose"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("/home/me/x.jsonl", "x.jsonl"),
        ("C:\\data\\x.jsonl", "x.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("naïve 输入.jsonl", "naïve 输入.jsonl"),
        ("a\r\nb\x00c", "abc"),
        ("x" * 300, "x" * limits.FILENAME_CHARS_MAX),
        ("dir/", "upload"),
        ("", "upload"),
        (None, "upload"),
    ],
)
def test_a_name_is_the_last_step_of_a_path_without_controls(sent: str | None, kept: str) -> None:
    assert checked_filename(sent) == kept


def test_an_expiry_is_an_hour_to_thirty_days_from_creation() -> None:
    assert checked_expiry(None, None) is None
    assert checked_expiry("created_at", "3600") == 3600
    assert checked_expiry("created_at", "2592000") == 2592000
    for anchor, seconds in [
        ("last_active_at", "3600"),
        (None, "3600"),
        ("created_at", "3599"),
        ("created_at", "2592001"),
        ("created_at", None),
        ("created_at", "-3600"),
        ("created_at", "1e5"),
    ]:
        with pytest.raises(LowtideError):
            checked_expiry(anchor, seconds)


def test_a_checksum_is_sixty_four_hex_digits_or_none() -> None:
    assert checked_checksum(None) == checked_checksum(" ") == ""
    assert checked_checksum("AB" * 32) == "ab" * 32
    for wrong in ("ab", "zz" * 32, "ab" * 33):
        with pytest.raises(LowtideError):
            checked_checksum(wrong)
