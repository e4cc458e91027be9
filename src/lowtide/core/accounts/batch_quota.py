"""How many batches an organization may make: within an hour, and unfinished at one time.

Pure. The services hand a quota to the store, which counts in the transaction that adds a batch, so
that creates at one instant cannot pass it together.
"""

from typing import Final, Literal

import msgspec

BatchLack = Literal["hour", "unfinished"]


class BatchQuota(msgspec.Struct, frozen=True, kw_only=True):
    """How many batches an organization may have; None: no bound.

    `per_hour`: created within RATE_WINDOW_S, single calls not counted. `unfinished`: not ended yet,
    background responses included, but not calls whose callers wait.
    """

    per_hour: int | None = None
    unfinished: int | None = None


class BatchQuotaReached(Exception):
    """Raised by a transaction that would have passed the quota, and therefore changed nothing."""

    def __init__(self, lack: BatchLack) -> None:
        super().__init__(f"the quota of batches is reached: {lack}")
        self.lack: BatchLack = lack


NO_QUOTA: Final = BatchQuota()
