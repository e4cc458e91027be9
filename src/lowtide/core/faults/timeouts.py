"""Tells whether a call timed out by its own fault or by waiting behind Lowtide's other calls.

An engine that computes one call at a time queues the others without a word, so a call may time out
although the engine is well and the request is good. Such a time-out must cost the request no try.
It is held to be the request's own in two cases: it had the engine to itself, or it timed out before
and calls of its size that were sent later were answered meanwhile. `Replica` keeps one of these and
core/dispatch/dispatch.py asks it. Pure: monotonic seconds.

Invariant: a request has at most TIMEOUTS_FREE_MAX time-outs that cost nothing.
"""

from lowtide import limits

_SIZES = 32  # classes of prompt lengths, each twice as long as the one before


class TimeoutBlame:
    """What one replica's calls say about a time-out of one of them."""

    def __init__(self) -> None:
        self.was_any = False
        """Whether a call timed out in company: from then on `succeeded` is to be told."""
        self.crowded_at_s = float("-inf")
        """When a call was last sent while another one was in flight, or a live call came."""
        self.answered_at_s = float("-inf")
        """When the last final answer came."""
        self.busy_since_s = float("inf")
        """When a call was last sent while none was in flight."""
        self._sent_at_s = [float("-inf")] * _SIZES

    def succeeded(self, tokens: int, sent_at_s: float) -> None:
        """Records that a call with a prompt of that many tokens was answered."""
        size = _size(tokens)
        if sent_at_s > self._sent_at_s[size]:
            self._sent_at_s[size] = sent_at_s

    def is_own(self, tokens: int, sent_at_s: float, timeouts: int) -> bool:
        """Whether the time-out of a request that was sent then costs it a try. `timeouts`: how many
        it had before that cost it none.
        """
        if self.crowded_at_s < sent_at_s or timeouts >= limits.TIMEOUTS_FREE_MAX:
            return True
        overtaken = any(later > sent_at_s for later in self._sent_at_s[_size(tokens) :])
        return timeouts > 0 and overtaken

    def silence_s(self, now_s: float) -> float:
        """Seconds without an answer while calls were in flight."""
        return now_s - max(self.busy_since_s, self.answered_at_s)

    def is_silent_since(self, sent_at_s: float) -> bool:
        """Whether the replica has answered nothing at all since then."""
        return self.answered_at_s < sent_at_s


def _size(tokens: int) -> int:
    return min(tokens.bit_length(), _SIZES - 1)
