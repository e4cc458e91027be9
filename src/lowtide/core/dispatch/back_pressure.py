"""What follows from refusals for lack of room: a pause of the replica, and a smaller window.

core/dispatch/replica.py has one for each replica. Pure. Without a pause every other waiting request
would be sent at once to be refused as well. Invariant: refusals of one span shrink the window once,
and those of an engine that is starting never do, as they tell nothing of its room.
"""

from lowtide import limits


class BackPressure:
    """The state of one replica's refusals for lack of room. `is_calm`:
    none since the last answer.
    """

    def __init__(self) -> None:
        self.is_calm = True
        self.refusals = 0
        """Refusals since the last answer."""
        self.since_s: float | None = None
        self.because = ""
        self.paused_until_s = float("-inf")
        self._is_starting = False
        self._shrunk_at_s = float("-inf")
        self._pause_s = limits.THROTTLE_PAUSE_S

    def answered(self) -> None:
        """Records a final answer: there is room."""
        self.is_calm, self._is_starting = True, False
        self.refusals, self.since_s = 0, None
        self._pause_s = limits.THROTTLE_PAUSE_S

    def refused(
        self, now_s: float, retry_after_s: float | None, why: str, *, is_starting: bool
    ) -> bool:
        """Pauses the replica. Returns whether the window is to shrink. `is_starting`: connections
        were cut before, so the engine loads its model.
        """
        self.is_calm = False
        self._is_starting = self._is_starting or is_starting
        if not self.refusals:
            self.since_s = now_s
        self.refusals += 1
        self.because = why
        if retry_after_s is None and now_s >= self.paused_until_s:
            retry_after_s = self._pause_s
            self._pause_s = min(limits.THROTTLE_PAUSE_S_MAX, 2 * self._pause_s)
        pause_s = min(retry_after_s or 0.0, limits.BACKOFF_CAP_S)
        self.paused_until_s = max(self.paused_until_s, now_s + pause_s)
        if self._is_starting or now_s - self._shrunk_at_s < limits.THROTTLE_SPAN_S:
            return False
        self._shrunk_at_s = now_s
        return True
