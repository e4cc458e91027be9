"""Verbs for a batch that exists: pause, resume, and change its priority, window or metadata.

Called by the API's routes. Invariants: whoever held a batch lifts that hold alone, so a user does
not undo an operator's pause nor the spend cap's; the deadline goes on while a batch is held; each
verb may be repeated.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, get_args

import msgspec

from lowtide.core.batches.batch import STEERABLE, Batch, Hold, InFlight
from lowtide.core.errors import LowtideError
from lowtide.core.history.batch_events import OPERATOR, USER
from lowtide.ports.clock import Clock
from lowtide.ports.steering import BatchChange, SteeringStore
from lowtide.service.batches.batches import batch_not_found
from lowtide.service.batches.new_batch import (
    check_metadata,
    check_priority,
    checked_window_s,
    invalid_value,
)

_IN_FLIGHT: Final[tuple[InFlight, ...]] = get_args(InFlight)


class PauseBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A pause as asked for. `in_flight`: finish the calls that are under way, or abort them."""

    in_flight: str = "finish"


class ChangeBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change as asked for; None leaves what it is about. `metadata` replaces all of it."""

    priority: int | None = None
    completion_window: str | None = None
    metadata: Mapping[str, str] | None = None


class SteeringService:
    """Steers batches. An operator steers those of all projects, by the project None. `actor` is
    the key that asks, for the batch's events."""

    def __init__(self, store: SteeringStore, clock: Clock, wake: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake

    async def pause(
        self, project_id: str | None, batch_id: str, asked: PauseBatch, actor: str = USER
    ) -> Batch:
        """Starts no further requests of the batch. Raises LowtideError where it has ended."""
        in_flight = next((each for each in _IN_FLIGHT if each == asked.in_flight), None)
        if in_flight is None:
            raise invalid_value(asked.in_flight, _IN_FLIGHT, "in_flight")
        hold, now = _hold_of(project_id), self._clock.now()
        by = OPERATOR if project_id is None else actor
        paused = await self._store.hold(project_id, batch_id, hold, in_flight, now, by)
        batch = _steerable(paused, batch_id, "paused")
        self._wake("commit")
        return batch

    async def resume(self, project_id: str | None, batch_id: str, actor: str = USER) -> Batch:
        """Lifts the hold of whoever asks; others stay, and the batch's `reason` names them."""
        hold = _hold_of(project_id)
        by = OPERATOR if project_id is None else actor
        resumed = await self._store.lift(project_id, batch_id, hold, self._clock.now(), by)
        batch = _steerable(resumed, batch_id, "resumed")
        self._wake("dispatch")
        return batch

    async def delete(self, project_id: str, batch_id: str) -> None:
        """Deletes the batch and its results. Raises LowtideError where it has not ended."""
        batch = await self._store.delete(project_id, batch_id, self._clock.now())
        if batch is None:
            raise batch_not_found(batch_id)
        if batch.deleted_at is None:
            raise LowtideError(
                "batch_not_ended",
                f"Batch '{batch_id}' is {batch.status}: it can be deleted once it has ended.",
            )

    async def change(
        self, project_id: str, batch_id: str, asked: ChangeBatch, actor: str = USER
    ) -> Batch:
        """Changes what is given. Raises LowtideError for values that make no sense, and where the
        batch has ended or would have by the new window.
        """
        check_priority(asked.priority)
        check_metadata(asked.metadata or {})
        window_s = None
        if asked.completion_window is not None:
            window_s = checked_window_s(asked.completion_window, 0)
        nothing = BatchChange()
        now = self._clock.now()
        before = await self._store.change(project_id, batch_id, nothing, now)
        batch = _steerable(before, batch_id, "changed")
        if window_s is not None and batch.created_at + timedelta(seconds=window_s) <= now:
            age_h = -(-(now - batch.created_at).total_seconds() // 3600)
            raise LowtideError(
                "invalid_request",
                f"completion_window: the batch is older than '{asked.completion_window}', and the"
                f" window counts from its creation: give more than {age_h:.0f}h, or cancel it.",
                "completion_window",
            )
        change = BatchChange(
            priority=asked.priority, completion_window_s=window_s, metadata=asked.metadata
        )
        changed = await self._store.change(project_id, batch_id, change, now, actor)
        batch = _steerable(changed, batch_id, "changed")
        self._wake("expire")
        return batch


def _hold_of(project_id: str | None) -> Hold:
    return "operator" if project_id is None else "user"


def _steerable(batch: Batch | None, batch_id: str, verb: str) -> Batch:
    """Raises LowtideError for a batch that is not there, or that starts no requests any more."""
    if batch is None:
        raise batch_not_found(batch_id)
    if batch.status not in STEERABLE:
        raise LowtideError(
            "batch_ended",
            f"Batch '{batch_id}' has the status '{batch.status}' and cannot be {verb} any more.",
        )
    return batch
