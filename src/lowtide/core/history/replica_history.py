"""What a replica did and what its live calls met, in buckets of `REPLICA_BUCKET_S`.

Pure. Each process that calls a replica records its own part (loops/history/replicas.py); readers
add the parts up. Invariants: parts add up in any order; a bucket in which nothing happened is
not recorded; growth is counted once, from running totals.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from math import floor
from typing import Final, TypeVar

import msgspec

from lowtide import limits
from lowtide.core.capacity.output_lengths import bucket_of, middle_of


class ReplicaTotals(msgspec.Struct, frozen=True, kw_only=True):
    """A replica at one instant. Running totals since the process began: answered batch calls and
    their tokens, batch calls taken back for live ones, and live streams by the bucket of their
    time to the first byte. And its state: `gives_way` to live calls; calls in flight.
    """

    batch_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    taken_back: int = 0
    first_bytes: Mapping[int, int] = {}
    is_ours: bool = True
    """Whether this process may send it batch calls: then it tells of the window."""
    gives_way: bool = False
    window: int = 0
    in_flight: int = 0


class ReplicaPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done in a bucket, or a part of it. `window_s` and `in_flight_s` are calls times
    seconds, over the `seen_s` in which a worker looked; `gave_way_s` of these.
    """

    batch_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    taken_back: int = 0
    first_bytes: dict[int, int] = {}
    seen_s: float = 0.0
    gave_way_s: float = 0.0
    window_s: float = 0.0
    in_flight_s: float = 0.0

    def plus(self, more: "ReplicaPart") -> "ReplicaPart":
        """The sum of both."""
        return sum_of((self, more))

    @property
    def is_idle(self) -> bool:
        """Whether nothing happened that is worth a row."""
        happened = self.batch_calls + self.taken_back + sum(self.first_bytes.values())
        return not happened and not self.in_flight_s and not self.gave_way_s

    @property
    def gave_way(self) -> bool:
        """Whether batch calls made way for live ones."""
        return self.gave_way_s > 0 or self.taken_back > 0

    @property
    def live_calls(self) -> int:
        """Live streams that began."""
        return sum(self.first_bytes.values())

    def first_byte_s(self, share: float) -> float | None:
        """The time to the first byte that so large a share of the streams stayed within; None
        where none began. It is the middle of a bucket a quarter octave wide.
        """
        wanted, below = share * self.live_calls, 0
        for bucket, calls in sorted(self.first_bytes.items()):
            below += calls
            if below >= wanted:
                return middle_of(bucket) / 1000
        return None


EMPTY: Final = ReplicaPart()


def sum_of(parts: Iterable[ReplicaPart]) -> ReplicaPart:
    """The sum of all, in one pass: a page adds up thousands."""
    calls = tokens_in = tokens_out = taken_back = 0
    seen_s = gave_way_s = window_s = in_flight_s = 0.0
    first: dict[int, int] = {}
    for part in parts:
        calls += part.batch_calls
        tokens_in += part.input_tokens
        tokens_out += part.output_tokens
        taken_back += part.taken_back
        seen_s += part.seen_s
        gave_way_s += part.gave_way_s
        window_s += part.window_s
        in_flight_s += part.in_flight_s
        for bucket, number in part.first_bytes.items():
            first[bucket] = first.get(bucket, 0) + number
    return ReplicaPart(
        batch_calls=calls,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        taken_back=taken_back,
        first_bytes=first,
        seen_s=seen_s,
        gave_way_s=gave_way_s,
        window_s=window_s,
        in_flight_s=in_flight_s,
    )


class ReplicaRow(msgspec.Struct, frozen=True):
    """One part as it is stored, under the replica's name and the begin of its bucket."""

    replica: str
    at: datetime
    part: ReplicaPart


_Key = TypeVar("_Key")
Parts = Mapping[datetime, ReplicaPart]
"""Parts of one replica by the begins of their buckets."""


class ReplicaSpan(msgspec.Struct, frozen=True):
    """What all processes together recorded of a replica from `at` on, in `seconds`."""

    at: datetime
    seconds: int
    part: ReplicaPart


def first_byte_bucket(seconds: float) -> int:
    """The bucket of a time to the first byte."""
    return bucket_of(1000 * seconds)


class ReplicaRecorder:
    """The parts of one process. `see` is called about once a second, `take` when they can be
    written; what could not be is given again, for `REPLICA_PENDING_BUCKETS` buckets at most.
    """

    def __init__(self) -> None:
        self._before: dict[str, ReplicaTotals] = {}
        self._seen_at: datetime | None = None
        self._parts: dict[tuple[str, datetime], ReplicaPart] = {}
        self._changed: set[tuple[str, datetime]] = set()

    def see(self, totals_of: Mapping[str, ReplicaTotals], now: datetime) -> None:
        """Records the growth since the last reading. A replica that is new begins at its totals."""
        since = self._seen_at or now
        elapsed_s = min(max(0.0, (now - since).total_seconds()), limits.REPLICA_SAMPLE_S_MAX)
        at = bucket_begin(now)
        for name, totals in totals_of.items():
            part = _growth(self._before.get(name, totals), totals, elapsed_s)
            if not part.is_idle:
                key = name, at
                self._parts[key] = self._parts.get(key, EMPTY).plus(part)
                self._changed.add(key)
        self._before, self._seen_at = dict(totals_of), now
        oldest = at - timedelta(seconds=limits.REPLICA_BUCKET_S * limits.REPLICA_PENDING_BUCKETS)
        for key in [key for key in self._parts if key[1] < oldest]:
            del self._parts[key]
            self._changed.discard(key)

    def changed(self) -> list[ReplicaRow]:
        """The rows that differ from what was written."""
        return [ReplicaRow(*key, self._parts[key]) for key in sorted(self._changed)]

    def written(self, rows: Iterable[ReplicaRow]) -> None:
        """Records that these were written; one that grew meanwhile is given again."""
        for row in rows:
            key = row.replica, row.at
            if self._parts.get(key) == row.part:
                self._changed.discard(key)


def bucket_begin(at: datetime) -> datetime:
    """The begin of the bucket that the instant lies in, the same for every process."""
    width_s = limits.REPLICA_BUCKET_S
    return datetime.fromtimestamp(floor(at.timestamp() / width_s) * width_s, UTC)


def by_bucket(rows: Iterable[ReplicaRow]) -> Parts:
    """The rows of one replica, those of all processes in a bucket added up."""
    return _sums((row.at, row.part) for row in rows)


def _sums(parts: Iterable[tuple[_Key, ReplicaPart]]) -> dict[_Key, ReplicaPart]:
    """The parts of each key added up."""
    sums: dict[_Key, ReplicaPart] = {}
    for key, part in parts:
        before = sums.get(key)
        sums[key] = part if before is None else before.plus(part)
    return sums


def spans_of(parts: Parts, since: datetime, until: datetime, spans_max: int) -> list[ReplicaSpan]:
    """The parts of one replica, added up in at most so many stretches of one length that cover the
    whole time; those without parts are there, too, and empty. The last one lasts until `until`.
    """
    width_s = limits.REPLICA_BUCKET_S
    while (until - since).total_seconds() > width_s * spans_max:
        width_s *= 2
    done = _sums((floor(at.timestamp() / width_s), part) for at, part in parts.items())
    first, last = floor(since.timestamp() / width_s), floor(until.timestamp() / width_s)
    end = until.timestamp()
    return [
        ReplicaSpan(
            datetime.fromtimestamp(number * width_s, UTC),
            max(1, min(width_s, round(end - number * width_s))),
            done.get(number, EMPTY),
        )
        for number in range(first, last + 1)
    ]


def stretches(buckets: Iterable[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """The begin and end of each time that those buckets, in order, cover without a gap."""
    width = timedelta(seconds=limits.REPLICA_BUCKET_S)
    since: datetime | None = None
    until: datetime | None = None
    for at in buckets:
        if since is not None and until is not None and at > until:
            yield since, until
            since = None
        since, until = since or at, at + width
    if since is not None and until is not None:
        yield since, until


def _growth(before: ReplicaTotals, now: ReplicaTotals, elapsed_s: float) -> ReplicaPart:
    seen_s = elapsed_s if now.is_ours else 0.0
    first = {
        bucket: calls - before.first_bytes.get(bucket, 0)
        for bucket, calls in now.first_bytes.items()
        if calls > before.first_bytes.get(bucket, 0)
    }
    return ReplicaPart(
        batch_calls=max(0, now.batch_calls - before.batch_calls),
        input_tokens=max(0, now.input_tokens - before.input_tokens),
        output_tokens=max(0, now.output_tokens - before.output_tokens),
        taken_back=max(0, now.taken_back - before.taken_back),
        first_bytes=first,
        seen_s=seen_s,
        gave_way_s=seen_s if now.gives_way else 0.0,
        window_s=seen_s * now.window,
        in_flight_s=seen_s * now.in_flight,
    )
