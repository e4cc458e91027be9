"""service/fair_places.py: places where organizations work one after another."""

import asyncio
from collections.abc import Callable

from lowtide.service.fair_places import FairPlaces


class Env:
    """Units of work that end when told to."""

    def __init__(self, places: int) -> None:
        self.turns = FairPlaces(places)
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
    env = Env(4)
    await env.come(*["a"] * 60)
    assert env.begun == ["a", "a"]
    await env.come("b")
    assert env.begun == ["a", "a", "b"]


async def test_a_newcomer_waits_for_one_unit_where_all_places_are_taken() -> None:
    env = Env(2)
    await env.come(*["a"] * 30, *["b"] * 30)
    await env.come("c")
    assert sorted(env.begun) == ["a", "b"]
    for _ in range(3):
        await env.end_one()
    assert env.begun.index("c") <= 4


async def test_organizations_take_turns_however_many_units_each_has() -> None:
    env = Env(1)
    await env.come("a", *["a"] * 20, *["b"] * 2, "c")
    for _ in range(7):
        await env.end_one()
    assert env.begun == ["a", "b", "c", "a", "b", "a", "a", "a"]


async def test_who_gives_up_waiting_or_is_cancelled_at_work_leaves_no_trace() -> None:
    env = Env(1)
    working, waiting, also = await env.come("a", "a", "b")
    waiting.cancel()
    await env.settle()
    working.cancel()
    await env.settle()
    assert env.begun == ["a", "b"]
    also.cancel()
    await asyncio.gather(working, waiting, also, return_exceptions=True)
    await env.come("c")
    assert env.begun == ["a", "b", "c"]
    assert env.turns._waiting == {}
    assert env.turns._busy == {"c": 1}


async def test_one_cancelled_at_the_moment_of_its_turn_passes_it_on() -> None:
    for steps in range(6):
        env = Env(1)
        tasks = await env.come("a", "b", "c")
        env._ends[0]()
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[1].cancel()
        await env.settle()
        assert "c" not in env.begun or env.begun[-1] == "c"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (env.turns._busy, env.turns._waiting, env.turns._free) == ({}, {}, 1)
