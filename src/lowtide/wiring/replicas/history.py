"""What this process knows of its replicas, for the loop that keeps their history.

Called once a second. A worker tells of batch calls and windows; live calls come through the HTTP
API, in this process or another.
"""

from collections.abc import Mapping

from lowtide.core.history.replica_history import ReplicaTotals
from lowtide.core.reporting.tally import Tallies, Tally
from lowtide.loops.history.replicas import ReplicaHistoryLoop
from lowtide.loops.replicas.replica_set import ReplicaMember, ReplicaSet
from lowtide.ports.clock import Clock
from lowtide.ports.history import HistoryStore
from lowtide.system import new_id
from lowtide.wiring.replicas.open_replica import Calling


def replica_history(
    store: HistoryStore, replicas: ReplicaSet[Calling], tallies: Tallies | None, clock: Clock
) -> ReplicaHistoryLoop:
    """The loop of this process. `tallies` None: it sends no batch calls."""
    return ReplicaHistoryLoop(
        store, new_id("process-"), lambda: replica_totals(replicas, tallies, clock.monotonic())
    )


def replica_totals(
    replicas: ReplicaSet[Calling], tallies: Tallies | None, now_s: float
) -> Mapping[str, ReplicaTotals]:
    """The totals of each replica by its name at that monotonic second."""
    counted = _by_replica(tallies) if tallies is not None else {}
    return {
        member.replica.name: _totals(
            member,
            counted.get(member.replica.name, Tally()),
            is_ours=tallies is not None and now_s < member.replica.owned_until_s,
        )
        for member in replicas.members
    }


def _totals(member: ReplicaMember, counted: Tally, *, is_ours: bool) -> ReplicaTotals:
    replica, controller = member.replica, member.replica.controller
    return ReplicaTotals(
        batch_calls=counted.succeeded,
        input_tokens=counted.input_tokens,
        output_tokens=counted.output_tokens,
        taken_back=replica.guard.revoked_total,
        first_bytes=dict(member.live.first_bytes) if member.live is not None else {},
        is_ours=is_ours,
        gives_way=controller is not None and controller.gives_way,
        window=int(replica.window),
        in_flight=replica.in_flight,
    )


def _by_replica(tallies: Tallies) -> Mapping[str, Tally]:
    """The successes of each replica, of all its models together."""
    tally_of: dict[str, Tally] = {}
    for replica, _, tally in tallies.all():
        of_all = tally_of.setdefault(replica, Tally())
        of_all.succeeded += tally.succeeded
        of_all.input_tokens += tally.input_tokens
        of_all.output_tokens += tally.output_tokens
    return tally_of
