"""The budget of replies for those who await them: live answers, and streams that are put together.

Called by service/live/live.py and loops/dispatch/watched.py. The budget itself is
core/scheduling/reply_budget.py.
"""

import asyncio
from typing import Self

from lowtide import limits
from lowtide.core.faults.outcome import Attempt, NoReply, Reply
from lowtide.core.scheduling.reply_budget import ReplyBudget, ReplyHold
from lowtide.ports.engine import ReplyStream

OVERSIZE = NoReply("oversize", f"the answer is larger than {limits.REPLY_BYTES_MAX} bytes")


class ReplyMemory:
    """A context for one reply, in which its bytes count."""

    def __init__(self, budget: ReplyBudget, owner: str) -> None:
        self._hold = ReplyHold(budget, self._pause)
        self._hold.owner = owner
        self.owner = owner
        self._size = 0
        self._may_go_on: asyncio.Event | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.end()

    def keep(self, size: int) -> None:
        """Counts a reply that is whole and has so many bytes."""
        if size > limits.REPLY_UNCOUNTED_BYTES:
            self._hold.keep(size)

    async def add(self, amount: int) -> None:
        """Counts bytes that have come; waits until more may."""
        self._size += amount
        if self._size > limits.REPLY_UNCOUNTED_BYTES:
            self._hold.reach(self._size)
        if self._may_go_on is not None:
            await self._may_go_on.wait()

    def _pause(self, wanted: bool) -> None:
        if wanted:
            self._may_go_on = asyncio.Event()
        elif self._may_go_on is not None:
            self._may_go_on.set()


async def whole_reply(reply: ReplyStream, memory: ReplyMemory) -> Attempt:
    """Reads a reply that is no stream of events to its end; `memory` counts what comes."""
    body = bytearray()
    while block := await reply.read():
        if isinstance(block, NoReply):
            return block
        body += block
        if len(body) > limits.REPLY_BYTES_MAX:
            return OVERSIZE
        await memory.add(len(block))
    return Reply(reply.status, bytes(body), reply.retry_after_s)
