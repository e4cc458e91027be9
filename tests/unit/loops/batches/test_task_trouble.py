"""What a loop tells of its last failed task is told as long as it is news."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.loops.batches.task_lease import TaskTrouble
from lowtide.ports.blobs import BlobsFull

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_a_trouble_is_told_until_a_task_succeeds() -> None:
    trouble = TaskTrouble()
    trouble.failed(BlobsFull("no space left"), NOW)
    trouble.found_nothing(at(limits.TASK_RETRY_S))
    assert trouble.text == "no space left", "the failed task pauses, and is tried again after it"
    trouble.succeeded()
    assert trouble.text is None


def test_a_trouble_ends_where_its_task_went_to_another_worker() -> None:
    trouble = TaskTrouble()
    trouble.failed(BlobsFull("no space left"), NOW)
    trouble.found_nothing(at(limits.TASK_RETRY_S + limits.IDLE_POLL_S))
    assert trouble.text is None


def test_what_is_no_fault_of_the_storage_is_no_trouble() -> None:
    trouble = TaskTrouble()
    trouble.failed(ValueError("a bug"), NOW)
    assert trouble.text is None
