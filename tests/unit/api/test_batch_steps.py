"""The states that a batch's page draws, and the one that it names."""

from lowtide.api.console.batches.batch_rows import shown_state, steps_of
from lowtide.api.objects.batches import BatchObject, WaitingReason


def names(batch: BatchObject) -> list[str]:
    return [f"{each['name']}{' now' if each['is_now'] else ''}" for each in steps_of(batch)]


def test_a_batch_that_is_being_cancelled_ends_in_cancelled() -> None:
    batch = BatchObject(
        id="b", status="cancelling", created_at=1, in_progress_at=2, cancelling_at=3
    )
    assert names(batch) == ["Validating", "Running", "Cancelling now", "Cancelled"]


def test_a_paused_batch_is_paused_and_nothing_else() -> None:
    why = WaitingReason(kind="paused", reason="It is paused.", since=5)
    batch = BatchObject(
        id="b",
        status="in_progress",
        created_at=1,
        in_progress_at=2,
        holds=("user",),
        waiting_reasons=(why,),
    )
    assert shown_state(batch) == "paused"
    assert names(batch) == ["Validating", "Running", "Paused now", "Writing results", "Completed"]
    assert steps_of(batch)[2]["at"] == 5


def test_results_that_are_written_from_the_deadline_on_are_those_of_an_expired_batch() -> None:
    late = BatchObject(id="b", status="finalizing", expires_at=10, finalizing_at=10)
    in_time = BatchObject(id="b", status="finalizing", expires_at=10, finalizing_at=9)
    assert names(late)[-1] == "Expired"
    assert names(in_time)[-1] == "Completed"
