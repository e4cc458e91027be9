"""Why a batch ended without all its answers, in a line."""

from lowtide.api.console.batches.ended_reason import ended_because, title_of_errors
from lowtide.api.objects.batches import BatchObject, CountsObject, LineErrorList, LineErrorObject


def expired(closed_at: int, total: int = 400) -> BatchObject:
    return BatchObject(
        id="batch_1",
        status="expired",
        completion_window="2h",
        expires_at=7_200,
        finalizing_at=closed_at,
        expired_at=closed_at + 1,
        request_counts=CountsObject(
            total=total, completed=min(total, 30), failed=max(0, total - 30)
        ),
        not_run_count=max(0, total - 30),
    )


def test_an_expired_batch_says_how_far_it_came() -> None:
    told = "Its window of 2h ended: 30 of 400 requests had run."
    assert ended_because(expired(closed_at=7_201)) == told
    assert "was not read by then" in ended_because(expired(closed_at=7_201, total=0))


def test_a_batch_that_was_closed_long_after_its_deadline_says_why() -> None:
    told = ended_because(expired(closed_at=7_200 + 23 * 3600))
    assert told.endswith("It was closed 23 h after the deadline: no worker ran until then.")


def test_what_was_lost_is_not_blamed_on_the_input() -> None:
    lost = LineErrorList(data=(LineErrorObject(code="plan_lost", message="lost"),))
    assert title_of_errors(BatchObject(id="b", status="completed", errors=lost)) == "What was lost"
