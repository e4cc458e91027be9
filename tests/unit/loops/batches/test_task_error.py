"""What a loop tells of its last failed task is told as long as it is news."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.loops.batches.task_lease import TaskError
from lowtide.ports.blobs import BlobsFull

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_an_error_is_reported_until_a_task_succeeds() -> None:
    error = TaskError()
    error.failed(BlobsFull("no space left"), NOW)
    error.found_nothing(at(limits.TASK_RETRY_S))
    assert error.text == "no space left", "the failed task pauses, and is tried again after it"
    error.succeeded()
    assert error.text is None


def test_an_error_ends_where_its_task_went_to_another_worker() -> None:
    error = TaskError()
    error.failed(BlobsFull("no space left"), NOW)
    error.found_nothing(at(limits.TASK_RETRY_S + limits.IDLE_POLL_S))
    assert error.text is None


def test_what_is_no_fault_of_the_storage_is_no_error() -> None:
    error = TaskError()
    error.failed(ValueError("a bug"), NOW)
    assert error.text is None
