"""How the files that a process may have open are shared out between engines and callers.

Every connection is one. `wiring` asks for each replica, `api` for the callers. Guards: what commits
and uploads need stays free, however many calls are in flight.
"""

import msgspec

from lowtide.limits import OPEN_FILES_KEPT, OPEN_FILES_KEPT_SHARE


class OpenFiles(msgspec.Struct, frozen=True):
    """Connections at most: `batch` and `live` for each replica, `callers` for the whole HTTP
    API."""

    batch: int
    live: int
    callers: int


def share_out(files: int, replicas: int) -> OpenFiles:
    """`files` is the soft limit. Half of what is not kept is for batch work, a quarter each for
    live calls and for callers."""
    kept = min(OPEN_FILES_KEPT, int(files * OPEN_FILES_KEPT_SHARE))
    free, each = files - kept, max(1, replicas)
    return OpenFiles(
        batch=max(1, free // 2 // each), live=max(1, free // 4 // each), callers=max(1, free // 4)
    )
