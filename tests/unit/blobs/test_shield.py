"""Cancellation waits for what is under way, undoes its success, and is never swallowed."""

import asyncio

import pytest

from lowtide.blobs.shield import shield_to_end


async def until_blocked(task: "asyncio.Task[object]") -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()


async def test_the_result_and_the_error_of_the_work_come_through() -> None:
    async def fails() -> None:
        raise OSError("disk")

    assert await shield_to_end(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(OSError, match="disk"):
        await shield_to_end(fails())


async def test_repeated_cancels_wait_for_the_work_and_undo_its_result() -> None:
    gate, undone = asyncio.Event(), []

    async def work() -> str:
        await gate.wait()
        return "published"

    async def undo(result: str) -> None:
        undone.append(result)

    task = asyncio.create_task(shield_to_end(work(), undo))
    await until_blocked(task)
    task.cancel()
    await until_blocked(task)
    task.cancel()
    await until_blocked(task)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == ["published"]


async def test_a_cancel_outweighs_a_failure_and_there_is_nothing_to_undo() -> None:
    gate, undone = asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        raise OSError("disk")

    async def undo(result: None) -> None:
        undone.append(result)

    task = asyncio.create_task(shield_to_end(work(), undo))
    await until_blocked(task)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == []
