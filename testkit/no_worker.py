"""The worker of a process without loops, for services that are tested alone."""

from collections.abc import Set

from lowtide.core.reporting.worker_report import WorkerReport


class NoWorker:
    """The worker of a process without loops."""

    def __init__(self, worker_id: str) -> None:
        self.id = worker_id

    def wake(self, name: str) -> None:
        """Does nothing: no loop runs here."""

    def report(self) -> WorkerReport | None:
        return None

    def served_models(self) -> Set[str] | None:
        return None
