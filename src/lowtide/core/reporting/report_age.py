"""How old the workers' reports are, by the clock of the process that reads them.

Pure: the shells that read reports call `see` at each reading (service/standings.py,
loops/batches/overview.py). A report is dated by its worker's clock, which may be wrong, and a dead
worker cannot correct it. Invariant: a report that does not change ages with the reader's monotonic
clock, whatever its date; so a worker that died is gone in time, and one that lives is never
reported as gone.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from lowtide import limits
from lowtide.core.reporting.worker_report import WorkerReport


class _Heard(msgspec.Struct, frozen=True):
    """`at_s`: when the report dated `seen_at` was written, by the reader's monotonic clock."""

    seen_at: datetime
    at_s: float


class ReportAges:
    """The ages of workers' reports as one reader sees them."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._seen_at_s = float("-inf")

    def see(self, reports: Sequence[WorkerReport], now: datetime, now_s: float) -> None:
        """Records that all reports were read just now.

        A new report is as old as its date tells. One that changed since the last reading is no
        older than that look, and none was written in the future.
        """
        since_seen_s = now_s - self._seen_at_s
        heard: dict[str, _Heard] = {}
        for report in reports:
            known = self._heard.get(report.worker_id)
            if known is None or known.seen_at != report.seen_at:
                reported_s = (now - report.seen_at).total_seconds()
                age_s = min(max(reported_s, 0.0), since_seen_s)
                known = _Heard(report.seen_at, now_s - age_s)
            heard[report.worker_id] = known
        self._heard = heard
        self._seen_at_s = now_s

    def dated(
        self, reports: Sequence[WorkerReport], now: datetime, now_s: float
    ) -> list[WorkerReport]:
        """The reports that were seen last, with instants of the reader's clock."""
        return [self._dated(report, now, now_s) for report in reports]

    def _dated(self, report: WorkerReport, now: datetime, now_s: float) -> WorkerReport:
        written_at = now - timedelta(seconds=now_s - self._heard[report.worker_id].at_s)
        off = written_at - report.seen_at
        if abs(off.total_seconds()) <= limits.CLOCKS_AGREE_S:
            return report
        return _shifted(report, off)


def _shifted(report: WorkerReport, by: timedelta) -> WorkerReport:
    """The same report by a clock that is ahead by so much."""
    replace = msgspec.structs.replace
    since = report.validating_since
    return replace(
        report,
        seen_at=report.seen_at + by,
        validating_since=None if since is None else since + by,
        replicas=tuple(
            each if each.since is None else replace(each, since=each.since + by)
            for each in report.replicas
        ),
        batches=tuple(replace(each, moved_at=each.moved_at + by) for each in report.batches),
    )
