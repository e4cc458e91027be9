"""All batches that have not ended, counted; and which of them have begun to wait, for the log.

Pure: what loops/batches/overview.py read from the store goes in, figures for metrics and records
for the log come out. Invariants: a batch is told once for each kind of reason, after it has waited
`BATCH_STILL_S`, and once when it moves again; figures that change within a reason are no news.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.reporting.line_bound import LineBound
from lowtide.core.reporting.progress import Progress
from lowtide.core.scheduling.feasibility import Backlog


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """`states`: batches and the age of the oldest in seconds. `waiting` by kind of reason and
    `verdicts` are of the batches that were looked at, those that are due first."""

    states: Mapping[str, tuple[int, float]]
    waiting: Mapping[str, int]
    verdicts: Mapping[str, int]
    queue_requests: Mapping[str, int]
    queue_tokens: Mapping[str, int]


def overview_of(
    states: Mapping[str, tuple[int, datetime]],
    backlog: Iterable[Backlog],
    progress: Iterable[Progress],
    now: datetime,
) -> Overview:
    """`states`: batches and the creation of the oldest."""
    requests: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for part in backlog:
        requests[part.model] += part.requests - part.settled
        tokens[part.model] += max(0, part.planned_tokens - part.settled_tokens)
    progress = list(progress)
    kept = Counter({"at_risk": 0, "infeasible": 0})
    kept.update(each.verdict.kept for each in progress if each.verdict.kept in kept)
    return Overview(
        states={
            state: (counted, max(0.0, (now - oldest).total_seconds()))
            for state, (counted, oldest) in states.items()
        },
        waiting=Counter(each.cause.kind for each in progress if each.cause is not None),
        verdicts=kept,
        queue_requests=requests,
        queue_tokens=tokens,
    )


class WaitingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`left_out`: records of other batches that were not written since the last one."""

    event: Literal["batch.waiting", "batch.moving"]
    batch: str
    reason: str
    since: datetime
    left_out: int


class _Wait(msgspec.Struct):
    kind: str
    since: datetime
    reason: str
    is_logged: bool = False


class WaitingWatch:
    """Remembers which batches wait."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}
        self._bound = LineBound(limits.WAITING_LINE_S, limits.WAITING_LINES_BURST)

    def see(
        self, batches: Sequence[Batch], progress: Sequence[Progress], now: datetime, now_s: float
    ) -> list[WaitingEvent]:
        """What is to be written about these batches; others are forgotten."""
        before, self._waits = self._waits, {}
        events: list[WaitingEvent] = []
        for batch, each in zip(batches, progress, strict=True):
            known, cause = before.get(batch.id), each.cause
            if cause is None:
                if known is not None and known.is_logged:
                    events += self._events("batch.moving", batch.id, known, now_s)
                continue
            if known is None or known.kind != cause.kind:
                known = _Wait(cause.kind, cause.since or now, cause.full)
            known.reason = cause.full
            self._waits[batch.id] = known
            if not known.is_logged and now - known.since >= timedelta(seconds=limits.BATCH_STILL_S):
                known.is_logged = True
                events += self._events("batch.waiting", batch.id, known, now_s)
        return events

    def _events(
        self,
        event: Literal["batch.waiting", "batch.moving"],
        batch_id: str,
        wait: _Wait,
        now_s: float,
    ) -> list[WaitingEvent]:
        left_out = self._bound.admit(event, now_s)
        if left_out is None:
            return []
        return [
            WaitingEvent(
                event=event,
                batch=batch_id,
                reason=wait.reason,
                since=wait.since,
                left_out=left_out,
            )
        ]
