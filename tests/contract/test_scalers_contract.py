"""What every scaler guarantees (ports/scalers.py)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scaler_places import PLACES, Place

from lowtide.ports.scalers import ScalerError


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with PLACES[request.param](tmp_path) as opened:
        yield opened


async def test_what_was_asked_for_is_told_by_the_next_look_and_runs(place: Place) -> None:
    scaler = place.scaler()
    assert (await scaler.read()).target == 0
    for number in (2, 3, 1, 0, 1):
        await scaler.ask(number)
        assert (await scaler.read()).target == number
        await place.has(number)
    await scaler.aclose()


async def test_an_ask_that_comes_again_changes_nothing(place: Place) -> None:
    scaler = place.scaler()
    for _ in range(3):
        await scaler.ask(2)
    await place.has(2)
    assert (await scaler.read()).target == 2
    await scaler.aclose()


async def test_what_runs_outlives_the_adapter_and_is_not_started_again_by_the_next(
    place: Place,
) -> None:
    first = place.scaler()
    await first.ask(1)
    await place.has(1)
    await first.aclose()
    second = place.scaler()
    assert (await second.read()).target == 1
    await second.ask(1)
    await place.has(1)
    await second.ask(0)
    await place.has(0)
    await second.aclose()


async def test_a_look_and_a_check_change_nothing(place: Place) -> None:
    scaler = place.scaler()
    await scaler.check()
    await place.has(0)
    await scaler.ask(1)
    await scaler.check()
    await scaler.read()
    await place.has(1)
    await scaler.aclose()


async def test_a_place_that_is_broken_is_an_error_and_no_zero(place: Place) -> None:
    scaler = place.scaler()
    await scaler.ask(1)
    await place.has(1)
    await place.break_down()
    for act in (scaler.read(), scaler.ask(0), scaler.ask(2), scaler.check()):
        with pytest.raises(ScalerError) as error:
            await act
        assert str(error.value)
    await place.mend()
    assert (await scaler.read()).target == 1
    await place.has(1)
    await scaler.aclose()


async def test_a_call_that_is_cancelled_leaves_the_scaler_usable(place: Place) -> None:
    scaler = place.scaler()
    for act in (scaler.read, lambda: scaler.ask(1), scaler.read):
        cut = asyncio.create_task(act())
        await asyncio.sleep(0)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
    await scaler.ask(1)
    assert (await scaler.read()).target == 1
    await place.has(1)
    await scaler.aclose()
