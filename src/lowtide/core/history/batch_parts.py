"""Which parts of a batch have run: its requests in the order in which they run, in few parts.

Pure. store/history.py counts, the API and the console's strip show. The order is that of the plan
(requests that begin alike run together), which is not the order of the input's lines. Invariant: a
part is named by the worst that is in it, so one failure among thousands is seen.
"""

from typing import Literal

import msgspec

State = Literal["failed", "running", "waiting", "paused", "not_run", "done"]


class BatchPart(msgspec.Struct, frozen=True, kw_only=True):
    """`count` requests from the `first` on, counted from 0, of which `settled` ended, `failed` of
    these without success. The others by what becomes of their chunks, in chunks.
    """

    first: int
    count: int
    settled: int
    failed: int
    leased: int = 0
    waiting: int = 0
    paused: int = 0
    dropped: int = 0

    @property
    def state(self) -> State:
        """The worst of what is in it: a failure, else what is still to come."""
        if self.failed:
            return "failed"
        if self.leased:
            return "running"
        if self.paused:
            return "paused"
        if self.waiting:
            return "waiting"
        return "not_run" if self.dropped else "done"
