"""Which replicas a worker should own, from what it has seen of the others.

Pure; the shell is loops/replicas/ownership.py, the records lie in the store (ports/ownership.py
says what is guaranteed). Every worker computes the whole division from the same records and acts on
its own part of it, so there is no leader and no election.

Two rules. **Fair share**: the division is as even as the workers' lists of replicas allow; with one
list for all, no worker owns more than `ceil(replicas / workers)`. The owner of a replica keeps it
unless that evens out the division. **Gone**: a worker is gone when its heartbeat was seen to stand
still for as long as it said its lease lasts, on the clock of the worker that looks. No two clocks
are ever compared; they only have to run at about the same rate.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

import msgspec

_NOBODY: Final = frozenset[str]()


class Member(msgspec.Struct, frozen=True):
    """A worker as its last heartbeat left it.

    `heartbeat` grows with each one; `wants` are names of replicas.
    """

    worker_id: str
    heartbeat: int
    ttl_s: float
    wants: frozenset[str]


class Owner(msgspec.Struct, frozen=True):
    """The owner of a replica. `token` grows each time the replica is claimed."""

    worker_id: str
    token: int


class Fleet(msgspec.Struct, frozen=True):
    """All workers and replicas at one moment. The owner None: the replica has none."""

    members: tuple[Member, ...]
    owners: Mapping[str, Owner | None]


class Sighting(msgspec.Struct, frozen=True):
    """A heartbeat, and since when (monotonic seconds) no later one was seen."""

    heartbeat: int
    since_s: float


class MembershipView(msgspec.Struct, frozen=True):
    """What one worker remembers of the others' heartbeats."""

    sightings: Mapping[str, Sighting] = {}
    observed_at_s: float = float("-inf")

    def observe(self, fleet: Fleet, now_s: float, gap_s_max: float) -> "MembershipView":
        """Records what `fleet`, read just before `now_s`, shows.

        After a gap of more than `gap_s_max` all sightings begin anew: while the database is away
        every heartbeat stands still, and no worker may be given up for that.
        """
        before = self.sightings if now_s - self.observed_at_s <= gap_s_max else {}
        seen: dict[str, Sighting] = {}
        for member in fleet.members:
            known = before.get(member.worker_id)
            is_known = known is not None and known.heartbeat == member.heartbeat
            seen[member.worker_id] = (
                known if known and is_known else Sighting(member.heartbeat, now_s)
            )
        return MembershipView(seen, now_s)

    def gone(self, fleet: Fleet) -> tuple[Member, ...]:
        """The workers of `fleet`, which was looked at last, whose lease has run out."""
        return tuple(
            member for member in fleet.members if self.observed_at_s >= self._ends_at_s(member)
        )

    def next_end_s(self, fleet: Fleet) -> float:
        """When the next lease runs out if no heartbeat comes, of those that have not."""
        ends = (self._ends_at_s(member) for member in fleet.members)
        return min((end for end in ends if end > self.observed_at_s), default=float("inf"))

    def _ends_at_s(self, member: Member) -> float:
        return self.sightings[member.worker_id].since_s + member.ttl_s


class Moves(msgspec.Struct, frozen=True):
    """What a worker does: `retire` the gone, `claim` what is free, `give_back` others' shares."""

    retire: tuple[Member, ...]
    claim: tuple[str, ...]
    give_back: tuple[str, ...]


def plan(worker_id: str, fleet: Fleet, gone: Iterable[Member]) -> Moves:
    """Returns the moves of one worker, whose own lease has not run out, whatever `gone` says.

    A replica that its owner lists no more is in no worker's share until it was given back: the
    lists of others may be older than its owner's, and no other replica should move for its sake.
    """
    retire = tuple(member for member in gone if member.worker_id != worker_id)
    dead = {member.worker_id for member in retire}
    wants = {m.worker_id: m.wants for m in fleet.members if m.worker_id not in dead}
    owners = {
        name: owner.worker_id if owner is not None and owner.worker_id in wants else None
        for name, owner in fleet.owners.items()
    }
    leaving = {
        name for name, owner in owners.items() if owner is not None and name not in wants[owner]
    }
    due = divide(wants, {name: owners[name] for name in owners.keys() - leaving})
    return Moves(
        retire=retire,
        claim=tuple(
            name for name in sorted(due) if due[name] == worker_id and owners[name] is None
        ),
        give_back=tuple(
            name
            for name in sorted(owners)
            if owners[name] == worker_id and due.get(name) != worker_id
        ),
    )


def divide(
    wants: Mapping[str, frozenset[str]], owners: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The worker that should own each replica; None where no worker wants it.

    As even as can be: free replicas go to the worker that has fewest, then one replica at a time
    moves along a chain of workers that ends at one who has at least two fewer than where it began.
    When no such chain is left, no division is more even (Harvey, Ladner, Lovasz and Tamir,
    "Semi-matchings for bipartite graphs and load balancing").
    """
    held: dict[str, set[str]] = {worker: set() for worker in sorted(wants)}
    free: list[str] = []
    for name, owner in sorted(owners.items()):
        if owner is not None and name in wants.get(owner, _NOBODY):
            held[owner].add(name)
        else:
            free.append(name)
    for name in free:
        takers = [worker for worker in held if name in wants[worker]]
        if takers:
            held[min(takers, key=lambda worker: (len(held[worker]), worker))].add(name)
    while chain := _evening_chain(held, wants):
        for giver, taker in pairwise(chain):
            # A free replica first: moving it disturbs nobody.
            moved = min(held[giver] & wants[taker], key=lambda n: (owners[n] is not None, n))
            held[giver].remove(moved)
            held[taker].add(moved)
    due: dict[str, str | None] = dict.fromkeys(owners)
    return due | {name: worker for worker, names in held.items() for name in names}


def _evening_chain(
    held: Mapping[str, set[str]], wants: Mapping[str, frozenset[str]]
) -> tuple[str, ...]:
    """The shortest chain from a worker with more to one with at least two fewer; empty: even.

    Each worker of the chain has a replica that the next one wants. The fullest is tried first.
    """
    for first in sorted(held, key=lambda worker: (-len(held[worker]), worker)):
        target = len(held[first]) - 2
        if target < 0:
            break
        chains: list[tuple[str, ...]] = [(first,)]
        reached = {first}
        for chain in chains:  # grows while it is walked: breadth first
            for worker in held:
                if worker not in reached and not held[chain[-1]].isdisjoint(wants[worker]):
                    reached.add(worker)
                    chains.append((*chain, worker))
                    if len(held[worker]) <= target:
                        return chains[-1]
    return ()
