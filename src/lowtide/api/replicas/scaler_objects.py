"""Reports of scalers as the API, the console and the command show them. Pure."""

from collections.abc import Iterable

from lowtide.api.objects.instants import object_of, unix
from lowtide.api.objects.scale import ScalerObject
from lowtide.core.reporting.worker_report import ScalerReport, WorkerReport


def scaler_object(report: ScalerReport) -> ScalerObject:
    """One scaler."""
    return object_of(
        ScalerObject,
        report,
        scaler=report.label,
        reason=report.reason or None,
        trouble=report.error or None,
        trouble_since=unix(report.error_since),
    )


def scaler_list(live: Iterable[WorkerReport]) -> list[ScalerObject]:
    """The scalers of workers that live, each by its name."""
    scalers = [scaler_object(each) for report in live for each in report.scalers]
    return sorted(scalers, key=lambda each: each.scaler)
