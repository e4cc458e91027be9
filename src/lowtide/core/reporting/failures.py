"""Which failures of a process's loops are worth a line in the log, and what that line says.

Pure: monotonic seconds go in. The loops of a process fail together when what they share is away (a
database, a bucket), so failures of one kind are one trouble, in whichever loop: the first is logged
at once, the others are counted and logged in the next line, which comes later each time. Called by
loops/runner.py. Invariant: of one trouble at most one line in `FAILURE_LINE_S`, after the first.
"""

import msgspec

from lowtide import limits


class FailureLine(msgspec.Struct, frozen=True):
    """What a line says: failures since the last one, and the loops that are still failing.

    `is_first`: the trouble begins here, and a traceback helps.
    """

    loops: tuple[str, ...]
    failures: int
    for_s: float
    is_first: bool


class RecoveryLine(msgspec.Struct, frozen=True):
    """All loops work again that a trouble had stopped: since when, and how often it struck."""

    kind: str
    loops: tuple[str, ...]
    failures: int
    for_s: float


class _Trouble(msgspec.Struct):
    """Kept when it is over: should it come back soon, it is told no sooner for that."""

    since_s: float
    told_at_s: float
    pause_s: float = limits.FAILURE_LINE_S
    is_told: bool = True
    untold: int = 0
    failures: int = 0
    failing: set[str] = msgspec.field(default_factory=set)
    struck: set[str] = msgspec.field(default_factory=set)


class Failures:
    """The troubles of one process."""

    def __init__(self) -> None:
        self._troubles: dict[str, _Trouble] = {}
        self._kind_of: dict[str, str] = {}
        """The trouble that each failing loop is in."""

    def failed(self, loop: str, kind: str, now_s: float) -> FailureLine | None:
        """Records a failed tick. Returns the line to write now; None when it is only counted.

        `kind` says which failures are one trouble.
        """
        if self._kind_of.get(loop, kind) != kind:
            self._leave(loop)
        self._kind_of[loop] = kind
        trouble = self._troubles.get(kind)
        is_over = trouble is None or not trouble.failing
        is_due = trouble is None or now_s - trouble.told_at_s >= trouble.pause_s
        if trouble is None or (is_over and is_due):
            trouble = self._troubles[kind] = _Trouble(now_s, now_s)
        elif is_over:
            trouble.since_s, trouble.is_told = now_s, False
        elif is_due:
            trouble.told_at_s, trouble.is_told = now_s, True
            trouble.pause_s = min(limits.FAILURE_LINE_S_MAX, 2 * trouble.pause_s)
        trouble.failing.add(loop)
        trouble.struck.add(loop)
        trouble.failures += 1
        trouble.untold += 1
        if not is_due:
            return None
        untold, trouble.untold = trouble.untold, 0
        loops = tuple(sorted(trouble.failing))
        return FailureLine(loops, untold, now_s - trouble.since_s, is_over)

    def worked(self, loop: str, now_s: float) -> RecoveryLine | None:
        """Records a successful tick. Returns the line to write when a reported
        trouble is over; else None.
        """
        if loop not in self._kind_of:
            return None
        kind = self._kind_of[loop]
        trouble = self._leave(loop)
        if trouble.failing or not trouble.is_told:
            return None
        struck = tuple(sorted(trouble.struck))
        return RecoveryLine(kind, struck, trouble.failures, now_s - trouble.since_s)

    def _leave(self, loop: str) -> _Trouble:
        trouble = self._troubles[self._kind_of.pop(loop)]
        trouble.failing.discard(loop)
        return trouble
