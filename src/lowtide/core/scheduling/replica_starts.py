"""What a process has seen of the replicas of a model: their usual number, and how long starts take.

Pure; service/scale.py feeds it at each reading. The number goes with the pool's throughput, which
forgets at the same pace (`PACE_TAU_S`), so that both together say how fast one replica is.
Invariant: while there is no replica the number stays, for the throughput is that of those there
were.
"""

import math
from datetime import datetime

import msgspec

from lowtide import limits
from lowtide.core.scheduling.wanted_replicas import Held


class ReplicaStarts(msgspec.Struct, frozen=True):
    """`usual`: mean number of replicas while there were some, as of `at`. `asked_at`: since when
    more are wanted than are there. `cold_starts`: the last ones, in seconds. `held`: the number
    that was reported last.
    """

    usual: float | None = None
    at: datetime | None = None
    present: int = 0
    asked_at: datetime | None = None
    cold_starts: tuple[float, ...] = ()
    held: Held | None = None

    def seen(self, present: int, now: datetime) -> "ReplicaStarts":
        """The history with a reading at `now`, which found so many."""
        starts, asked_at = self.cold_starts, self.asked_at
        if asked_at is not None and present > self.present:
            took_s = (now - asked_at).total_seconds()
            if 0 < took_s <= limits.SCALE_COLD_START_S_MAX:
                starts = (*starts, took_s)[-limits.SCALE_COLD_STARTS_KEPT :]
        return msgspec.structs.replace(
            self,
            usual=self._mean(present, now),
            at=now,
            present=present,
            asked_at=asked_at,
            cold_starts=starts,
        )

    def reported(self, held: Held, now: datetime) -> "ReplicaStarts":
        """The history after this number was reported for the last reading."""
        is_short = held.replicas > self.present
        has_more = self.held is not None and held.replicas > self.held.replicas
        asked_at = self.asked_at if is_short and not has_more else None
        return msgspec.structs.replace(
            self, held=held, asked_at=(asked_at or now) if is_short else None
        )

    def cold_start_s(self, otherwise_s: float) -> float:
        """The p90 of the starts that were seen; `otherwise_s` before the first one."""
        if not self.cold_starts:
            return otherwise_s
        ordered = sorted(self.cold_starts)
        return ordered[min(len(ordered) - 1, math.ceil(0.9 * len(ordered)) - 1)]

    def expected(self, now: datetime, cold_start_s: float) -> int:
        """The replicas that are there or start: those asked for count until twice the time of a
        start has passed, after which it seems that no one starts them.
        """
        if self.asked_at is None or self.held is None:
            return self.present
        is_under_way = (now - self.asked_at).total_seconds() < 2 * cold_start_s
        return max(self.present, self.held.replicas) if is_under_way else self.present

    def _mean(self, present: int, now: datetime) -> float | None:
        if present == 0:
            return self.usual
        if self.usual is None or self.at is None:
            return float(present)
        passed_s = max(0.0, (now - self.at).total_seconds())
        keep = math.exp(-passed_s / limits.PACE_TAU_S)
        return self.usual * keep + present * (1.0 - keep)
