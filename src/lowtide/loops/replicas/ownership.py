"""Keeps this worker's share of the replicas: heartbeat, look, decide, take and give back.

Only where several processes may list one replica; elsewhere a replica is its process's for
good. What is guaranteed stands in ports/ownership.py, the decision in
core/replicas/replica_assignment.py. Here lies the worker's side of it: a replica takes calls
(`Replica.owned_until_s`) only for the lease, less a margin, counted from before the heartbeat
was sent that proved the ownership. A replica that is to be another's gets no further call; it
is released when the last call on it has ended, or, after `limits.OWNERSHIP_YIELD_S`, when
that was aborted. One that left this worker's list is kept for `limits.OWNERSHIP_LEFT_S` from all
who list it still: most likely their lists are only older, and the engine is gone.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from lowtide import limits
from lowtide.core.replicas.replica_assignment import Fleet, Member, MembershipView, plan
from lowtide.ports.clock import Clock
from lowtide.ports.ownership import OwnershipStore
from lowtide.ports.store import StoreError

log = structlog.get_logger(__name__)

_NEVER = float("-inf")
_ROUNDING_S = 2e-6
"""An instant is rounded to a microsecond: a tick just before the heartbeat is due would be asked
for again at once, and again."""


class Ownable(Protocol):
    """What one worker alone may use: a replica, or a seat (loops/replicas/seats.py). `calls`: its
    uses under way.
    """

    models: frozenset[str]
    name: str
    owned_until_s: float

    @property
    def calls(self) -> int: ...

    def own_until(self, until_s: float) -> None:
        """Sets the monotonic second until which it may be used."""


class WorkSource(Protocol):
    """What the ownership loop needs of the dispatcher."""

    def announce(self) -> None:
        """Looks for work: more replicas take calls."""

    def release_replicas(self, replica_names: frozenset[str], models: frozenset[str]) -> None:
        """Stops work on replicas that this worker has lost; those it still has serve `models`."""


class OwnershipLoop:
    """One worker's part in the division of replicas."""

    name = "ownership"

    def __init__(
        self,
        worker_id: str,
        store: OwnershipStore,
        clock: Clock,
        shared: Mapping[str, Ownable],
        own: Sequence[Ownable],
        work: WorkSource,
        *,
        lease_ttl_s: float = limits.LEASE_TTL_S,
    ) -> None:
        """`shared` are the replicas that other workers may list, by their common names; `own` those
        that no other can reach. None of `shared` takes calls before the first tick.
        """
        self._worker_id = worker_id
        self._store = store
        self._clock = clock
        self._shared = dict(shared)
        self._own = own
        self._work = work
        self._ttl_s = lease_ttl_s
        self._wants = frozenset(shared)
        self._is_draining = False
        self._heartbeat = 0
        self._watch = MembershipView()
        self._tokens: dict[str, int] = {}
        """The replicas that this worker owns by the store, with tokens."""
        self._leaving: dict[str, float] = {}
        """Owned replicas that take no more calls, with the monotonic second of their release."""
        self._kept: dict[str, float] = {}
        """Those of them that left this worker's list while others still list them, with the
        monotonic second before which they are not released."""
        self._due_s = _NEVER
        self._is_asked = False
        for replica in shared.values():
            replica.own_until(_NEVER)

    def announce(self) -> None:
        """Asks for a reading at the next tick: workers or owners have changed. One that is under
        way may have seen neither.
        """
        self._is_asked = True

    def replicas_changed(self, shared: Mapping[str, Ownable], own: Sequence[Ownable]) -> None:
        """Takes over a new list of replicas. What is no more listed is given back once it is idle;
        what is new takes no calls before it was claimed.
        """
        for name, replica in shared.items():
            if name not in self._tokens or self._shared.get(name) is not replica:
                replica.own_until(_NEVER)
        kept = {name: self._shared[name] for name in self._tokens if name in self._shared}
        self._shared = {**kept, **shared}
        self._own = own
        if not self._is_draining:
            self._wants = frozenset(shared)
        self.announce()

    def drain(self) -> None:
        """Gives everything back as it falls idle, from the next tick on."""
        self._is_draining = True
        self._wants = frozenset()
        self.announce()

    async def tick(self, now: datetime) -> datetime | None:
        """Releases what has fallen idle; sends a heartbeat that is due and
        acts on what it shows."""
        await self._release_idle()
        if self._is_asked or self._clock.monotonic() >= self._due_s:
            await self._observe(now)
        due_s = _NEVER if self._is_asked else self._due_s
        wait_s = max(_ROUNDING_S, due_s - self._clock.monotonic())
        if self._leaving:
            wait_s = min(wait_s, limits.OWNERSHIP_IDLE_POLL_S)
        return self._clock.now() + timedelta(seconds=wait_s)

    async def leave(self) -> None:
        """Frees at once what the stopped worker still owns."""
        try:
            await self._store.leave(self._worker_id)
        except StoreError as error:  # the lease will run out
            log.warning("ownership.not_given_up", error=str(error))

    async def _observe(self, now: datetime) -> None:
        self._due_s, self._is_asked = _NEVER, False  # where the heartbeat fails, it stays due
        self._heartbeat += 1
        sent_s = self._clock.monotonic()
        me = Member(self._worker_id, self._heartbeat, self._ttl_s, self._wants)
        fleet = await self._store.heartbeat(me, now)
        seen_s = self._clock.monotonic()
        self._watch = self._watch.observe(fleet, seen_s, self._ttl_s * limits.OWNERSHIP_GAP)
        moves = plan(self._worker_id, fleet, self._watch.gone(fleet))
        self._due_s = min(
            sent_s + self._ttl_s / limits.OWNERSHIP_HEARTBEATS, self._watch.next_end_s(fleet)
        )
        self._leaving = {
            name: self._leaving.get(name, seen_s + limits.OWNERSHIP_YIELD_S)
            for name in moves.give_back
        }
        left = moves.give_back if not self._is_draining else ()
        self._kept = {
            name: self._kept.get(name, seen_s + limits.OWNERSHIP_LEFT_S)
            for name in left
            if name not in me.wants and any(name in each.wants for each in fleet.members)
        }
        until_s = sent_s + self._ttl_s * (1 - limits.OWNERSHIP_MARGIN)
        self._keep(self._ours(fleet), until_s)
        for member in moves.retire:
            if await self._store.retire(member.worker_id, member.heartbeat, now):
                log.warning("worker.retired", worker=member.worker_id, lease_s=member.ttl_s)
        claim = [name for name in moves.claim if name in self._wants]
        if claim:
            claimed = await self._store.claim(self._worker_id, claim, now)
            self._keep({**self._tokens, **claimed}, until_s)

    def _ours(self, fleet: Fleet) -> dict[str, int]:
        owners = fleet.owners.items()
        return {n: o.token for n, o in owners if o is not None and o.worker_id == self._worker_id}

    def _keep(self, tokens: dict[str, int], until_s: float) -> None:
        """Records that this worker owns these replicas until then; those that are leaving, or left
        the list since the heartbeat was sent, still take no calls.
        """
        lost = self._tokens.keys() - tokens.keys()
        gained = tokens.keys() - self._tokens.keys()
        self._tokens = tokens
        now_s = self._clock.monotonic()
        resumed = False
        for name, replica in self._shared.items():
            usable = name in tokens and name in self._wants and name not in self._leaving
            resumed = resumed or (usable and replica.owned_until_s <= now_s < until_s)
            replica.own_until(until_s if usable else _NEVER)
        if gained or lost:
            log.info("replicas.owned", gained=sorted(gained), lost=sorted(lost), all=len(tokens))
        if lost:  # taken, not given: what is in flight there may end, as its chunks are still ours
            self._work.release_replicas(frozenset(), self._models())
        if resumed:
            self._work.announce()

    async def _release_idle(self) -> None:
        """Gives back what takes no more calls and has none."""
        now_s = self._clock.monotonic()
        over = {
            name: self._tokens[name]
            for name, until_s in self._leaving.items()
            if now_s >= (self._kept.get(name, _NEVER) if self._is_idle(name) else until_s)
        }
        if not over:
            return
        names = frozenset(self._shared[name].name for name in over if name in self._shared)
        self._work.release_replicas(names, self._models(without=over.keys()))
        await self._store.release(self._worker_id, over)
        for name in over:
            del self._leaving[name], self._tokens[name]
            if name not in self._wants and not self._is_draining:
                self._shared.pop(name, None)  # listed no more
        log.info("replicas.released", names=sorted(over))

    def _is_idle(self, name: str) -> bool:
        """Whether it has no call of this worker's. One that was claimed while it left the list was
        never known here, and has none.
        """
        return name not in self._shared or not self._shared[name].calls

    def _models(self, without: Collection[str] = ()) -> frozenset[str]:
        """The models that this worker's replicas serve, except those of `without`."""
        known = self._tokens.keys() & self._shared.keys()
        ours = [self._shared[name] for name in known - set(without)]
        return frozenset(model for each in (*ours, *self._own) for model in each.models)
