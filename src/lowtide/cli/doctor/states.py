"""The check of `lowtide doctor` on what the workers last said of themselves and their replicas.

Reads the store, where workers write it with their heartbeat; nothing is changed. A worker that has
stopped reporting is told as such, and nothing that it said counts as present.
"""

from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from lowtide import limits
from lowtide.cli.doctor.finding import Finding
from lowtide.config import Settings
from lowtide.core.reporting.standing import instant_text, split
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport
from lowtide.ports.store import StoreError
from lowtide.wiring.database import is_single_machine, store_of

_WELL = frozenset({"ready", "live_first"})


async def check_states(settings: Settings) -> list[Finding]:
    """The findings on the workers' reports. Call it only when the store was found to be usable.
    Empty where no worker ever ran.
    """
    if is_single_machine(settings) and not (settings.server.data_dir / "lowtide.db").exists():
        return []
    try:
        async with aclosing(store_of(settings)) as store:  # not opened, which would write
            reports = await store.worker_reports.all()
    except StoreError:
        return []
    return findings_of(reports, datetime.now(UTC))


def findings_of(reports: Sequence[WorkerReport], now: datetime) -> list[Finding]:
    """One for each worker that is gone or reports an error, and for each replica that is out."""
    live, gone = split(reports, now)
    findings = [
        Finding(
            f"worker {report.worker_id}",
            "warn",
            f"has not been heard of since {instant_text(report.seen_at)}",
            "If it was to run, look into its log and start it; else this is forgotten in a day.",
        )
        for report in gone
    ]
    for report in live:
        findings += _clock_ahead(report, now)
        errors = {"results": report.results_error, "validation": report.validation_error}
        findings += [
            Finding(f"worker {report.worker_id}", "fail", f"{what} stands still: {why}",
                    "Mend what it says; the work goes on by itself.")
            for what, why in errors.items()
            if why
        ]  # fmt: skip
        findings += [_replica(each) for each in report.replicas if each.is_owned]
    return findings


def _clock_ahead(report: WorkerReport, now: datetime) -> list[Finding]:
    """The finding on a report from the future: its worker's clock is ahead. One that lags shows as
    a worker that is gone.
    """
    ahead_s = (report.seen_at - now).total_seconds()
    if ahead_s <= limits.CLOCKS_AGREE_S:
        return []
    return [
        Finding(
            f"worker {report.worker_id}",
            "warn",
            f"its clock is {ahead_s:.0f} s or more ahead of this machine's",
            "Let both machines follow the same time server; states are dated by these clocks.",
        )
    ]


def _replica(report: ReplicaReport) -> Finding:
    models = ", ".join(report.models[:5])
    if report.endpoints:
        models += f" at {', '.join(report.endpoints)}"
    name = f"state of {report.name}"
    if report.condition in _WELL:
        return Finding(name, "ok", f"{report.condition} for {models}")
    since = f" since {instant_text(report.since)}" if report.since is not None else ""
    verdict = "fail" if report.condition == "misconfigured" else "warn"
    what = f"{report.condition}{since} for {models}: {report.reason}"
    return Finding(name, verdict, what, report.remedy)  # type: ignore[arg-type]
