"""Who may act for something that exists once in a fleet: one worker, as with a replica.

The ownership of replicas (loops/replicas/ownership.py, ports/ownership.py) serves here, too: a seat
is owned as a replica is, by a member of its own, so that seats count nothing in the division of
replicas. Invariant: a worker that has lost its seat has stopped believing in it before another one
can take it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from lowtide import limits
from lowtide.loops.replicas.ownership import OwnershipLoop
from lowtide.ports.clock import Clock


class Seat:
    """The right to act for one thing. No process has it before `own_until`."""

    models: frozenset[str] = frozenset()

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.owned_until_s = float("-inf")
        self.calls = 0
        """Acts under way; a seat that is to go to another worker waits for their end."""
        self._clock = clock

    def own_until(self, until_s: float) -> None:
        """Sets the monotonic second until which this process may act."""
        self.owned_until_s = until_s

    @property
    def is_ours(self) -> bool:
        """Whether this process may act now."""
        return self._clock.monotonic() < self.owned_until_s

    @contextmanager
    def taken(self) -> Iterator[None]:
        """While something is done."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1


class SeatsLoop:
    """The ownership of seats, from the first one on: most installations have none, and write
    nothing down.
    """

    name = "seats"

    def __init__(self, ownership: OwnershipLoop, has_some: Callable[[], bool]) -> None:
        self._ownership = ownership
        self._has_some = has_some
        self._has_begun = False

    async def tick(self, now: datetime) -> datetime | None:
        """See `OwnershipLoop.tick`."""
        self._has_begun = self._has_begun or self._has_some()
        if not self._has_begun:
            return now + timedelta(seconds=limits.SCALE_S)
        return await self._ownership.tick(now)
