"""Places where organizations work one after another, in turns.

For work that is worth waiting for: completing uploads, dry runs. Guards: an organization has at
most half of the places; a place that becomes free goes to the organization that has waited the
longest since its last turn, so a new organization waits for at most one unit of another's work.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairPlaces:
    """`places` in all. Waiting costs a future; cancelling a wait gives up the turn."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._each = max(1, places // 2)
        self._busy: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # whose turn is next, first

    @asynccontextmanager
    async def of(self, owner: str) -> AsyncIterator[None]:
        """Waits for a place, and has it within the context."""
        await self._take(owner)
        try:
            yield
        finally:
            self._give_back(owner)

    async def _take(self, owner: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._call_next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(owner, turn)
            else:  # it was called at the same moment
                self._give_back(owner)
            raise

    def _give_back(self, owner: str) -> None:
        self._free += 1
        self._busy[owner] -= 1
        if not self._busy[owner]:
            del self._busy[owner]
        if owner in self._waiting:  # behind whoever came while it worked
            self._waiting[owner] = self._waiting.pop(owner)
        self._call_next()

    def _call_next(self) -> None:
        for owner in list(self._waiting):
            if not self._free:
                return
            turn = next((turn for turn in self._waiting[owner] if not turn.cancelled()), None)
            if turn is not None and self._busy.get(owner, 0) < self._each:
                self._forget(owner, turn)
                self._free -= 1
                self._busy[owner] = self._busy.get(owner, 0) + 1
                turn.set_result(None)

    def _forget(self, owner: str, turn: "asyncio.Future[None]") -> None:
        """Puts the owner behind all others that wait."""
        queue = self._waiting.pop(owner)
        queue.remove(turn)
        if queue:
            self._waiting[owner] = queue
