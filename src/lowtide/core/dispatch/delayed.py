"""Requests that are tried again at an instant of their own, the earliest first.

Used by core/dispatch/dispatch.py, which looks at each `take` whether there are any: so this is a
list, whose truth costs nothing. Pure. Invariant: among requests of one instant the first one that
was delayed comes first.
"""

import heapq
import itertools
from collections.abc import Iterator

from lowtide.core.dispatch.request import ChunkRun, Request


class DelayedRequests(list[tuple[float, int, Request]]):
    """A heap of `(instant, number, request)`; instants are monotonic seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._order = itertools.count()

    def delay(self, request: Request, at_s: float) -> None:
        """Adds a request that is not there; one of an ending chunk is given up instead."""
        if request.run.is_ending:
            request.run.give_up(1)
            return
        heapq.heappush(self, (at_s, next(self._order), request))

    @property
    def requests(self) -> Iterator[Request]:
        """Yields all of them, in no order."""
        return (request for _, _, request in self)

    def take_due(self, now_s: float) -> Iterator[Request]:
        """Yields and removes those whose instant has come."""
        while self and self[0][0] <= now_s:
            yield heapq.heappop(self)[2]

    def drop(self, run: ChunkRun) -> int:
        """Removes those of a chunk; returns how many they were."""
        left = [entry for entry in self if entry[2].run is not run]
        dropped = len(self) - len(left)
        if dropped:
            self[:] = left
            heapq.heapify(self)
        return dropped
