"""service/fair_places.py: places where organizations work one after another."""

import asyncio
from collections.abc import Callable

from lowtide.service.fair_places import Turns


class Yard:
    """Units of work that end when told to."""

    def __init__(self, places: int) -> None:
        self.turns = Turns(places)
        self.begun: list[str] = []
        self._ends: list[Callable[[], None]] = []

    async def come(self, *owners: str) -> list["asyncio.Task[None]"]:
        tasks = [asyncio.create_task(self._work(owner)) for owner in owners]
        await self.settle()
        return tasks

    async def end_one(self) -> None:
        self._ends.pop(0)()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    async def _work(self, owner: str) -> None:
        async with self.turns.of(owner):
            self.begun.append(owner)
            over = asyncio.Event()
            self._ends.append(over.set)
            await over.wait()


async def test_one_organization_leaves_half_of_the_places_free() -> None:
    yard = Yard(4)
    await yard.come(*["a"] * 60)
    assert yard.begun == ["a", "a"]
    await yard.come("b")
    assert yard.begun == ["a", "a", "b"]


async def test_a_newcomer_waits_for_one_unit_where_all_places_are_taken() -> None:
    yard = Yard(2)
    await yard.come(*["a"] * 30, *["b"] * 30)
    await yard.come("c")
    assert sorted(yard.begun) == ["a", "b"]
    for _ in range(3):
        await yard.end_one()
    assert yard.begun.index("c") <= 4


async def test_organizations_take_turns_however_many_units_each_has() -> None:
    yard = Yard(1)
    await yard.come("a", *["a"] * 20, *["b"] * 2, "c")
    for _ in range(7):
        await yard.end_one()
    assert yard.begun == ["a", "b", "c", "a", "b", "a", "a", "a"]


async def test_who_gives_up_waiting_or_is_cancelled_at_work_leaves_no_trace() -> None:
    yard = Yard(1)
    working, waiting, also = await yard.come("a", "a", "b")
    waiting.cancel()
    await yard.settle()
    working.cancel()
    await yard.settle()
    assert yard.begun == ["a", "b"]
    also.cancel()
    await asyncio.gather(working, waiting, also, return_exceptions=True)
    await yard.come("c")
    assert yard.begun == ["a", "b", "c"]
    assert yard.turns._waiting == {}
    assert yard.turns._busy == {"c": 1}


async def test_one_cancelled_at_the_moment_of_its_turn_passes_it_on() -> None:
    for steps in range(6):
        yard = Yard(1)
        tasks = await yard.come("a", "b", "c")
        yard._ends[0]()
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[1].cancel()
        await yard.settle()
        assert "c" not in yard.begun or yard.begun[-1] == "c"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (yard.turns._busy, yard.turns._waiting, yard.turns._free) == ({}, {}, 1)
