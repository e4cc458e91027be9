"""What `/metrics` says of the scalers that this process asks."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge

from lowtide.core.reporting.worker_report import ScalerReport
from lowtide.telemetry.labels import Bounded

ASKS: Final = Counter(
    "lowtide_scaler_asks",
    "Numbers that a scaler was asked for, by what came of it: `taken`, `dry_run` (it would have"
    " been asked), `failed` (it could not be read, or refused).",
    ["scaler", "result"],
)
TARGET: Final = Gauge(
    "lowtide_scaler_target_replicas", "Replicas that the place was told to have.", ["scaler"]
)
RUNNING: Final = Gauge(
    "lowtide_scaler_running_replicas", "Replicas that the place has.", ["scaler"]
)
FAILING_SINCE: Final = Gauge(
    "lowtide_scaler_failing_since_timestamp_seconds",
    "Unix time since which the scaler fails; 0 while it does not.",
    ["scaler"],
)

_SCALERS: Final = Bounded()


def count_ask(label: str, result: str) -> None:
    """Counts one ask, or one failure."""
    ASKS.labels(_SCALERS.of(label), result).inc()


def show_scalers(reports: Iterable[ScalerReport]) -> None:
    """Shows these scalers and no other."""
    for gauge in (TARGET, RUNNING, FAILING_SINCE):
        gauge.clear()
    for report in reports:
        name = _SCALERS.of(report.label)
        if report.target is not None and report.running is not None:
            TARGET.labels(name).set(report.target)
            RUNNING.labels(name).set(report.running)
        since = report.error_since
        FAILING_SINCE.labels(name).set(0 if since is None else since.timestamp())
