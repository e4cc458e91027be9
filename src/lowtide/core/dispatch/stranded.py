"""Which chunks of a worker none of its replicas can go on with, so that another worker may.

Asked by core/dispatch/dispatch.py at each tick. Pure.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from lowtide import limits
from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import ChunkRun, Request, goes_on_with


class StrandedChunks:
    """Remembers since when each chunk is stranded; one per worker."""

    def __init__(self) -> None:
        self._since_s: dict[ChunkKey, float] = {}
        """The monotonic second since when no replica could go on with that chunk."""

    def find(
        self,
        runs: Mapping[ChunkKey, ChunkRun],
        delayed: Iterable[Request],
        replicas: Sequence[Replica],
        now_s: float,
    ) -> list[ChunkRun]:
        """Those of `runs` that none of these replicas could go on with for `CHUNK_KEEP_S`, because
        their engines are away or their set-up is at fault. `delayed` are requests to be retried.

        Chunks with requests whose calls were cut stay for `CHUNK_KEEP_CUT_S`: another worker would
        not know of the cuts, and a request that kills engines would kill one after another.
        """
        if not runs or all(replica.is_well for replica in replicas):
            self._since_s.clear()
            return []
        since = {
            key: self._since_s.get(key, now_s)
            for key, run in runs.items()
            if not any(goes_on_with(replica, run, now_s) for replica in replicas)
        }
        self._since_s = since
        due = {key for key, since_s in since.items() if now_s - since_s >= limits.CHUNK_KEEP_S}
        if not due:
            return []
        waiting = itertools.chain(*(runs[key].pending for key in due), delayed)
        cut = {each.run.key for each in waiting if each.was_cut}
        given_up = {key for key in cut if now_s - since.get(key, now_s) >= limits.CHUNK_KEEP_CUT_S}
        return [runs[key] for key in due - (cut - given_up)]
