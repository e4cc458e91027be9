"""One log line for many events of a kind: unauthenticated callers must not fill a disk.

Called where a refusal that needs no key is written down. Pure: monotonic seconds go in. Guards: at
most one line in `REFUSAL_LOG_S`, and each event is counted in exactly one line.
"""

from lowtide import limits


class LogRate:
    """Counts the events of one kind; the first of a burst is told at once."""

    __slots__ = ("_logged_at_s", "_unlogged")

    def __init__(self) -> None:
        self._unlogged = 0
        self._logged_at_s: float | None = None

    def due(self, now_s: float) -> int:
        """Counts one more event. Returns how many a line must report now, this
        one included; 0: none yet.
        """
        self._unlogged += 1
        if self._logged_at_s is not None and now_s - self._logged_at_s < limits.REFUSAL_LOG_S:
            return 0
        count, self._unlogged, self._logged_at_s = self._unlogged, 0, now_s
        return count
