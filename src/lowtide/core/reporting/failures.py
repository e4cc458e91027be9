"""Which failures of a process's loops are worth a line in the log, and what that line says.

Pure: monotonic seconds go in. The loops of a process fail together when what they share is away (a
database, a bucket), so failures of one kind are one outage, in whichever loop: the first is logged
at once, the others are counted and logged in the next line, which comes later each time. Called by
loops/runner.py. Invariant: of one outage at most one line in `FAILURE_LINE_S`, after the first.
"""

import msgspec

from lowtide import limits


class FailureLine(msgspec.Struct, frozen=True):
    """What a line says: failures since the last one, and the loops that are still failing.

    `is_first`: the outage begins here, and a traceback helps.
    """

    loops: tuple[str, ...]
    failures: int
    for_s: float
    is_first: bool


class RecoveryLine(msgspec.Struct, frozen=True):
    """All loops work again that an outage had stopped: since when, and how often it struck."""

    kind: str
    loops: tuple[str, ...]
    failures: int
    for_s: float


class _Outage(msgspec.Struct):
    """Kept when it is over: should it come back soon, it is told no sooner for that."""

    since_s: float
    logged_at_s: float
    pause_s: float = limits.FAILURE_LINE_S
    is_logged: bool = True
    unlogged: int = 0
    failures: int = 0
    failing: set[str] = msgspec.field(default_factory=set)
    struck: set[str] = msgspec.field(default_factory=set)


class Failures:
    """The outages of one process."""

    def __init__(self) -> None:
        self._outages: dict[str, _Outage] = {}
        self._kind_of: dict[str, str] = {}
        """The outage that each failing loop is in."""

    def failed(self, loop: str, kind: str, now_s: float) -> FailureLine | None:
        """Records a failed tick. Returns the line to write now; None when it is only counted.

        `kind` says which failures are one outage.
        """
        if self._kind_of.get(loop, kind) != kind:
            self._leave(loop)
        self._kind_of[loop] = kind
        outage = self._outages.get(kind)
        is_over = outage is None or not outage.failing
        is_due = outage is None or now_s - outage.logged_at_s >= outage.pause_s
        if outage is None or (is_over and is_due):
            outage = self._outages[kind] = _Outage(now_s, now_s)
        elif is_over:
            outage.since_s, outage.is_logged = now_s, False
        elif is_due:
            outage.logged_at_s, outage.is_logged = now_s, True
            outage.pause_s = min(limits.FAILURE_LINE_S_MAX, 2 * outage.pause_s)
        outage.failing.add(loop)
        outage.struck.add(loop)
        outage.failures += 1
        outage.unlogged += 1
        if not is_due:
            return None
        unlogged, outage.unlogged = outage.unlogged, 0
        loops = tuple(sorted(outage.failing))
        return FailureLine(loops, unlogged, now_s - outage.since_s, is_over)

    def worked(self, loop: str, now_s: float) -> RecoveryLine | None:
        """Records a successful tick. Returns the line to write when a reported
        outage is over; else None.
        """
        if loop not in self._kind_of:
            return None
        kind = self._kind_of[loop]
        outage = self._leave(loop)
        if outage.failing or not outage.is_logged:
            return None
        struck = tuple(sorted(outage.struck))
        return RecoveryLine(kind, struck, outage.failures, now_s - outage.since_s)

    def _leave(self, loop: str) -> _Outage:
        outage = self._outages[self._kind_of.pop(loop)]
        outage.failing.discard(loop)
        return outage
