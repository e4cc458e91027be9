"""Uploads with one idempotency key in one process: one after another, and for a bounded time."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.service.files.upload_keys import UploadKeys


class Keys:
    """A store of keys: those in `made` made something."""

    def __init__(self) -> None:
        self.made: set[str] = set()

    async def has_made(self, organization_id: str, key: str, now: datetime) -> bool:
        assert (organization_id, now.tzinfo) == ("org", UTC)
        return key in self.made


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def uploads(keys: Any) -> UploadKeys:
    return UploadKeys(keys, Clock())  # type: ignore[arg-type]


async def let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_second_one_waits_for_the_first_and_learns_that_it_made_a_file(
    keys: Keys, uploads: UploadKeys
) -> None:
    reported: list[bool] = []

    async def second() -> None:
        async with uploads.turn("org", "k") as is_repetition:
            reported.append(is_repetition)

    async with uploads.turn("org", "k") as is_repetition:
        assert not is_repetition
        waiting = asyncio.create_task(second())
        await let_others_run()
        assert reported == [], "the first is still under way"
        async with uploads.turn("org", "other"), uploads.turn("org", None) as without:
            assert not without
        keys.made.add("k")
    await waiting
    assert reported == [True]
    assert uploads._under_way == {}, "nothing is kept of a key that nobody uses"


async def test_where_the_first_made_none_the_second_is_the_first(uploads: UploadKeys) -> None:
    with pytest.raises(ValueError):
        async with uploads.turn("org", "k"):
            raise ValueError("its client went away")
    async with uploads.turn("org", "k") as is_repetition:
        assert not is_repetition


async def test_it_waits_for_a_bounded_time_and_says_when_to_send_again(
    uploads: UploadKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPLOAD_TURN_S", 0.0)
    async with uploads.turn("org", "k"):
        with pytest.raises(LowtideError) as refused:
            async with uploads.turn("org", "k"):
                raise AssertionError("it had its turn")
        assert refused.value.code == "upload_busy"
        assert refused.value.retry_after_s == limits.UPLOAD_BUSY_RETRY_AFTER_S
    assert uploads._under_way == {}
