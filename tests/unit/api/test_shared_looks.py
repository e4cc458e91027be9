"""Open pages that show the same share one look, which fails for all and is left by one."""

import asyncio

import pytest

from lowtide import limits
from lowtide.api.console.page_looks import Look, ShownPart
from lowtide.api.console.shared_looks import LookKey, SharedLooks

KEY = LookKey("project", frozenset({"read"}), "http://host", (("of", "/"),))
PARTS = (ShownPart("batches", b"digest", lambda: "html"),)


class Page:
    """Counts how often it is looked at; a look lasts until it is let go."""

    def __init__(self) -> None:
        self.looks = 0
        self.given: list[tuple[Look, bool]] = []
        self.may_end = asyncio.Event()
        self.failure: Exception | None = None

    async def look(self, before: Look, is_whole: bool) -> Look:
        self.looks += 1
        self.given.append((before, is_whole))
        await self.may_end.wait()
        if self.failure is not None:
            raise self.failure
        return PARTS


async def test_twenty_open_pages_look_once() -> None:
    shared, page = SharedLooks(), Page()
    readers = [asyncio.ensure_future(shared.get(KEY, page.look)) for _ in range(20)]
    await asyncio.sleep(0)
    page.may_end.set()
    assert await asyncio.gather(*readers) == [PARTS] * 20
    assert page.looks == 1


async def test_a_look_that_is_too_old_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, page = SharedLooks(), Page()
    page.may_end.set()
    await shared.get(KEY, page.look)
    monkeypatch.setattr(limits, "CONSOLE_LOOK_SHARED_S", 0.0)
    monkeypatch.setattr(limits, "CONSOLE_LOOKS_PER_S", 1e9)
    await shared.get(KEY, page.look)
    assert page.looks == 2
    assert len(shared._looks) == 1


async def test_many_different_pages_together_look_no_more_often_than_few() -> None:
    shared, page = SharedLooks(), Page()
    page.may_end.set()
    assert shared._age_max_s() == limits.CONSOLE_LOOK_SHARED_S
    for number in range(20):
        await shared.get(KEY._replace(project_id=f"p{number}"), page.look)
    assert 20 / shared._age_max_s() == pytest.approx(limits.CONSOLE_LOOKS_PER_S)


async def test_a_page_that_was_just_loaded_gets_a_look_that_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, page = SharedLooks(), Page()
    page.may_end.set()
    await shared.get(KEY, page.look)
    monkeypatch.setattr(limits, "CONSOLE_LOOKS_PER_S", 1e-9)
    monkeypatch.setattr(limits, "CONSOLE_LOOK_SHARED_S", 0.0)
    await shared.get(KEY, page.look)
    assert page.looks == 1
    await shared.get(KEY, page.look, is_first=True)
    assert page.looks == 2
    shared.forget()
    await shared.get(KEY, page.look)
    assert page.looks == 3


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(project_id="another"),
        KEY._replace(scopes=frozenset({"read", "submit"})),
        KEY._replace(address="https://host"),
        KEY._replace(query=(("of", "/"), ("q", "night"))),
    ],
)
async def test_nothing_is_shared_between_projects_rights_addresses_or_pages(other: LookKey) -> None:
    shared, page = SharedLooks(), Page()
    page.may_end.set()
    await shared.get(KEY, page.look)
    await shared.get(other, page.look)
    assert page.looks == 2


async def test_a_reader_that_leaves_takes_the_look_from_nobody() -> None:
    shared, page = SharedLooks(), Page()
    first, second = (asyncio.ensure_future(shared.get(KEY, page.look)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    page.may_end.set()
    assert await second == PARTS
    assert first.cancelled()


async def test_a_failure_is_told_to_all_who_wait() -> None:
    shared, page = SharedLooks(), Page()
    page.failure = ValueError("gone")
    readers = [asyncio.ensure_future(shared.get(KEY, page.look)) for _ in range(2)]
    await asyncio.sleep(0)
    page.may_end.set()
    reported = await asyncio.gather(*readers, return_exceptions=True)
    assert reported == [page.failure] * 2


async def test_a_look_begins_at_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, page = SharedLooks(), Page()
    page.may_end.set()
    monkeypatch.setattr(limits, "CONSOLE_LOOK_SHARED_S", 0.0)
    monkeypatch.setattr(limits, "CONSOLE_LOOKS_PER_S", 1e9)
    for is_first in (False, False, True):
        await shared.get(KEY, page.look, is_first=is_first)
    page.failure = ValueError("gone")
    with pytest.raises(ValueError, match="gone"):
        await shared.get(KEY, page.look)
    page.failure = None
    await shared.get(KEY, page.look)
    assert page.given == [((), True), (PARTS, False), (PARTS, True), (PARTS, False), ((), False)]


async def test_a_page_that_was_just_loaded_takes_no_look_that_has_old_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, page = SharedLooks(), Page()
    page.may_end.set()
    await shared.get(KEY, page.look)
    monkeypatch.setattr(limits, "CONSOLE_LOOK_SHARED_S", 0.0)
    monkeypatch.setattr(limits, "CONSOLE_LOOKS_PER_S", 1e9)
    await shared.get(KEY, page.look)  # parts of it are as old as the first look
    monkeypatch.undo()
    await shared.get(KEY, page.look, is_first=True)
    assert page.looks == 2, "all of it is new enough"
    known = shared._looks[KEY]
    shared._looks[KEY] = known._replace(whole_at=known.at - limits.CONSOLE_LOOK_SHARED_S)
    await shared.get(KEY, page.look, is_first=True)
    assert [is_whole for _, is_whole in page.given] == [True, False, True]
