"""What `/metrics` says of work by deadline and of the replicas that it asks for."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Gauge

from lowtide.core.scheduling.wanted_replicas import Wanted
from lowtide.telemetry.labels import MODELS

Due = Iterable[tuple[datetime, int, float]]
"""Requests and work units by deadline."""

WITHIN: Final = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
"""Deadlines as labels: what is due within that time, with all that is due before."""

_WORDS: Final = " of batches that are not paused, by how soon they are due; `7d` has all of them."
BACKLOG_REQUESTS: Final = Gauge(
    "lowtide_backlog_requests", "Requests that have not settled" + _WORDS, ["model", "within"]
)
BACKLOG_WORK: Final = Gauge(
    "lowtide_backlog_work",
    "Work left, in input tokens, an output token counting as four," + _WORDS,
    ["model", "within"],
)
BACKLOG_SECONDS: Final = Gauge(
    "lowtide_backlog_replica_seconds",
    "Seconds that one replica would take for all of it; absent while its speed is not known.",
    ["model"],
)
WANTED: Final = Gauge(
    "lowtide_replicas_wanted", "Replicas that are needed to keep the deadlines.", ["model"]
)
PRESENT: Final = Gauge("lowtide_replicas_present", "Replicas that are there.", ["model"])
TRUSTED: Final = Gauge(
    "lowtide_replicas_wanted_trusted",
    "1 where all was known that the number rests on; 0: it is held up for what is not.",
    ["model"],
)
_ALL: Final = (BACKLOG_REQUESTS, BACKLOG_WORK, BACKLOG_SECONDS, WANTED, PRESENT, TRUSTED)


def begin_scale() -> None:
    """Forgets the models that were shown."""
    for gauge in _ALL:
        gauge.clear()


def show_scale(
    model: str, wanted: Wanted, present: int, work_s: float | None, due: Due, now: datetime
) -> None:
    """Shows one model. `work_s`: seconds of work for one replica, None while not known."""
    name = MODELS.of(model)
    each = list(due)
    for label, span in WITHIN.items():
        soon = [part for part in each if part[0] <= now + span or label == "7d"]
        BACKLOG_REQUESTS.labels(name, label).set(sum(requests for _, requests, _ in soon))
        BACKLOG_WORK.labels(name, label).set(sum(work for _, _, work in soon))
    if work_s is not None:
        BACKLOG_SECONDS.labels(name).set(work_s)
    WANTED.labels(name).set(wanted.replicas)
    PRESENT.labels(name).set(present)
    TRUSTED.labels(name).set(wanted.trusted)
