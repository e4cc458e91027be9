"""The port to the queue as workers see it: leased chunks, and the group commit that stores what
they made.

The rules of fencing and exactly once that it keeps are written at the head of ports/store.py.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.execution.records import CommitReceipt, GroupCommit


class TaskLease(msgspec.Struct, frozen=True, kw_only=True):
    """The ownership of a batch for validation or assembly, fenced like a chunk.

    `covered`: of a retry that is to be validated, the lines that it runs again, packed
    (core/batches/line_sets.py); None: all of the file.
    """

    batch: Batch
    token: int
    input_key: str
    covered: bytes | None = None


class WorkStore(Protocol):
    """Chunks and commits, for workers."""

    async def claim_chunks(
        self,
        worker_id: str,
        models: Sequence[str],
        limit: int,
        now: datetime,
        ttl_s: float,
        in_flight_max: int | None = None,
        without: Collection[tuple[str, str]] = (),
        supplied: Collection[str] = (),
    ) -> list[ChunkLease]:
        """Leases up to `limit` waiting chunks of batches in progress, for any of `models`, but for
        those of a (model, endpoint) of `without`, which no replica of this worker can work on.

        Order: first the batches that are marked as urgent (ports/capacity.py), then turn by turn of
        the organizations: next is the one that was given the least work of these models over its
        weight (`OrganizationLimits.weight`), `LOCALITY_CHUNKS` at a time. Within an organization:
        batch priority (higher first), deadline, batch creation, seq. A lease is charged its
        estimated work, a commit corrects that to what was reported, and what comes back unfinished
        is not charged; an organization whose work begins is lifted to the least of those at work,
        so that idle time earns no credit. Two claimers never get the same chunk. The cost grows
        with the organizations that wait, not with chunks or batches.

        An organization whose leased requests, not yet settled, have reached its bound
        (`OrganizationLimits.requests_in_flight`, else `in_flight_max`; None: no bound) gets no
        further chunk. Its last one may pass the bound by up to a chunk.

        `supplied`: organizations of which the worker has enough. If it names any, only others
        get chunks, about `SUPPLY_LOW` requests each, the one that was given the least first; and
        none does while an urgent batch of one of `supplied` waits. Places at replicas are
        divided while they are held (core/dispatch/place_turns.py), so this gives no organization
        more than its share.
        """

    async def commit_group(self, group: GroupCommit) -> CommitReceipt:
        """See Commit and the exactly-once rule above. A chunk whose bits are all set is done.

        When the last request of a batch in progress settles, the batch takes the event `settled`.
        The first success makes the batch's output file visible (`growing`), the first failure its
        error file. What is stored is charged: see ports/accounts.py.
        """

    async def reap(self, now: datetime) -> int:
        """Takes back chunks and tasks whose lease ran out; how many."""

    async def release_worker(self, worker_id: str, now: datetime | None = None) -> int:
        """Takes back at once all that a worker, known to be dead, held. `now`: when it is noted
        among the batches' events (ports/history.py); None: it is not."""

    async def named_models(self, limit: int) -> frozenset[str]:
        """Models that requests of any batch name, as far as batches are kept; so many at most."""
