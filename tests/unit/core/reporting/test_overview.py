"""What all batches come to, and which of them have begun to wait."""

from datetime import UTC, datetime, timedelta

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.reporting.overview import WaitingEvent, WaitingWatch, overview_of
from lowtide.core.reporting.progress import Progress
from lowtide.core.reporting.waiting import Kind, Reason
from lowtide.core.scheduling.feasibility import Backlog, Feasibility
from testkit.batches import a_batch

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MOVING = Progress()


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def batch(number: int = 1) -> Batch:
    return a_batch(NOW, id=f"batch_{number}")


def waits(kind: Kind = "model", since_s: float = 0.0, words: str = "it is away") -> Progress:
    return Progress(cause=Reason(kind, words, f"http://a:1: {words}", at(since_s)))


def see(watch: WaitingWatch, progress: Progress, seconds: float) -> list[WaitingEvent]:
    return watch.see([batch()], [progress], at(seconds), seconds)


def test_a_batch_that_waits_is_told_once_after_a_while_and_once_when_it_moves() -> None:
    watch, reported = WaitingWatch(), []
    for seconds in range(0, 600, 15):
        words = f"it is away, {seconds} s by now"
        reported += see(watch, waits(words=words) if seconds < 300 else MOVING, float(seconds))
    assert [(event.event, event.batch) for event in reported] == [
        ("batch.waiting", "batch_1"),
        ("batch.moving", "batch_1"),
    ]
    assert reported[0].since == NOW
    assert reported[0].reason.startswith("http://a:1"), "the log is for operators"


def test_a_short_wait_is_not_told() -> None:
    watch = WaitingWatch()
    assert see(watch, waits(), 0.0) == []
    assert see(watch, waits(), limits.BATCH_STILL_S - 1) == []
    assert see(watch, MOVING, limits.BATCH_STILL_S + 1) == []


def test_another_kind_of_reason_is_told_anew() -> None:
    watch = WaitingWatch()
    assert len(see(watch, waits("model"), 40.0)) == 1
    assert see(watch, waits("storage", 40.0), 50.0) == []
    assert len(see(watch, waits("storage", 40.0), 80.0)) == 1


def test_a_thousand_waiting_batches_are_no_flood() -> None:
    watch, reported = WaitingWatch(), []
    many = [batch(number) for number in range(1000)]
    for seconds in range(0, 3600, 15):
        progress = [waits()] * len(many)
        reported += watch.see(many, progress, at(seconds), float(seconds))
    assert len(reported) <= limits.WAITING_LINES_BURST
    assert see(watch, waits(), 3600.0) == [], "it was told, or counted, before"


def test_figures_are_summed_by_model_state_and_kind() -> None:
    def part(model: str, requests: int, settled: int) -> Backlog:
        return Backlog(
            batch_id="b", model=model, organization_id="o", deadline_at=NOW, created_at=NOW,
            requests=requests, settled=settled,
            planned_tokens=10 * requests, settled_tokens=10 * settled, planned_cost=10.0,
        )  # fmt: skip

    late = msgspec.structs.replace(waits(), verdict=Feasibility(kept="infeasible"))
    found = overview_of(
        {"in_progress": (2, at(-90))},
        [part("m", 100, 40), part("m", 10, 0), part("n", 5, 5)],
        [waits(), late, waits("queue"), MOVING],
        NOW,
    )
    assert found.states == {"in_progress": (2, 90.0)}
    assert found.queue_requests == {"m": 70, "n": 0}
    assert found.queue_tokens == {"m": 700, "n": 0}
    assert found.waiting == {"model": 2, "queue": 1}
    assert found.verdicts == {"at_risk": 0, "infeasible": 1}
