"""The port to what scheduling knows: the backlog of each pool, its pace, and what is urgent.

Paces and cells are learnt inside `WorkStore.commit_beat`; here they are read.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from lowtide.core.completion import Backlog
from lowtide.core.forecast import Cell, Pace


class Capacity(msgspec.Struct, frozen=True):
    """All of it at one moment, by model; the backlog and what is urgent by batch."""

    backlog: Sequence[Backlog]
    paces: Mapping[str, Pace]
    cells: Mapping[str, Mapping[int, Cell]]
    urgent: Mapping[str, Sequence[str]] = {}


class CapacityStore(Protocol):
    """What pools have to do, and what they get done."""

    async def capacity(self) -> Capacity:
        """The backlog of all batches in progress, by batch and model, and what was learnt.

        Grows with the batches in progress, never with their chunks.
        """
        ...

    async def mark_urgent(self, model: str, batch_ids: Sequence[str]) -> None:
        """From now on claims take that model's chunks of these batches, and of no others marked
        before, ahead of all turns: the earliest deadline first."""
        ...
