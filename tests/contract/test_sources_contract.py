"""What every source of engines guarantees (ports/sources.py)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from source_places import PLACES, Entry, Place, shown

from lowtide import limits
from lowtide.ports.sources import Listing, SourceError
from testkit.patience import PATIENCE_S

A, B, C = Entry("a", "10.0.0.1"), Entry("b", "10.0.0.2"), Entry("c", "10.0.0.3")
READS_MAX = 8
"""A source may see a change at its second look, and read it at the third."""


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with PLACES[request.param](tmp_path) as opened:
        yield opened
        await opened.source.aclose()


async def read(place: Place) -> Listing:
    async with asyncio.timeout(PATIENCE_S):
        return await place.source.read()


async def reported(place: Place, wanted: Sequence[Entry]) -> Listing:
    """Looks until the place tells these engines, a few times at most."""
    for _ in range(READS_MAX):
        listing = await read(place)
        if shown(listing.engines) == sorted(map(place.engine, wanted)):
            return listing
    raise AssertionError(f"{shown(listing.engines)} and not {wanted}")


async def broken(place: Place) -> SourceError:
    """Looks until the place is found to be broken."""
    for _ in range(READS_MAX):
        try:
            await read(place)
        except SourceError as error:
            return error
    raise AssertionError("a place that says nothing is taken for one without engines")


async def test_the_first_look_tells_the_whole_list_at_once(place: Place) -> None:
    await place.put([A, B, C])
    assert shown((await read(place)).engines) == sorted(map(place.engine, [A, B, C]))


async def test_each_list_is_whole_after_engines_have_come_and_gone(place: Place) -> None:
    await place.put([A, B])
    await reported(place, [A, B])
    await place.put([B, C])
    await reported(place, [B, C])
    await place.put([A, B, C])
    await reported(place, [A, B, C])


async def test_it_is_asked_again_in_time_for_news(place: Place) -> None:
    await place.put([A])
    assert 0 <= (await reported(place, [A])).again_s <= limits.SOURCE_NEWS_S


async def test_an_engine_that_moves_keeps_its_name_where_it_has_one(place: Place) -> None:
    await place.put([A, B])
    await reported(place, [A, B])
    moved = A._replace(host="10.0.0.9")
    await place.put([moved, B])
    await reported(place, [moved, B])
    assert (place.engine(moved)[0] == place.engine(A)[0]) == place.has_names


async def test_a_place_that_says_itself_that_there_is_no_engine_gives_none(place: Place) -> None:
    await place.put([A])
    await reported(place, [A])
    await place.put([])
    await reported(place, [])


async def test_a_place_that_is_broken_is_an_error_and_no_empty_list(place: Place) -> None:
    await place.put([A])
    await reported(place, [A])
    await place.break_down()
    assert str(await broken(place))
    assert str(await broken(place)), "the second time, too"
    await place.put([A, C])
    await reported(place, [A, C])


async def test_a_place_that_is_broken_at_the_start_is_an_error(place: Place) -> None:
    await place.break_down()
    assert str(await broken(place))
    await place.put([B])
    await reported(place, [B])


async def test_a_look_that_is_cancelled_leaves_the_source_usable(place: Place) -> None:
    await place.put([A])
    await reported(place, [A])
    for _ in range(3):
        cut = asyncio.create_task(place.source.read())
        await asyncio.sleep(0)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
    await place.put([A, B])
    await reported(place, [A, B])
