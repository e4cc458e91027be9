"""Stops calls to a replica whose engine cannot be reached, and bounds retries.

Pure; core/dispatch/replica.py has one of each. The circuit counts failures of transport alone
(no connection, a cut one, a proxy that says that the engine is away): what an engine answers in
words of its own is for core/faults/scope.py to judge. Source of the numbers: scheduling.md
section 2(j) and limits.py.
"""

from collections import deque
from typing import Literal

from lowtide import limits
from lowtide.core.faults.fault import FaultKind

CircuitState = Literal["closed", "open", "half_open"]


class Circuit:
    """Stops calling an engine that fails, and probes with one request until it works again.

    Opens after `CIRCUIT_FAILURES` failures in a row, or when more than `CIRCUIT_RATE` of the
    calls of the last `CIRCUIT_RATE_SPAN_S` failed. While open nothing is sent; after a cool-down
    that doubles up to `CIRCUIT_COOLDOWN_S_MAX` one probe goes out, and its outcome closes or
    re-opens the circuit.
    """

    def __init__(self) -> None:
        self.state: CircuitState = "closed"
        self.because = ""
        """What the last failure was, in words, and of which kind."""
        self.kind: FaultKind = "unreachable"
        self.opened_at_s: float | None = None
        """The monotonic second since when the circuit has not been closed; None: it is closed."""
        self.is_calm = True
        """Whether the circuit is closed without a recent failure: a success tells nothing new."""
        self._in_a_row = 0
        self._recent: deque[tuple[float, bool]] = deque()
        self._recent_failures = 0
        self._cooldown_s = limits.CIRCUIT_COOLDOWN_S
        self._retry_at_s = 0.0

    def admits(self, now_s: float) -> bool:
        """Whether a call may be sent now. In half-open, only the one probe was admitted."""
        if self.state == "closed":
            return True
        return self.state == "open" and now_s >= self._retry_at_s

    def sent(self) -> None:
        """Records that a call was sent: from the open state it is the probe."""
        if self.state == "open":
            self.state = "half_open"

    def succeeded(self, now_s: float) -> None:
        """Records that the engine answered as an engine should (to refuse
        the request is an answer).
        """
        self._in_a_row = 0
        self._cooldown_s = limits.CIRCUIT_COOLDOWN_S
        self.state = "closed"
        self.opened_at_s = None
        self._remember(now_s, failed=False)
        self.is_calm = not self._recent_failures

    def failed(self, now_s: float, why: str, kind: FaultKind = "unreachable") -> None:
        """Records that no connection came about, that it was cut, or that a
        proxy says the engine is away.
        """
        self.is_calm = False
        self.because, self.kind = why, kind
        self._in_a_row += 1
        self._remember(now_s, failed=True)
        if self.state == "half_open":
            self._cooldown_s = min(limits.CIRCUIT_COOLDOWN_S_MAX, 2 * self._cooldown_s)
            self._open(now_s)
        elif self.state == "closed" and (self._in_a_row >= limits.CIRCUIT_FAILURES or self._rate()):
            self._open(now_s)

    def abandoned(self) -> None:
        """Records that this process aborted a call: if it was the probe,
        the next call is the probe.
        """
        if self.state == "half_open":
            self.state = "open"

    @property
    def retry_at_s(self) -> float | None:
        """When an open circuit admits its probe; None when not open."""
        return self._retry_at_s if self.state == "open" else None

    def _open(self, now_s: float) -> None:
        self.state = "open"
        self.opened_at_s = now_s if self.opened_at_s is None else self.opened_at_s
        self._retry_at_s = now_s + self._cooldown_s
        self._recent.clear()
        self._recent_failures = 0

    def _remember(self, now_s: float, *, failed: bool) -> None:
        if not failed and not self._recent_failures:
            self._recent.clear()  # nothing but successes: nothing to weigh, and the fast path
            return
        self._recent.append((now_s, failed))
        self._recent_failures += failed
        while self._recent and self._recent[0][0] < now_s - limits.CIRCUIT_RATE_SPAN_S:
            self._recent_failures -= self._recent.popleft()[1]

    def _rate(self) -> bool:
        calls = len(self._recent)
        enough = calls >= limits.CIRCUIT_RATE_SAMPLES_MIN
        return enough and self._recent_failures > limits.CIRCUIT_RATE * calls


class RetryBudget:
    """Bounds retries to a tenth of completions, so that they do not overload a failing engine."""

    def __init__(self) -> None:
        self._tokens = float(limits.RETRY_BUDGET_BURST)
        self.is_full = True
        """Whether nothing more can be earned."""

    def earn(self) -> None:
        if not self.is_full:
            self._tokens += limits.RETRY_BUDGET_RATIO
            self.is_full = self._tokens >= limits.RETRY_BUDGET_BURST

    def spend(self) -> bool:
        """Takes one retry from the budget. Returns False when it has none."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        self.is_full = False
        return True
