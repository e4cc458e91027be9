"""Calls that wait for a connection to an engine: whose turn it is when one comes free.

Asked by engines/http/pool.py. Of the organizations that wait, the one that holds the fewest
connections is next, and of those alike, the one whose last turn is longest ago; within one it goes
by arrival. So calls that take long do not keep others' waiting behind all of them, and quick ones
make up for it. What each holds is counted only where more than one waits.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide.engines.http.connection import Connection

Waiter = asyncio.Future["Connection | None"]
"""Answered with a connection, or with None: the right to open one."""


class Waiters:
    """The waiting calls by organization; `joining` are those that were called and
    have not begun yet.
    """

    def __init__(self) -> None:
        self._of: dict[str, deque[Waiter]] = {}  # whose last turn is longest ago, first
        self.joining: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def add(self, owner: str) -> Waiter:
        """Adds a waiter, until it is called or left."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._of.setdefault(owner, deque()).append(waiter)
        return waiter

    def leave(self, owner: str, waiter: Waiter) -> None:
        """Removes a waiter that gives up; does nothing if it was called."""
        if waiter in self._of.get(owner, ()):
            self._of[owner].remove(waiter)
            if not self._of[owner]:
                del self._of[owner]

    def call_next(
        self, connection: "Connection | None", held: Callable[[], Mapping[str, int]]
    ) -> bool:
        """Gives the connection, or None for a slot, to the next waiter. Returns
        whether there was one.

        `held`: connections in use, by organization.
        """
        while self._of:
            owner = self._next(held)
            queue = self._of.pop(owner)
            waiter = queue.popleft()
            if queue:
                self._of[owner] = queue  # behind the others
            if not waiter.done():
                self.joining[owner] += 1
                waiter.set_result(connection)
                return True
        return False

    def joined(self, owner: str) -> None:
        """Records that a called waiter has begun its call, or will not."""
        self.joining[owner] -= 1
        if not self.joining[owner]:
            del self.joining[owner]

    def _next(self, held: Callable[[], Mapping[str, int]]) -> str:
        if len(self._of) == 1:
            return next(iter(self._of))
        counts = held()
        return min(self._of, key=lambda owner: counts.get(owner, 0) + self.joining[owner])
