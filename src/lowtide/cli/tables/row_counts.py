"""What the rows of a run came to, counted while their answers are read: a schema judges them then.

`table_run` and `lowtide.map` show it. Invariant: memory is bounded, whatever engines say of errors.
"""

from collections import Counter

from lowtide import limits
from lowtide.tables.answers import Answer
from lowtide.tables.result_columns import ResultColumns


class RowCounts:
    """`reasons`: rows without an answer, by reason; `examples`: the first row of each, from 1."""

    def __init__(self, columns: ResultColumns) -> None:
        self._columns = columns
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, int] = {}

    @property
    def failed(self) -> int:
        return self.reasons.total()

    def count(self, answer: Answer) -> Answer:
        """Counts the answer and returns it as it came."""
        error = self._columns.error_of(answer)
        if error is not None:
            reason = error.partition(". The answer: ")[0]
            if len(self.reasons) >= limits.LINE_ERRORS_KEPT:
                reason = "other reasons"
            self.reasons[reason] += 1
            self.examples.setdefault(reason, answer.number + 1)
        return answer
