"""What a worker sees of the batches that it has chunks of: whether they move, and what fails.

Pure: monotonic seconds go in. loops/dispatch/dispatch.py reports failures and commits, never of a
single good answer; loops/replicas/report.py reads it once a second. Invariant: at most
`REPORT_BATCHES_MAX` batches and `REJECTED_CODES_MAX` codes of each are remembered.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from lowtide import limits
from lowtide.core.reporting.worker_report import BatchReport

OTHER = "other"
"""Stands for codes above the bound."""


class RejectedLine(msgspec.Struct, frozen=True):
    """Lines of one batch that went to its error file with one code since the last such record."""

    batch: str
    code: str
    lines: int
    lines_total: int
    last: str


class _Rejected(msgspec.Struct):
    total: int = 0
    logged: int = 0
    logged_at_s: float = float("-inf")
    last: str = ""


class _Work(msgspec.Struct):
    moved_at_s: float
    leased_at_s: float
    failures: int = 0
    failed_at_s: float = float("-inf")
    last_failure: str = ""
    rejected: dict[str, _Rejected] = msgspec.field(default_factory=dict)


class BatchWatch:
    """Watches the progress of the batches that one worker has leased chunks of."""

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}
        self.is_full = False
        """Whether some batch was left out because there are too many."""

    def see_leased(self, batch_ids: Iterable[str], now_s: float) -> None:
        """Records the batches that the worker has chunks of now; those of
        a while ago are forgotten.
        """
        self.is_full = False
        for batch_id in batch_ids:
            work = self._works.get(batch_id)
            if work is not None:
                work.leased_at_s = now_s
            elif len(self._works) < limits.REPORT_BATCHES_MAX:
                self._works[batch_id] = _Work(now_s, now_s)
            else:
                self.is_full = True
        gone_s = now_s - limits.BATCH_STILL_S
        for batch_id in [key for key, work in self._works.items() if work.leased_at_s < gone_s]:
            if not any(
                each.logged < each.total for each in self._works[batch_id].rejected.values()
            ):
                del self._works[batch_id]

    def settled(self, batch_id: str, now_s: float) -> None:
        """Records that outcomes of the batch were committed."""
        work = self._of(batch_id, now_s)
        if work is not None:
            work.moved_at_s = now_s

    def moved_since(self, since_s: float) -> list[str]:
        """Batches of which outcomes were committed at that monotonic second or later."""
        return [key for key, work in self._works.items() if work.moved_at_s >= since_s]

    def failed(self, batch_id: str, words: str, now_s: float) -> None:
        """Records that an attempt at one of its requests failed, and is made again."""
        work = self._of(batch_id, now_s)
        if work is not None:
            if now_s - work.failed_at_s > limits.BATCH_FAILURES_SPAN_S:
                work.failures = 0
            work.failures += 1
            work.failed_at_s, work.last_failure = now_s, words[: limits.REPORT_TEXT_CHARS_MAX]

    def rejected(self, batch_id: str, code: str, words: str, now_s: float) -> None:
        """Records that one of its lines goes to the error file."""
        work = self._of(batch_id, now_s)
        if work is not None:
            if code not in work.rejected and len(work.rejected) >= limits.REJECTED_CODES_MAX:
                code = OTHER
            counted = work.rejected.setdefault(code, _Rejected())
            counted.total += 1
            counted.last = work.last_failure = words[: limits.REPORT_TEXT_CHARS_MAX]

    def take_rejected(self, now_s: float) -> list[RejectedLine]:
        """What the log is to say now: each batch and code at once, then once in a while."""
        lines = []
        for batch_id, work in self._works.items():
            for code, counted in work.rejected.items():
                new = counted.total - counted.logged
                if new and now_s - counted.logged_at_s >= limits.REJECTED_LINE_S:
                    counted.logged, counted.logged_at_s = counted.total, now_s
                    lines.append(RejectedLine(batch_id, code, new, counted.total, counted.last))
        return lines

    def reports(self, now: datetime, now_s: float) -> tuple[BatchReport, ...]:
        """The batches for the worker's report."""
        return tuple(
            BatchReport(
                id=batch_id,
                moved_at=now - timedelta(seconds=now_s - work.moved_at_s),
                failures=work.failures if self._fails(work, now_s) else 0,
                last_failure=work.last_failure,
            )
            for batch_id, work in self._works.items()
        )

    def _fails(self, work: _Work, now_s: float) -> bool:
        return now_s - work.failed_at_s <= limits.BATCH_FAILURES_SPAN_S

    def _of(self, batch_id: str, now_s: float) -> _Work | None:
        """The record of the batch, created at its first event; None where there are too many."""
        work = self._works.get(batch_id)
        if work is None and len(self._works) < limits.REPORT_BATCHES_MAX:
            work = self._works[batch_id] = _Work(now_s, now_s)
        return work
