"""The queue of requests that an engine has not admitted, in the order of its policy.

Preempted requests come back to it: to the front when first come is first served, and to their
place by (priority, arrival) under priorities. A request that leaves in another way (an abort) is
only marked, and passed over when it comes up.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator

from lowtide.engine_sim.state.requests import SimRequest, State

LPM_MAX = 128
"""SGLang orders by longest cached prefix only while at most so many wait."""


class WaitingQueue:
    """The waiting requests. `head` is the next one; `len` counts those that really wait."""

    def __init__(self, *, by_priority: bool) -> None:
        self._by_priority = by_priority
        self._line: deque[SimRequest] = deque()
        self._heap: list[tuple[int, int, SimRequest]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, request: SimRequest) -> None:
        request.state = State.WAITING
        self._count += 1
        if self._by_priority:
            heapq.heappush(self._heap, (request.priority, request.number, request))
        else:
            self._line.append(request)

    def put_back(self, request: SimRequest) -> None:
        """Puts a preempted request back: first of all, or by its priority."""
        if self._by_priority:
            self.add(request)
            return
        request.state = State.WAITING
        self._count += 1
        self._line.appendleft(request)

    def head(self) -> SimRequest | None:
        """The next one; it stays."""
        if not self._count:
            return None
        if self._by_priority:
            while self._heap[0][2].state is not State.WAITING:
                heapq.heappop(self._heap)
            return self._heap[0][2]
        while self._line[0].state is not State.WAITING:
            self._line.popleft()
        return self._line[0]

    def leading(self, priority: int) -> Iterator[SimRequest]:
        """Those of at most this priority, in the order of priorities; they stay."""
        heap = self._heap.copy()
        while heap and heap[0][0] <= priority:
            request = heapq.heappop(heap)[2]
            if request.state is State.WAITING:
                yield request

    def remove_head(self) -> None:
        """Takes out what `head` gave; its state is the caller's to set."""
        self._count -= 1
        if self._by_priority:
            heapq.heappop(self._heap)
        else:
            self._line.popleft()

    def discard(self, request: SimRequest, state: State) -> None:
        """Marks one that waits as gone."""
        request.state = state
        self._count -= 1

    def order_by(self, prefix_blocks: Callable[[SimRequest], int]) -> None:
        """SGLang's longest prefix match, ties as they came."""
        if not self._by_priority and 1 < self._count <= LPM_MAX:
            waiting = (r for r in self._line if r.state is State.WAITING)
            self._line = deque(sorted(waiting, key=lambda r: -prefix_blocks(r)))
