"""Whoever puts a reply together waits while its owner is above its share."""

import asyncio

from lowtide.core.scheduling.reply_budget import ReplyBudget, ReplyHold
from lowtide.limits import REPLY_UNCOUNTED_BYTES
from lowtide.service.reply_memory import ReplyMemory

TOTAL = 10 * REPLY_UNCOUNTED_BYTES


async def test_short_replies_count_nothing_and_long_ones_whole() -> None:
    budget = ReplyBudget(TOTAL)
    with ReplyMemory(budget, "a") as memory:
        await memory.add(REPLY_UNCOUNTED_BYTES)
        assert budget.held == 0
        await memory.add(1)
        assert budget.held == REPLY_UNCOUNTED_BYTES + 1
    assert budget.held == 0


async def test_a_reader_waits_until_others_have_given_theirs_away() -> None:
    budget = ReplyBudget(TOTAL)
    others = [ReplyHold(budget, lambda _: None) for _ in range(2)]
    for hold in others:
        hold.owner = "other"
        hold.reach(TOTAL // 3)
    assert [hold.is_waiting for hold in others] == [False, False], "the turn is theirs"
    with ReplyMemory(budget, "a") as memory:
        reading = asyncio.create_task(memory.add(TOTAL // 2))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not reading.done()
        others[1].end()
        await reading
    assert budget.held == TOTAL // 3


async def test_what_is_there_already_counts_without_waiting() -> None:
    budget = ReplyBudget(TOTAL)
    with ReplyMemory(budget, "a") as memory:
        memory.keep(2 * TOTAL)
        assert budget.held == 2 * TOTAL
    assert budget.held == 0
