"""Which calls are taken back where an organization waits for places that others hold for long.

Places are given in turns when calls end (core/dispatch/place_turns.py), and calls may last for
minutes. So an organization that has waited at a full replica for `PREEMPT_AFTER_S`, with less than
half of its share of the places there, gets the youngest calls of those that hold more than theirs:
they have the least to lose. Asked by core/dispatch/dispatch.py; pure. Invariants: no organization
is taken below its share in whole places; at most `PREEMPT_PART` of the places are moved at a time;
a request loses its place `PREEMPTED_MAX` times at most, and none where a place is free.
"""

from collections.abc import Callable, Iterable, Mapping
from math import ceil

from lowtide import limits
from lowtide.core.dispatch.request import Request


class Claimant:
    """An organization at a replica: its weight, its calls in flight there, its requests that wait
    for a place there.
    """

    __slots__ = ("in_flight", "waiting", "weight")

    def __init__(self, weight: float, in_flight: int, waiting: int) -> None:
        self.weight = weight
        self.in_flight = in_flight
        self.waiting = waiting


class SharePreemption:
    """Remembers who waits at the replicas of one worker, and decides what they are given."""

    def __init__(self) -> None:
        self._short_since_s: dict[str, dict[str, float]] = {}
        """Organizations that wait with too little, and since when, by replica."""

    def forget(self, replica_name: str) -> None:
        """Drops what is known of the replica: no organization waits there."""
        self._short_since_s.pop(replica_name, None)

    def due_at_s(self, replica_name: str) -> float | None:
        """When the first organization will have waited for long enough there; None: none waits."""
        since_s = min(self._short_since_s.get(replica_name, {}).values(), default=None)
        return None if since_s is None else since_s + limits.PREEMPT_AFTER_S

    def preempt(
        self,
        replica_name: str,
        places: int,
        claimants: Mapping[str, Claimant],
        calls: Callable[[], Iterable[Request]],
        now_s: float,
    ) -> list[Request]:
        """Returns those of `calls`, the ones in flight on this replica, that are to be aborted now
        and to wait for another turn. All `places` are taken.
        """
        shares = fair_shares(places, claimants)
        lacks = {
            name: lack
            for name, each in claimants.items()
            if each.waiting and (lack := _guaranteed(shares[name]) - each.in_flight) > 0
        }
        before = self._short_since_s.get(replica_name, {})
        since = {name: before.get(name, now_s) for name in lacks}
        due = [name for name, at_s in since.items() if now_s >= at_s + limits.PREEMPT_AFTER_S]
        self._short_since_s[replica_name] = since | dict.fromkeys(due, now_s)
        most = min(sum(lacks[name] for name in due), ceil(places * limits.PREEMPT_PART))
        above = {name: each.in_flight - int(shares[name]) for name, each in claimants.items()}
        return _youngest(calls(), above, most) if most else []


def fair_shares(places: int, claimants: Mapping[str, Claimant]) -> dict[str, float]:
    """Divides places by weight, and gives none more than it can use (max-min fairness)."""
    wants = {name: each.in_flight + each.waiting for name, each in claimants.items()}
    shares: dict[str, float] = {}
    left = float(places)
    while len(shares) < len(claimants):
        open_ = {name: each.weight for name, each in claimants.items() if name not in shares}
        each = left / sum(open_.values())
        content = {name: float(wants[name]) for name, w in open_.items() if wants[name] <= each * w}
        if not content:
            return shares | {name: each * weight for name, weight in open_.items()}
        shares |= content
        left -= sum(content.values())
    return shares


def _guaranteed(share: float) -> int:
    """What one that waits is given by force: half of its share, and a place where it has one."""
    return max(int(share / 2), int(share >= 1))


def _youngest(calls: Iterable[Request], above: dict[str, int], most: int) -> list[Request]:
    """Up to `most` calls, the last sent first, of organizations that hold that many
    places too many.
    """
    chosen: list[Request] = []
    for call in sorted(calls, key=lambda call: -call.sent_at_s):
        owner = call.run.lease.organization_id
        if len(chosen) == most:
            break
        may_go = call.preempted < limits.PREEMPTED_MAX and not call.must_run_alone
        if may_go and above.get(owner, 0) > 0:
            above[owner] -= 1
            call.preempted += 1
            chosen.append(call)
    return chosen
