"""Which batch gives the next chunk: urgency, then locality, then weighted fairness, then deadline.

Pure. `WeightedFairQueue` is fairness alone and orders the tenants of a claim in
store/statements/claims.py, where indexes hold each tenant's queue; `urgent` decides in
loops/scheduling/urgency.py which batches go before all turns. Costs are in work units: an estimated
input token is one, an output token `OUTPUT_COST`. Invariants: a tenant's virtual time never falls
but by a correction, and a turn takes O(log tenants).
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.batches.plan import ChunkSpec, ModelTotals
from lowtide.core.usage import Usage

OUTPUT_COST: Final = 4.0
"""Work units of one generated token: decoding at a usual batch size costs a GPU about four times
what prefilling a token does (scheduling.md 4.2; live prices say the same)."""

CACHED_COST: Final = 0.1
"""Work units of an input token that the engine had in its prefix cache."""

Capacity = Callable[[datetime], float]
"""Work units that the pool is expected to do from now until then."""


def work_of(usage: Usage) -> float:
    """Work units that answers took, by what the engine reported."""
    fresh = usage.input_tokens - usage.cached_tokens
    return fresh + CACHED_COST * usage.cached_tokens + OUTPUT_COST * usage.output_tokens


def planned_cost(
    spec: ChunkSpec, share: ModelTotals, output_per_request: float | None, endpoint: str
) -> float:
    """Work units that a chunk is estimated to take, before any of its batch has run.

    `output_per_request`: mean of the model's recent answers, None while unknown. Answers are no
    longer than the lines allow on average; an embedding has none.
    """
    output = planned_output(share, output_per_request, endpoint)
    return spec.input_tokens + OUTPUT_COST * output * spec.count


def planned_output(share: ModelTotals, output_per_request: float | None, endpoint: str) -> float:
    """Tokens that an answer is estimated to have; see `planned_cost`."""
    if endpoint == "/v1/embeddings":
        return 0.0
    output = limits.OUTPUT_TOKENS_ASSUMED if output_per_request is None else output_per_request
    return min(output, share.output_tokens / share.requests) if share.output_tokens else output


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The work that one batch still needs from one model's pool; `cost` in work units."""

    batch_id: str
    organization_id: str
    priority: int
    deadline_at: datetime
    created_at: datetime
    cost: float

    @property
    def order(self) -> tuple[int, datetime, datetime, str]:
        """The sort key within a tenant: priority, then the earliest deadline, then the oldest."""
        return (-self.priority, self.deadline_at, self.created_at, self.batch_id)


class Tenant(msgspec.Struct, frozen=True):
    """An organization in one pool: what it was given so far, over its weight."""

    virtual_time: float = 0.0
    weight: float = 1.0


def urgent(
    entries: Iterable[Entry],
    capacity: Capacity,
    *,
    margin: float = limits.URGENT_MARGIN,
    guard_s: float = limits.URGENT_GUARD_S,
) -> list[Entry]:
    """Batches that must go first, the earliest deadline first, or deadlines are missed.

    A batch's latest start counts all work that is due no later: several batches of one hour each
    cannot all begin an hour before a common deadline. The last deadline without slack decides, and
    everything due by then is urgent. Work that cannot be done in time in any order is left out,
    the largest first, which keeps the most deadlines (Moore and Hodgson): it gets its fair turn.
    """
    kept = _can_be_met(sorted(entries, key=lambda e: (e.deadline_at, e.order)), capacity)
    work, last = 0.0, 0
    for place, entry in enumerate(kept, start=1):
        work += entry.cost
        if work * (1.0 + margin) >= capacity(entry.deadline_at - timedelta(seconds=guard_s)):
            last = place
    return kept[:last]


def _can_be_met(by_deadline: Sequence[Entry], capacity: Capacity) -> list[Entry]:
    """The largest set of these that fits before their deadlines, in the order given."""
    work = 0.0
    largest: list[tuple[float, int]] = []
    dropped: set[int] = set()
    for place, entry in enumerate(by_deadline):
        work += entry.cost
        heapq.heappush(largest, (-entry.cost, place))
        if work > capacity(entry.deadline_at):
            cost, worst = heapq.heappop(largest)
            work += cost
            dropped.add(worst)
    return [entry for place, entry in enumerate(by_deadline) if place not in dropped]


class WeightedFairQueue:
    """Weighted fair queueing over tenants: the least virtual time is next, ties by name."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._tenants: dict[str, Tenant] = {}

    def __len__(self) -> int:
        return len(self._tenants)

    def __contains__(self, name: str) -> bool:
        return name in self._tenants

    def join(self, name: str, tenant: Tenant) -> None:
        """Adds a tenant that has waiting work."""
        self._put(name, tenant)

    def leave(self, name: str) -> Tenant:
        """Removes and returns a tenant that has no more work. Raises
        KeyError when it was not there.
        """
        return self._tenants.pop(name)

    def first(self) -> str | None:
        """The tenant whose turn it is; None when none has work."""
        while self._heap:
            virtual_time, name = self._heap[0]
            tenant = self._tenants.get(name)
            if tenant is not None and tenant.virtual_time == virtual_time:
                return name
            heapq.heappop(self._heap)  # it left, or was charged since
        return None

    def charge(self, name: str, cost: float) -> None:
        """Charges work of that cost to the tenant; a correction may be negative."""
        tenant = self._tenants[name]
        self._put(name, Tenant(tenant.virtual_time + cost / tenant.weight, tenant.weight))

    def _put(self, name: str, tenant: Tenant) -> None:
        self._tenants[name] = tenant
        heapq.heappush(self._heap, (tenant.virtual_time, name))
