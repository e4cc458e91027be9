"""The port to what scheduling knows: the backlog of each pool, its pace, and what is urgent.

Paces and cells are learnt inside `WorkStore.commit_group`; here they are read.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.batches.batch import Batch
from lowtide.core.scheduling.feasibility import Backlog
from lowtide.core.scheduling.forecast import HourOfWeek, Throughput


class Capacity(msgspec.Struct, frozen=True):
    """All backlogs at one moment, by model; the backlog and what is urgent by batch."""

    backlog: Sequence[Backlog]
    paces: Mapping[str, Throughput]
    cells: Mapping[str, Mapping[int, HourOfWeek]]
    urgent: Mapping[str, Sequence[str]] = {}


class Unfinished(msgspec.Struct, frozen=True):
    """Batches that have not ended: how many in each state, with the creation of the oldest; and
    those that are due first."""

    states: Mapping[str, tuple[int, datetime]]
    batches: Sequence[Batch]


class CapacityStore(Protocol):
    """What pools have to do, and what they get done."""

    async def capacity(self) -> Capacity:
        """The backlog of all batches in progress, by batch and model, and what was learnt.

        Grows with the batches in progress, never with their chunks.
        """

    async def unfinished(self, limit: int) -> Unfinished:
        """Up to `limit` batches with rows; single calls (`Batch.flex`) are counted, not shown.

        Grows with the batches that have not ended, never with those that have.
        """

    async def mark_urgent(self, model: str, batch_ids: Sequence[str]) -> None:
        """Marks these batches of the model as urgent, and all others as not: claims take their
        chunks ahead of all turns, the earliest deadline first.
        """
