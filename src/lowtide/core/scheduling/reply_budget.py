"""Bytes of engines' replies that a process has in memory at one time, shared by organizations.

Called by whatever reads replies (engines/http/connection.py, service/reply_memory.py). Pure. A
reply longer than REPLY_UNCOUNTED_BYTES counts. Its reading pauses while its owner holds more than
is left free, so an owner alone gets half, and beside k greedy ones there is 1/(k + 1) for the next.
Invariants: some reply always goes on to its end, the owners' turns one after another, so nothing
waits for ever; and what is held is never more than the total, one reply, and a block of each.
"""

from collections import deque
from collections.abc import Callable

from lowtide import limits


class ReplyHold:
    """One reply, or one after another of a reader. `pause` is told True when the reading is to
    wait, and False when it may go on. `owner` may change between replies."""

    __slots__ = ("_budget", "bytes", "is_waiting", "owner", "pause")

    def __init__(self, budget: "ReplyBudget", pause: Callable[[bool], None]) -> None:
        self._budget = budget
        self.pause = pause
        self.owner = ""
        self.bytes = 0
        self.is_waiting = False

    def reach(self, size: int) -> None:
        """Records that `size` bytes of the reply have come in all."""
        self._budget.grow(self, size - self.bytes)

    def keep(self, size: int) -> None:
        """Counts the bytes of a reply that is whole already; it does not wait for room."""
        self._budget.count(self, size - self.bytes)

    def end(self) -> None:
        """Gives back its bytes: the reply was read and passed on, or never will be."""
        if self.bytes:
            self._budget.end(self)


class ReplyBudget:
    """The replies in memory. `backlog`: bytes of replies that were read
    and cannot be passed on yet.
    """

    def __init__(
        self,
        total: int = limits.REPLIES_BYTES_MAX,
        backlog: Callable[[], int] = lambda: 0,
    ) -> None:
        self.total = total
        self.held = 0
        self._backlog = backlog
        self._by_owner: dict[str, int] = {}
        self._waiting: dict[str, deque[ReplyHold]] = {}
        self._going_on: ReplyHold | None = None  # to its end, whatever is free
        self._turns = 0
        self._last_turn: dict[str, int] = {}  # of owners that hold something

    def grow(self, hold: ReplyHold, amount: int) -> None:
        """Records `amount` more bytes of the reply; pauses it when there is no room."""
        self.count(hold, amount)
        if hold.is_waiting or hold is self._going_on or self._has_room(hold.owner):
            return
        hold.is_waiting = True
        hold.pause(True)
        self._waiting.setdefault(hold.owner, deque()).append(hold)
        self.resume_waiting()

    def count(self, hold: ReplyHold, amount: int) -> None:
        """Counts `amount` more bytes of the reply as held in memory."""
        hold.bytes += amount
        self.held += amount
        self._by_owner[hold.owner] = self._by_owner.get(hold.owner, 0) + amount

    def end(self, hold: ReplyHold) -> None:
        """Gives back all bytes of the reply."""
        self.held -= hold.bytes
        left = self._by_owner.get(hold.owner, 0) - hold.bytes
        hold.bytes = 0
        if left:
            self._by_owner[hold.owner] = left
        else:
            self._by_owner.pop(hold.owner, None)
            self._last_turn.pop(hold.owner, None)
        if hold is self._going_on:
            self._going_on = None
        if hold.is_waiting:
            self._resume(hold)
        self.resume_waiting()

    def resume_waiting(self) -> None:
        """Resumes the replies that have room now."""
        for owner in list(self._waiting):
            while owner in self._waiting and self._has_room(owner):
                self._resume(self._waiting[owner][0])
        if self._waiting and self._going_on is None and self._backlog() < self.total // 2:
            owner = min(self._waiting, key=lambda each: self._last_turn.get(each, 0))
            self._turns += 1
            self._last_turn[owner] = self._turns
            self._going_on = self._waiting[owner][0]
            self._resume(self._going_on)

    def _has_room(self, owner: str) -> bool:
        return self._by_owner.get(owner, 0) <= self.total - self.held - self._backlog()

    def _resume(self, hold: ReplyHold) -> None:
        queue = self._waiting[hold.owner]
        queue.remove(hold)
        if not queue:
            del self._waiting[hold.owner]
        hold.is_waiting = False
        hold.pause(False)
