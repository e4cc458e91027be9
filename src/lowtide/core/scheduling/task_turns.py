"""Which organization is next at work that all of them share, one unit after another.

The store keeps one for validation and one for assembly (store/lifecycle.py). Start-time fair
queueing: an organization's next unit begins where its last one ended, but never before the unit
that was begun last. Invariants: the organization that was given the least comes next, idle time
earns no credit, and none waits behind more than one unit of each other organization.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec


class Waiting(msgspec.Struct, frozen=True):
    """An organization that has work ready, and since when its oldest waits."""

    organization_id: str
    since: datetime


class TaskTurns:
    """Costs are in any unit, the same for all units of work."""

    def __init__(self) -> None:
        self._begun = 0.0  # where the unit that was begun last began
        self._ends: dict[str, float] = {}  # where the last unit of each ended, if behind `_begun`

    def order(self, waiting: Iterable[Waiting]) -> list[str]:
        """The organizations, whose turn it is first; of those that are alike, the oldest work."""
        ranked = sorted(
            waiting,
            key=lambda each: (self._begins(each.organization_id), each.since, each.organization_id),
        )
        return [each.organization_id for each in ranked]

    def charge(self, organization_id: str, cost: float) -> None:
        """Charges a unit of work that begins to the organization."""
        self._begun = max(self._begun, self._begins(organization_id))
        self._ends[organization_id] = self._begins(organization_id) + cost
        self._ends = {name: end for name, end in self._ends.items() if end > self._begun}

    def rest(self) -> None:
        """Forgets what was given so far, because nothing waits: it delayed no organization."""
        self._begun = max(self._ends.values(), default=self._begun)
        self._ends = {}

    def _begins(self, organization_id: str) -> float:
        return max(self._begun, self._ends.get(organization_id, 0.0))
