"""The places of a worker where batches are validated and where their results are assembled.

Made by wiring/worker.py, two for each: one takes any batch, one only those with a short
input, so that a short batch never waits behind a long one. Invariant: a wake-up of a task
reaches all its places.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from lowtide import limits
from lowtide.core.validation.planner import Planner
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.loops.batches.task_lease import Wake
from lowtide.loops.batches.validate import ValidateLoop
from lowtide.loops.runner import Loop
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas

PLACES: Final[Mapping[str, Mapping[str, int | None]]] = {
    task: {task: None, f"{task}_short": limits.TASK_SHORT_BYTES}
    for task in ("validate", "assemble")
}
"""The loops of each task's places, with the largest input that each takes."""


class TaskPlaces:
    """`loops` are to be run; what the worker's report says of them is read here."""

    def __init__(
        self,
        worker_id: str,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        planner: Planner,
        allowance: Quotas,
        wake: Wake,
        *,
        lease_ttl_s: float,
    ) -> None:
        self._validating = [
            ValidateLoop(
                worker_id, store.lifecycle, blobs, clock, planner, allowance, wake,
                lease_ttl_s=lease_ttl_s,
                name=name,
                bytes_max=bytes_max,
            )
            for name, bytes_max in PLACES["validate"].items()
        ]  # fmt: skip
        self._assembling = [
            AssembleLoop(
                worker_id, store.lifecycle, store.results, blobs, clock,
                lease_ttl_s=lease_ttl_s,
                name=name,
                bytes_max=bytes_max,
            )
            for name, bytes_max in PLACES["assemble"].items()
        ]  # fmt: skip

    @property
    def loops(self) -> list[Loop]:
        return [*self._validating, *self._assembling]

    @property
    def names(self) -> list[str]:
        return [loop.name for loop in self.loops]

    @property
    def validating(self) -> tuple[str, datetime] | None:
        """The batch whose file has been read the longest, and since when."""
        under_way = [loop.validating for loop in self._validating if loop.validating is not None]
        return min(under_way, key=lambda each: each[1], default=None)

    @property
    def validation_error(self) -> str | None:
        return next((loop.error for loop in self._validating if loop.error), None)

    @property
    def assembly_error(self) -> str | None:
        return next((loop.error for loop in self._assembling if loop.error), None)
