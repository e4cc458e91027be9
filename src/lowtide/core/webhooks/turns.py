"""Which deliveries are next: organizations take turns, and none has more than its share.

Pure. The store asks when a process claims deliveries. Invariants: an organization with the fewest
under way comes first, and of those that are alike the one that has waited longest; a new
organization waits for no more than one delivery of each other organization.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from heapq import heapify, heappop, heapreplace

import msgspec


class DueDeliveries(msgspec.Struct, frozen=True):
    """An organization with deliveries that are due: how many, and since when the oldest."""

    organization_id: str
    count: int
    since: datetime


def places_of(
    due: Sequence[DueDeliveries], under_way: Mapping[str, int], free: int, most: int
) -> Mapping[str, int]:
    """How many deliveries of each organization to begin now: `free` in all.

    `most`: that one organization may have under way, `under_way` included.
    """
    queue = [
        (under_way.get(each.organization_id, 0), each.since, each.organization_id, each.count)
        for each in due
    ]
    heapify(queue)
    given: dict[str, int] = {}
    while queue and free > 0:
        busy, since, organization_id, left = queue[0]
        if busy >= most or left == 0:
            heappop(queue)
            continue
        given[organization_id] = given.get(organization_id, 0) + 1
        free -= 1
        heapreplace(queue, (busy + 1, since, organization_id, left - 1))
    return given
