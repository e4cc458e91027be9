"""What `/metrics` says of the places where engines are found."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Gauge

from lowtide.core.reporting.worker_report import SourceReport
from lowtide.telemetry.labels import Bounded

ENGINES: Final = Gauge("lowtide_source_engines", "Engines that the source told last.", ["source"])
STALE_SINCE: Final = Gauge(
    "lowtide_source_stale_since_timestamp_seconds",
    "Unix time since which the source has not answered, its last list being used; 0 while it does.",
    ["source"],
)

_SOURCES: Final = Bounded()


def show_sources(reports: Iterable[SourceReport]) -> None:
    """Shows these sources and no other."""
    ENGINES.clear()
    STALE_SINCE.clear()
    for report in reports:
        name = _SOURCES.of(report.label)
        ENGINES.labels(name).set(len(report.engines))
        stale = report.stale_since
        STALE_SINCE.labels(name).set(0 if stale is None else stale.timestamp())
