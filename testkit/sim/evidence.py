"""What engines said of each line, and whether it excuses an end in the error file.

`engines.py` writes it down at the moment that a call is answered; `final_check.py` asks when a
batch has ended. The promise: a line ends as an error only if it was at fault itself, as far as any
process could tell. A set-up that was wrong, a gateway whose engine was away, a queue that was too
long for the time-out and a death for which others may be to blame excuse nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from lowtide import limits
from testkit.sim.field import FAILS, LONG, MISTAKEN, FieldConditions

_OWN: Final = (FAILS, MISTAKEN, " poison")
_FAILURES_MIN: Final = 2
"""One failure may have any cause; a second of the same line may be taken for its own."""
_NOT_RUN: Final = frozenset({"batch_expired", "batch_cancelled"})


class Evidence:
    """The evidence by prompt; each prompt is of one line of one batch."""

    def __init__(self, field: FieldConditions, engines: int, workers: int) -> None:
        self.refused: Counter[str] = Counter()
        """Answers that name the content of the request, or are too large."""
        self.failed: Counter[str] = Counter()
        """Answers that were none, and time-outs while the engine worked at this call."""
        self.cut: Counter[str] = Counter()
        """Calls that ended with the engine's death."""
        everywhere = len(field.balanced) == engines
        self._long_may_fail = everywhere or bool(workers > 1 and field.balanced)
        """A worker of several may have no engine but one behind a balancer."""

    def excuses(self, prompt: str, code: str) -> bool:
        """Whether that line may have ended with that code."""
        if code in _NOT_RUN or any(mark in prompt for mark in _OWN):
            return True
        if LONG in prompt and self._long_may_fail:
            return True
        return (
            self.refused[prompt] > 0
            or self.failed[prompt] >= _FAILURES_MIN
            or self.cut[prompt] >= limits.CRASH_COUNT_MAX
        )

    def burnt(self, ended: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the (prompt, code) pairs that nothing excuses."""
        return [(prompt, code) for prompt, code in ended if not self.excuses(prompt, code)]
