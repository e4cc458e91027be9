"""The port to the verbs that steer a batch which exists: hold it, let it go on, change it.

The rules at the head of ports/store.py hold here, too. Contract: while a batch has a hold, none of
its chunks waits to be leased; a hold is lifted alone, and the batch goes on when the last one is; a
verb that repeats one changes nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.batches.batch import Batch, Hold, InFlight
from lowtide.core.history.batch_events import USER


class BatchChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a batch that has not ended; None leaves it."""

    priority: int | None = None
    completion_window_s: int | None = None
    metadata: Mapping[str, str] | None = None


class SteeringStore(Protocol):
    """Holds and changes. A `project_id` of None is an operator's, who may steer any batch. What a
    verb changes is noted among the batch's events, as done by `actor` (ports/history.py)."""

    async def hold(
        self,
        project_id: str | None,
        batch_id: str,
        hold: Hold,
        in_flight: InFlight,
        now: datetime,
        actor: str = USER,
    ) -> Batch | None:
        """Adds the hold while the batch is validated or runs; the batch as it then is, None when
        unknown. `in_flight`: what becomes of its calls that are under way. Its deadline stays.
        """

    async def lift(
        self,
        project_id: str | None,
        batch_id: str,
        hold: Hold,
        now: datetime,
        actor: str = USER,
    ) -> Batch | None:
        """Takes that hold away; the others stay. The batch as it then is, None when unknown."""

    async def change(
        self,
        project_id: str,
        batch_id: str,
        change: BatchChange,
        now: datetime,
        actor: str = USER,
    ) -> Batch | None:
        """Changes the batch and its chunks, while it is validated or runs; the batch as it then is,
        None when unknown. A window counts from the batch's creation.
        """

    async def delete(self, project_id: str, batch_id: str, now: datetime) -> Batch | None:
        """Hides a batch that has ended, and lets go of its results and of what its submitter wrote.
        Its bill stays, and the numbers of its lines. The batch as it then is, with `deleted_at` if
        it is deleted; None when unknown.
        """
