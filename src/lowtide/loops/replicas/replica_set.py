"""The one owner of which replicas exist now.

wiring gives `apply` the whole list whenever it changes: at start, when the settings are read again,
when an engine lists other models, and when a source of engines has found others. The dispatcher,
leasing, the control and probe loops and live routing read the sequences `upstreams`, `controlled`
and `live`; those that have something to do at a change are `Follower`s.

Invariants: a list is applied as a whole or, if something in it cannot be opened, not at all. A
replica's objects stay the same while its name is listed, and their parts are exchanged. One that
leaves gets no new call; its calls may end within `REPLICA_LEAVE_S`, then they are aborted and their
requests put back with no try charged; then its connections are closed. One that comes back before
that is the same replica still.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from lowtide import limits
from lowtide.core.dispatch.replica import Replica
from lowtide.core.replicas.current import Current
from lowtide.core.replicas.replica_changes import Changes, ReplicaSpec, changes_between
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.replicas.window_control import ReplicaControl
from lowtide.ports.clock import Clock
from lowtide.ports.engine import ModelList
from lowtide.service.live.live_replica import LiveReplica

log = structlog.get_logger(__name__)

S = TypeVar("S")

_Work = Coroutine[None, None, None]

_NEVER = float("-inf")
_ALWAYS = float("inf")


class ReplicaConnections(Protocol):
    """The connections of one client to one engine."""

    @property
    def is_idle(self) -> bool:
        """Whether no call is in flight."""

    async def aclose(self) -> None: ...


class ReplicaMember(msgspec.Struct, eq=False):
    """One replica with all that this process has of it. `shared_as`: the name by which other
    workers that list it know it; None where it is this process's alone. `model_list`: where the
    engine is to be asked which models it serves.
    """

    upstream: Upstream
    live: LiveReplica | None = None
    controlled: ReplicaControl | None = None
    connections: tuple[ReplicaConnections, ...] = ()
    shared_as: str | None = None
    model_list: ModelList | None = None

    @property
    def replica(self) -> Replica:
        return self.upstream.replica

    def adopt(self, fresh: "ReplicaMember") -> tuple[ReplicaConnections, ...]:
        """Takes over what was opened for other settings. Returns the connections to be closed."""
        replica = self.replica
        self.upstream.engine = fresh.upstream.engine
        self.upstream.engine_names = fresh.upstream.engine_names
        self.upstream.rules = fresh.upstream.rules
        self.upstream.timeout_s = fresh.upstream.timeout_s
        self.upstream.streaming = fresh.upstream.streaming
        if self.live is not None and fresh.live is not None:
            self.live.adopt(fresh.live)
        if self.controlled is not None and fresh.controlled is not None:
            self.controlled.adopt(fresh.controlled)
        replica.adopt(fresh.replica)
        self.shared_as = fresh.shared_as
        self.model_list = fresh.model_list
        old, self.connections = self.connections, fresh.connections
        return old

    def serve(self, engine_names: Mapping[str, str]) -> None:
        """Sets the models that the replica serves, with the engine's names for them."""
        self.replica.serve(frozenset(engine_names))
        self.upstream.engine_names = engine_names
        if self.live is not None:
            self.live.engine_names = engine_names


class Opener(Protocol[S]):
    """Makes what it takes to call a replica; nothing is sent."""

    def __call__(self, spec: ReplicaSpec[S]) -> ReplicaMember:
        """Raises ConfigError for settings that cannot work."""


class Follower(Protocol):
    """What must act when the set has changed: the worker of this process."""

    def replicas_changed(self, members: Sequence[ReplicaMember], touched: Collection[str]) -> None:
        """Called when these replicas exist now; those that are `touched` have come, gone, or
        serve other models.
        """

    def take_back(self, replica_name: str) -> None:
        """Aborts the batch calls in flight there; their requests run again, with no try charged."""


class ReplicaSet(Generic[S]):
    """Belongs to one event loop. `apply` is done when it returns; only closing takes time."""

    def __init__(self, open_replica: Opener[S], clock: Clock) -> None:
        self.upstreams: Current[Upstream] = Current()
        self.live: Current[LiveReplica] = Current()
        self.controlled: Current[ReplicaControl] = Current()
        self._open = open_replica
        self._clock = clock
        self._specs: tuple[ReplicaSpec[S], ...] = ()
        self._members: dict[str, ReplicaMember] = {}
        self._leaving: dict[str, ReplicaMember] = {}
        self._followers: list[Follower] = []
        self._closing: dict[asyncio.Task[None], tuple[ReplicaConnections, ...]] = {}

    @property
    def members(self) -> tuple[ReplicaMember, ...]:
        """The replicas in the order of the list."""
        return tuple(self._members.values())

    @property
    def shared(self) -> dict[str, Replica]:
        """The replicas that other workers may list too, by their common names."""
        return {m.shared_as: m.replica for m in self.members if m.shared_as is not None}

    def follow(self, follower: Follower) -> None:
        """Tells `follower` of every change from now on."""
        self._followers.append(follower)

    def apply(self, wanted: Sequence[ReplicaSpec[S]]) -> Changes:
        """Makes the set what is wanted. Raises ConfigError, or ValueError for a name that is there
        twice; then nothing has changed."""
        changes = changes_between(self._specs, wanted)
        specs = {spec.name: spec for spec in wanted}
        # Nothing is connected before the first call, so there is nothing to undo where one fails.
        fresh = {name: self._open(specs[name]) for name in (*changes.added, *changes.changed)}
        members: dict[str, ReplicaMember] = {}
        for spec in wanted:
            member = self._members.get(spec.name)
            if member is None:
                member = self._come_back(spec.name) or fresh[spec.name]
            if spec.name in fresh and member is not fresh[spec.name]:
                self._exchange(member, fresh[spec.name])
            member.serve(spec.engine_names)
            members[spec.name] = member
        gone = {name: self._members[name] for name in changes.removed}
        self._specs, self._members = tuple(wanted), members
        self.upstreams.replace(each.upstream for each in members.values())
        self.live.replace(each.live for each in members.values() if each.live is not None)
        self.controlled.replace(
            each.controlled for each in members.values() if each.controlled is not None
        )
        for name, member in gone.items():
            self._let_leave(name, member)
        if not changes.is_empty:
            touched = {*changes.added, *changes.removed, *changes.changed, *changes.renamed}
            for follower in self._followers:
                follower.replicas_changed(self.members, touched)
        return changes

    async def aclose(self) -> None:
        """Closes all connections, of those that have left, too."""
        pending, self._closing = self._closing, {}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        left = [each for connections in pending.values() for each in connections]
        for member in self._members.values():
            left += member.connections
        await asyncio.gather(*(each.aclose() for each in left))

    def _exchange(self, member: ReplicaMember, fresh: ReplicaMember) -> None:
        """Replaces how the replica is called; calls under way end the old way."""
        replica = member.replica
        has_moved = replica.url != fresh.replica.url
        within_s = max(member.upstream.timeout_s, limits.REPLICA_LEAVE_S)
        old = member.adopt(fresh)
        if has_moved:  # what was sent to the old address would only find out that nobody is there
            self._take_back(replica.name)
        self._spawn(self._close(old, within_s), old)

    def _come_back(self, name: str) -> ReplicaMember | None:
        """Keeps a replica that was about to leave: it gets new connections, and calls on its
        old ones may end.
        """
        member = self._leaving.pop(name, None)
        if member is not None:  # one that is shared has to be claimed again
            member.replica.own_until(_NEVER if member.shared_as else _ALWAYS)
        return member

    def _let_leave(self, name: str, member: ReplicaMember) -> None:
        member.replica.own_until(_NEVER)
        self._leaving[name] = member
        self._spawn(self._leave(name, member), member.connections)

    async def _leave(self, name: str, member: ReplicaMember) -> None:
        """Waits for the replica's calls, within the bound; then aborts what is left and closes."""
        end_s = self._clock.monotonic() + limits.REPLICA_LEAVE_S
        while self._leaving.get(name) is member:
            is_over = not member.replica.calls and _are_idle(member.connections)
            if is_over or self._clock.monotonic() >= end_s:
                break
            await self._clock.sleep(limits.REPLICA_IDLE_POLL_S)
        else:
            return  # it came back, with connections of its own
        del self._leaving[name]
        if member.replica.calls:
            log.info("replica.calls_taken_back", replica=name, calls=member.replica.calls)
            self._take_back(name)
        await _close_all(member.connections)
        log.info("replica.left", replica=name)

    async def _close(self, connections: tuple[ReplicaConnections, ...], within_s: float) -> None:
        end_s = self._clock.monotonic() + within_s
        while not _are_idle(connections) and self._clock.monotonic() < end_s:
            await self._clock.sleep(limits.REPLICA_IDLE_POLL_S)
        await _close_all(connections)

    def _take_back(self, replica_name: str) -> None:
        for follower in self._followers:
            follower.take_back(replica_name)

    def _spawn(self, work: _Work, connections: tuple[ReplicaConnections, ...]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="replica leaves")
        self._closing[task] = connections
        task.add_done_callback(lambda done: self._closing.pop(done, None))


def _are_idle(connections: Iterable[ReplicaConnections]) -> bool:
    return all(each.is_idle for each in connections)


async def _close_all(connections: Iterable[ReplicaConnections]) -> None:
    await asyncio.gather(*(each.aclose() for each in connections))
