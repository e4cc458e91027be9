"""core/outcome.py: what the wire gave, and what it means for the request."""

import pytest

from lowtide.core.outcome import (
    Interrupted,
    NoReply,
    Rejected,
    Reply,
    Succeeded,
    Throttled,
    Transient,
    classify,
    error_message,
    final_failure,
)
from lowtide.core.usage import NO_USAGE, Usage


def test_a_2xx_object_is_a_success_with_its_bytes_and_usage() -> None:
    body = b'{"usage": {"prompt_tokens": 2, "completion_tokens": 3}}'
    assert classify(Reply(200, body)) == Succeeded(200, body, Usage(2, 0, 3, 0))
    assert classify(Reply(201, b"{}")) == Succeeded(201, b"{}", NO_USAGE)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices": [', b'"ok"'])
def test_a_2xx_without_an_object_is_tried_again(body: bytes) -> None:
    outcome = classify(Reply(200, body))
    assert isinstance(outcome, Transient)
    assert not outcome.engine_died


@pytest.mark.parametrize("status", [429, 503])
def test_back_pressure_costs_no_try_and_keeps_the_wish_for_a_pause(status: int) -> None:
    assert classify(Reply(status, b"", 7.5)) == Throttled(f"the engine answered {status}", 7.5)


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    outcome = classify(Reply(status, b'{"error": {"message": "out of memory"}}', 3.0))
    assert isinstance(outcome, Transient)
    assert (outcome.status, outcome.detail, outcome.retry_after_s) == (status, "out of memory", 3.0)
    assert not outcome.engine_died


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 300, 304])
def test_every_other_refusal_is_final_with_the_engines_own_words(status: int) -> None:
    body = b'{"error": {"message": "too long"}}'
    assert classify(Reply(status, body)) == Rejected("request_rejected", "too long", status, body)


def test_a_refusal_in_html_keeps_the_status_and_no_body() -> None:
    outcome = classify(Reply(404, b"<h1>not here</h1>"))
    assert outcome == Rejected("request_rejected", "the engine answered 404", 404, None)


def test_no_reply_says_who_is_to_blame() -> None:
    assert classify(NoReply("connect", "refused")) == Interrupted("refused")
    assert classify(NoReply("timeout", "600 s")) == Transient("timeout", "600 s")
    assert classify(NoReply("broken", "reset")) == Transient(
        "engine_error", "reset", engine_died=True
    )
    assert classify(NoReply("oversize", "big")) == Rejected("response_too_large", "big")


def test_the_last_try_is_recorded_as_the_engine_put_it() -> None:
    last = Transient("engine_error", "out of memory", 500, b"{}")
    assert final_failure(last) == Rejected("engine_error", "out of memory", 500, b"{}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "m", "code": 3}}', "m"),
        (b'{"error": "m"}', "m"),
        (b'{"message": "m"}', "m"),
        (b'{"detail": "m"}', "m"),
        (b'{"error": {}}', None),
        (b'{"detail": [{"loc": 1}]}', None),
        (b"{}", None),
        (b"\xff", None),
        (b"", None),
        (b'{"error":' * 200_000, None),
    ],
)
def test_the_human_sentence_is_found_in_the_usual_shapes(body: bytes, message: str | None) -> None:
    assert error_message(body) == message
