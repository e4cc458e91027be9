"""How many log lines about one thing are written, and how many were left out before each.

Pure: monotonic seconds go in. Invariant: of one key at most `burst` lines at once, and one more per
`span_s`; at most `LINE_BOUND_KEYS_MAX` keys are told apart.
"""

import msgspec

from lowtide import limits


class _Allowance(msgspec.Struct):
    lines: float
    at_s: float
    left_out: int = 0


class LineBound:
    """A token bucket for each key."""

    def __init__(self, span_s: float, burst: int) -> None:
        self._span_s = span_s
        self._burst = float(burst)
        self._allowances: dict[str, _Allowance] = {}

    def admit(self, key: str, now_s: float) -> int | None:
        """None: leave this line out. Else how many were left out since the last one."""
        each = self._allowances.get(key)
        if each is None:
            if len(self._allowances) >= limits.LINE_BOUND_KEYS_MAX:
                self._forget(now_s)
            each = self._allowances[key] = _Allowance(self._burst, now_s)
        each.lines = min(self._burst, each.lines + (now_s - each.at_s) / self._span_s)
        each.at_s = now_s
        if each.lines < 1.0:
            each.left_out += 1
            return None
        each.lines -= 1.0
        left_out, each.left_out = each.left_out, 0
        return left_out

    def _forget(self, now_s: float) -> None:
        """Forgets the keys about which nothing was said for so long that they
        are as new; else the oldest.
        """
        full_s = self._burst * self._span_s
        kept = {k: each for k, each in self._allowances.items() if now_s - each.at_s < full_s}
        if len(kept) >= limits.LINE_BOUND_KEYS_MAX:
            del kept[min(kept, key=lambda key: kept[key].at_s)]
        self._allowances = kept
