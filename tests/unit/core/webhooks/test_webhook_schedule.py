"""What follows from an attempt: delivered, later, given up; and when an endpoint is disabled."""

from datetime import UTC, datetime, timedelta

import pytest

from lowtide import limits
from lowtide.core.batches.batch import TERMINAL
from lowtide.core.webhooks.endpoint import EVENT_OF, EVENT_TYPES, event_id_of, payload_of
from lowtide.core.webhooks.schedule import AfterAttempt, Attempt, after_attempt, reason_to_disable

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_every_terminal_state_has_an_event() -> None:
    assert set(EVENT_OF) == TERMINAL
    assert sorted(EVENT_OF.values()) == sorted(EVENT_TYPES)


def test_the_id_of_an_event_follows_from_its_batch() -> None:
    assert event_id_of("batch_12ab") == "evt_12ab"
    assert event_id_of("batch_12ac") != event_id_of("batch_12ab")


def test_a_payload_has_the_shape_of_openais_events() -> None:
    body = payload_of("evt_1", "batch.completed", "batch_1", NOON)
    assert body == (
        b'{"id":"evt_1","object":"event","created_at":1772366400,"type":"batch.completed",'
        b'"data":{"id":"batch_1"}}'
    )


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_delivers(status: int) -> None:
    assert after_attempt(Attempt(status), 1, NOON) == AfterAttempt("delivered")


@pytest.mark.parametrize(
    ("attempt", "failure"),
    [
        (Attempt(199), "answered 199"),
        (Attempt(302), "answered 302; redirects are not followed"),
        (Attempt(400), "answered 400"),
        (Attempt(500), "answered 500"),
        (Attempt(error="refused"), "refused"),
        (Attempt(), "no answer"),
    ],
)
def test_anything_else_fails_and_says_why(attempt: Attempt, failure: str) -> None:
    assert attempt.failure == failure
    wait = timedelta(seconds=limits.WEBHOOK_RETRIES_S[0])
    assert after_attempt(attempt, 1, NOON) == AfterAttempt("pending", NOON + wait)


def test_the_schedule_is_that_of_the_documentation_and_ends() -> None:
    assert limits.WEBHOOK_RETRIES_S == (5, 300, 1800, 7200, 28_800, 86_400)
    down = Attempt(503)
    waits = []
    for attempts in range(1, 7):
        after = after_attempt(down, attempts, NOON)
        assert after.next_at is not None
        waits.append((after.next_at - NOON).total_seconds())
    assert tuple(waits) == limits.WEBHOOK_RETRIES_S
    assert after_attempt(down, 7, NOON) == AfterAttempt("failed")


def test_an_endpoint_is_disabled_after_five_days_and_no_sooner() -> None:
    long_ago = NOON - timedelta(days=5)
    assert reason_to_disable(Attempt(500), long_ago + timedelta(seconds=1), NOON) is None
    assert reason_to_disable(Attempt(200), long_ago, NOON) is None
    reason = reason_to_disable(Attempt(500), long_ago, NOON)
    assert reason == "No delivery succeeded for 5 days; the last attempt: answered 500."


def test_an_endpoint_that_is_gone_is_disabled_at_once() -> None:
    assert reason_to_disable(Attempt(410), NOON, NOON) == "It answered 410 Gone."
