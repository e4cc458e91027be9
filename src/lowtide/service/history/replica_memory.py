"""What replicas did lately, kept in memory: an open page reads only what may have changed since.

Called by history.py, one instance for each process. Invariants: what is answered is what a reading
of all rows a second before would give, except that a row which a process could not write in its
time, because its store was away, may be missing for `REPLICA_LATE_S`; at most
`REPLICA_PARTS_KEPT_MAX` parts are kept.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.history.replica_history import Parts, bucket_begin, by_bucket
from lowtide.ports.history import HistoryStore

_BUCKET: Final = timedelta(seconds=limits.REPLICA_BUCKET_S)
_IN_TIME: Final = 2 * _BUCKET
"""How old a bucket that is written in its time is at most, by a clock that is a little behind."""
_LATE: Final = limits.REPLICA_PENDING_BUCKETS * _BUCKET + _IN_TIME


class _Kept(msgspec.Struct, frozen=True):
    """The parts of a replica from `since` on, `span` before `read_at`. `read_at`, `late_read_at`:
    when the newest of them were read, and when those that may be written late were."""

    parts: Parts
    since: datetime
    span: timedelta
    read_at: datetime
    late_read_at: datetime

    def is_stale(self, now: datetime) -> bool:
        """Whether there may be newer parts: a page asks for one replica in several of its parts."""
        return (now - self.read_at).total_seconds() >= limits.REPLICA_FRESH_S

    def stale_since(self, now: datetime) -> datetime:
        """The first bucket that may have changed since it was read."""
        since = bucket_begin(self.read_at) - _IN_TIME
        if (now - self.late_read_at).total_seconds() >= limits.REPLICA_LATE_S:
            since = min(since, bucket_begin(self.late_read_at) - _LATE)
        return since

    def renewed(self, changed: Parts, since: datetime, now: datetime) -> "_Kept":
        """The same `now`, after all from the bucket at `since` on were read again."""
        begin = max(self.since, bucket_begin(now - self.span))
        parts = {at: part for at, part in self.parts.items() if begin <= at < since}
        has_late = since <= bucket_begin(self.late_read_at) - _LATE
        late_read_at = now if has_late else self.late_read_at
        return _Kept({**parts, **changed}, begin, self.span, now, late_read_at)


class ReplicaMemory:
    """Reads parts of replicas, and keeps those of the replicas that were asked for lately."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._kept: dict[str, _Kept] = {}
        """The one that was asked for last, last."""

    async def parts(
        self, names: Collection[str], since: datetime, now: datetime
    ) -> Mapping[str, Parts]:
        """The parts of each replica from the bucket at `since` on. Raises StoreError."""
        known = {name: self._kept[name] for name in names if self._reaches(name, since, now)}
        unknown = set(names) - known.keys()
        found = await self._read(unknown, since)
        fresh = {name: _Kept(found[name], since, now - since, now, now) for name in unknown}
        stale = {name: kept for name, kept in known.items() if kept.is_stale(now)}
        if stale:
            changed_since = min(kept.stale_since(now) for kept in stale.values())
            found = await self._read(stale, changed_since)
            for name, kept in stale.items():
                fresh[name] = kept.renewed(found[name], changed_since, now)
        self._keep(fresh, now)
        its = known | fresh
        return {
            name: {at: part for at, part in its[name].parts.items() if at >= since}
            for name in names
        }

    def _reaches(self, name: str, since: datetime, now: datetime) -> bool:
        """Whether what is kept of the replica goes back so far. None of a clock that was set back
        does."""
        kept = self._kept.get(name)
        return kept is not None and kept.since <= since and kept.read_at <= now

    async def _read(self, names: Collection[str], since: datetime) -> dict[str, Parts]:
        rows = await self._store.of_replicas(names, since) if names else {}
        return {name: by_bucket(rows.get(name, ())) for name in names}

    def _keep(self, fresh: Mapping[str, _Kept], now: datetime) -> None:
        """Keeps these, and of the others those that were asked for lately, as far as there is
        room."""
        for name, kept in fresh.items():
            self._kept.pop(name, None)
            self._kept[name] = kept
        number = sum(len(kept.parts) for kept in self._kept.values())
        for name, kept in list(self._kept.items()):
            is_idle = (now - kept.read_at).total_seconds() >= limits.REPLICA_LATE_S
            if is_idle or number > limits.REPLICA_PARTS_KEPT_MAX:
                number -= len(kept.parts)
                del self._kept[name]
