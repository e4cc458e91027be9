"""One call at a time, the others in a queue: an engine with one slot, as many people run it.

Used by `engines.py`. It goes on whatever becomes of its callers: it lives in no process of the
world. Who gave up while waiting is passed over; who gave up while being served, or died, is served
to the end, as an engine does that learns of it only when it writes.
"""

import asyncio
from collections import deque
from contextvars import Context

from testkit.sim.process import Process

_Place = tuple["asyncio.Future[None]", Process, float]


class SerialQueue:
    """The calls that wait for one engine, which serves one at a time."""

    def __init__(self) -> None:
        self._waiting: deque[_Place] = deque()
        self._busy = False

    async def turn(self, caller: Process, works_s: float) -> None:
        """Wait for the slot; it is taken for `works_s` from then."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, caller, works_s))
        if not self._busy:
            self._serve_next()
        await turn

    def _serve_next(self) -> None:
        self._busy = False
        while self._waiting:
            turn, caller, works_s = self._waiting.popleft()
            if turn.done() or not caller.alive:
                continue
            self._busy = True
            turn.set_result(None)
            loop = asyncio.get_running_loop()
            loop.call_later(works_s, self._serve_next, context=Context())
            return
