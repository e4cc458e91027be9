"""How fast a batch went lately, and for how long it was held: measured, without what is foreseen.

Pure. service/batches/progress.py reads the history and the pauses of the batches that it tells the
progress of; core/reporting/progress.py takes the result beside the forecast. Invariant: time in
which a batch was held, or waited for its first result, is in no pace.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.history.batch_events import BatchEvent
from lowtide.core.history.batch_history import BatchHistory

Stretch = tuple[datetime, datetime]
"""Two instants: from and to."""


class PaceRecord(msgspec.Struct, frozen=True):
    """What was recorded of a batch. `history`: up to the last reading, None: there was none;
    `pauses`: those noted and their ends, the first first."""

    history: BatchHistory | None = None
    pauses: Sequence[BatchEvent] = ()


class MeasuredPace(msgspec.Struct, frozen=True):
    """`held_s`: seconds since the first result in which the batch was held. `recent_per_s`:
    requests a second in the last `RECENT_PACE_S` of the other time; None: too little was seen.
    """

    held_s: float = 0.0
    recent_per_s: float | None = None


NOTHING_RECORDED: Final = PaceRecord()
NOTHING_MEASURED: Final = MeasuredPace()


def measured_pace(batch: Batch, record: PaceRecord, now: datetime) -> MeasuredPace:
    """The pace of a batch in progress up to `now`."""
    if batch.in_progress_at is None or batch.first_settled_at is None:
        return NOTHING_MEASURED
    first = batch.first_settled_at
    stretches = held_stretches(record.pauses, now if batch.holds else None)
    held = [(max(begin, first), end) for begin, end in stretches if end > first]
    history = record.history or BatchHistory.begin(batch.in_progress_at)
    left_out = [(batch.in_progress_at, first), *held]
    return MeasuredPace(
        sum((min(end, now) - begin).total_seconds() for begin, end in held),
        _recent_per_s(history, left_out, batch.counts.settled, now),
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
    history: BatchHistory, left_out: Sequence[Stretch], settled: int, now: datetime
) -> float | None:
    """Requests a second in the last buckets that have `RECENT_PACE_S` of other time. `settled`:
    requests so far; what the history has not seen of them was done lately.

    Only these buckets are looked at, in seconds since the begin: a list of a hundred batches does
    this at each look.
    """
    width_s, until_s = history.width_s, (now - history.begun_at).total_seconds()
    done = {each.index: each.done.requests for each in history.buckets}
    gaps_s = [
        ((begin - history.begun_at).total_seconds(), (end - history.begun_at).total_seconds())
        for begin, end in left_out
    ]
    requests, seconds = max(0, settled - history.seen.requests), 0.0
    for index in range(int(max(0.0, until_s) // width_s), -1, -1):
        begin_s, end_s = index * width_s, min(until_s, (index + 1) * width_s)
        requests += done.get(index, 0)
        seconds += end_s - begin_s
        seconds -= sum(
            max(0.0, min(end_s, gap_end_s) - max(begin_s, gap_begin_s))
            for gap_begin_s, gap_end_s in gaps_s
        )
        if seconds >= limits.RECENT_PACE_S:
            break
    if seconds < limits.RECENT_PACE_S_MIN or not requests:
        return None
    return requests / seconds
