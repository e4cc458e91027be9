"""loops/replicas/seen_models.py: what other workers' engines serve is known here, too."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport
from lowtide.loops.replicas.seen_models import SeenModelsLoop

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Reports:
    """The last reports (ports/worker_reports.py)."""

    def __init__(self, *reports: WorkerReport) -> None:
        self.reports = list(reports)

    async def all(self) -> list[WorkerReport]:
        return self.reports

    async def write(self, report: WorkerReport, *, forget_before: datetime) -> None:
        raise AssertionError("it only reads")

    async def remove(self, worker_id: str) -> None:
        raise AssertionError("it only reads")


def report(worker_id: str, *models: tuple[str, ...]) -> WorkerReport:
    replicas = tuple(ReplicaReport(name=f"r{n}", models=each) for n, each in enumerate(models))
    return WorkerReport(worker_id=worker_id, seen_at=NOW, ttl_s=30.0, replicas=replicas)


async def test_each_model_of_each_replica_of_each_worker_is_heard_of_once() -> None:
    seen: list[list[str]] = []

    def hear(models: Iterable[str]) -> None:
        seen.append(list(models))

    reports = Reports(report("a", ("m", "n"), ("m",)), report("b", ("o",)), report("c"))
    again_at = await SeenModelsLoop(reports, hear).tick(NOW)
    assert seen == [["m", "n", "o"]]
    assert again_at == NOW + timedelta(seconds=limits.MODELS_SEEN_POLL_S)
