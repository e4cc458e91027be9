"""The port to replica ownership: which worker alone sends batch calls to a replica.

Same contract as ports/store.py: each method one transaction, foreign exceptions mapped.

**What is guaranteed.** Two workers never both believe that they own a replica, as long as their
monotonic clocks run at rates that differ by less than `limits.OWNERSHIP_MARGIN`; wall clocks play
no part. Why: a worker believes in what a heartbeat's answer shows as its own, counted from the
moment *before* that heartbeat was sent, for its lease less the margin. A replica changes its owner
either when the old one has stopped sending and released it, or when the old one is retired; and
`retire` succeeds only for the very heartbeat that the retiring worker saw, after it was committed,
stand still for the whole lease. By then the owner has stopped believing. Its next heartbeat,
however late, shows it what it lost.

**What is not.** A call that was sent while the belief held runs to its end, beside those of the
next owner; and a machine that is suspended with its clock wakes up believing. Either may overfill a
window for a while, and nothing else: outcomes are fenced by the tokens of chunks (ports/store.py),
whoever sent the calls.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from lowtide.core.replicas.replica_assignment import Fleet, Member


class OwnershipStore(Protocol):
    """The records of workers and replicas. A replica goes by a name that all its workers use."""

    async def heartbeat(self, member: Member, now: datetime) -> Fleet:
        """Records that the worker lives, and which replicas it wants. Returns the
        fleet as it is then.

        The first one makes it a member; so does one after it was retired, with nothing of its own
        left. `member.heartbeat` is greater than in any earlier call for this worker. `now` is shown
        to people and decides nothing.
        """

    async def claim(self, worker_id: str, names: Iterable[str], now: datetime) -> Mapping[str, int]:
        """Claims those of `names` that have no owner. Returns them with their tokens; nothing for a
        worker that is no member (any more).
        """

    async def release(self, worker_id: str, tokens: Mapping[str, int]) -> None:
        """Gives up the replicas that are the worker's under these tokens; others stay as is."""

    async def retire(self, worker_id: str, heartbeat: int, now: datetime | None = None) -> bool:
        """Ends the membership of a worker whose last heartbeat is this one; frees what it owned.

        Its leases of chunks and tasks are taken back as well: they run out at a date by its own
        clock, which may have been far ahead. `now`: when the loss is noted among the events of
        their batches; None: it is not. False when a later one has come, or it is no member:
        nothing is done.
        """

    async def leave(self, worker_id: str) -> None:
        """Ends the worker's own membership, and frees what it owned."""

    async def fleet(self) -> Fleet:
        """All members, and the replicas that any of them wants or owns; for people."""
