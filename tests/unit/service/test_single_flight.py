"""Callers that come at one instant share a look-up."""

import asyncio

import pytest

from lowtide.service.single_flight import SingleFlight


class Source:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def look_up(self) -> int:
        self.asked += 1
        return await self.answer


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_callers_at_one_instant_share_a_look_up_and_later_ones_begin_another() -> None:
    flights, source = SingleFlight[int](), Source()
    callers = [asyncio.create_task(flights.get("a", source.look_up)) for _ in range(50)]
    await settle()
    assert source.asked == 1
    source.answer.set_result(7)
    assert await asyncio.gather(*callers) == [7] * 50
    assert await flights.get("a", source.look_up) == 7
    assert source.asked == 2


async def test_keys_do_not_share_and_a_forgotten_key_is_looked_up_afresh() -> None:
    flights, source = SingleFlight[int](), Source()
    callers = [asyncio.create_task(flights.get(key, source.look_up)) for key in ("a", "b")]
    await settle()
    assert source.asked == 2
    flights.forget("a")
    callers += [asyncio.create_task(flights.get(key, source.look_up)) for key in ("a", "b")]
    await settle()
    assert source.asked == 3
    flights.forget()
    callers.append(asyncio.create_task(flights.get("b", source.look_up)))
    await settle()
    assert source.asked == 4
    source.answer.set_result(1)
    assert await asyncio.gather(*callers) == [1] * 5


async def test_a_caller_that_leaves_takes_the_look_up_from_nobody() -> None:
    flights, source = SingleFlight[int](), Source()
    first, second = (asyncio.create_task(flights.get("a", source.look_up)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    source.answer.set_result(7)
    assert await second == 7
    assert first.cancelled()


async def test_all_callers_hear_of_a_failure_and_nobody_of_one_that_no_caller_waits_for() -> None:
    flights, source = SingleFlight[int](), Source()
    callers = [asyncio.create_task(flights.get("a", source.look_up)) for _ in range(2)]
    left = asyncio.create_task(flights.get("b", source.look_up))
    await settle()
    left.cancel()
    source.answer.set_exception(OSError("away"))
    for caller in callers:
        with pytest.raises(OSError, match="away"):
            await caller
