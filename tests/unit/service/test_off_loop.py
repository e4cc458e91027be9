"""Large bodies are worked on beside the loop, organizations in turns."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from lowtide.limits import LARGE_BODY_BYTES
from lowtide.service.off_loop import off_loop

LARGE = LARGE_BODY_BYTES + 1


async def test_small_bodies_are_worked_on_at_once_and_large_ones_in_a_thread() -> None:
    here = threading.get_ident()
    assert await off_loop("a", LARGE_BODY_BYTES, threading.get_ident) == here
    assert await off_loop("a", LARGE, threading.get_ident) != here


@pytest.mark.parametrize("size", [1, LARGE])
async def test_what_the_work_raises_is_raised(size: int) -> None:
    with pytest.raises(ZeroDivisionError):
        await off_loop("a", size, lambda: 1 // 0)


async def test_the_loop_goes_on_meanwhile() -> None:
    may_end = threading.Event()
    work = asyncio.create_task(off_loop("a", LARGE, may_end.wait))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not work.done()
    may_end.set()
    assert await work


async def test_another_organization_waits_for_one_piece_of_work_however_many_wait() -> None:
    order: list[str] = []
    gate = threading.Event()

    def work(owner: str, before: Callable[[], object] = lambda: None) -> None:
        before()
        order.append(owner)

    greedy = [asyncio.create_task(off_loop("a", LARGE, work, "a", gate.wait)) for _ in range(8)]
    await asyncio.sleep(0)
    other = asyncio.create_task(off_loop("b", LARGE, work, "b"))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*greedy, other)
    assert order.index("b") == 1
