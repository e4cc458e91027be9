"""How fast a batch went lately, and for how long it was held: measured, without what is foreseen.

Pure. service/batches/batches.py reads the history and the pauses of the batches that it tells the
progress of; core/reporting/progress.py takes the result beside the forecast. Invariant: time in
which a batch was held, or waited for its first result, is in no pace.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.history.batch_events import BatchEvent
from lowtide.core.history.batch_history import BatchHistory, advanced, spans, totals_of

Stretch = tuple[datetime, datetime]
"""Two instants: from and to."""


class MeasuredPace(msgspec.Struct, frozen=True):
    """`held_s`: seconds since the first result in which the batch was held. `recent_per_s`:
    requests a second in the last `RECENT_PACE_S` of the other time; None: too little was seen.
    """

    held_s: float = 0.0
    recent_per_s: float | None = None


NOTHING_MEASURED: Final = MeasuredPace()


def measured_pace(
    batch: Batch, history: BatchHistory | None, pauses: Iterable[BatchEvent], now: datetime
) -> MeasuredPace:
    """The pace of a batch in progress up to `now`. `history`: up to the last reading, None: there
    was none; `pauses`: those noted and their ends, the first first."""
    if batch.in_progress_at is None or batch.first_settled_at is None:
        return NOTHING_MEASURED
    held = held_stretches(pauses, now if batch.holds else None)
    history = history or BatchHistory.begin(batch.in_progress_at)
    left_out = [(batch.in_progress_at, batch.first_settled_at), *held]
    return MeasuredPace(
        _within(held, batch.first_settled_at, now),
        _recent_per_s(advanced(history, totals_of(batch), now), left_out, now),
    )


def held_stretches(events: Iterable[BatchEvent], until: datetime | None) -> list[Stretch]:
    """When the batch was held: from each pause to the last end of one before the next, because
    several holds end one by one. `until`: the end of the last one where it is still held.
    """
    stretches: list[Stretch] = []
    since: datetime | None = None
    end: datetime | None = None
    for event in events:
        if event.kind == "paused" and (since is None or end is not None):
            if since is not None and end is not None:
                stretches.append((since, end))
            since, end = event.at, None
        elif event.kind == "resumed" and since is not None:
            end = event.at
    end = until or end
    if since is not None and end is not None:
        stretches.append((since, end))
    return stretches


def _recent_per_s(
    history: BatchHistory, left_out: Sequence[Stretch], now: datetime
) -> float | None:
    """Requests a second in the last buckets that have `RECENT_PACE_S` of other time."""
    requests, seconds = 0, 0.0
    for span in reversed(spans(history, now)):
        requests += span.done.requests
        end = span.at + timedelta(seconds=span.seconds)
        seconds += span.seconds - _within(left_out, span.at, end)
        if seconds >= limits.RECENT_PACE_S:
            break
    if seconds < limits.RECENT_PACE_S_MIN or not requests:
        return None
    return requests / seconds


def _within(stretches: Iterable[Stretch], since: datetime, until: datetime) -> float:
    """Seconds from `since` to `until` that lie in one of them. They do not overlap."""
    shared = (min(end, until) - max(begin, since) for begin, end in stretches)
    return sum(max(0.0, each.total_seconds()) for each in shared)
