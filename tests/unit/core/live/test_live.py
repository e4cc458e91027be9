"""An interactive request as it is read, and an engine's refusal as it is shown."""

import json
from typing import Any

import pytest

from lowtide.core.errors import LowtideError
from lowtide.core.faults.outcome import Reply
from lowtide.core.live.live import answer_of, estimate_tokens, read_live, tokens_used
from lowtide.limits import LIVE_OUTPUT_TOKENS_ASSUMED, LIVE_PREFIX_BYTES

CHAT = "/v1/chat/completions"


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, LIVE_OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_output_tokens": 30}, 30),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": None, "n": None}, LIVE_OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": "many", "n": -1}, LIVE_OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": 10**30}, LIVE_OUTPUT_TOKENS_ASSUMED),
    ],
)
def test_an_answer_is_reserved_as_long_as_the_request_lets_it_get(
    fields: dict[str, Any], tokens: int
) -> None:
    sent = body(**fields)
    request = read_live(CHAT, sent)
    assert request.output_tokens == tokens
    assert request.tokens == estimate_tokens(len(sent)) + tokens


def test_embeddings_have_no_output_to_reserve() -> None:
    assert read_live("/v1/embeddings", body(input="x")).output_tokens == 0


@pytest.mark.parametrize(
    ("value", "streams"), [(True, True), (False, False), (None, False), ("true", False), (1, False)]
)
def test_only_true_asks_for_a_stream(value: object, streams: bool) -> None:
    assert read_live(CHAT, body(stream=value)).streams is streams


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "one"}]},
        {"prompt": "one"},
        {"input": "one"},
        {"instructions": "one", "input": "two"},
    ],
)
def test_the_prefix_is_the_beginning_of_the_prompt_wherever_it_is(fields: dict[str, Any]) -> None:
    request = read_live(CHAT, body(temperature=1, **fields))
    assert b"one" in request.prefix
    assert b"temperature" not in request.prefix


def test_the_prefix_is_bounded() -> None:
    assert len(read_live(CHAT, body(prompt="x" * 10_000)).prefix) == LIVE_PREFIX_BYTES


@pytest.mark.parametrize("sent", [b"{}", b'{"model":""}', b'{"model":null}'])
def test_a_request_without_a_model_says_what_is_missing(sent: bytes) -> None:
    with pytest.raises(LowtideError) as refused:
        read_live(CHAT, sent)
    assert (refused.value.code, refused.value.param) == ("missing_required_parameter", "model")


def test_what_was_used_is_what_the_engine_says() -> None:
    request = read_live(CHAT, body())
    reported = b'{"usage":{"prompt_tokens":5,"completion_tokens":2}}'
    assert tokens_used(request, reported) == 7


@pytest.mark.parametrize("answer", [b"{}", b"no json", b"x" * 10**6])
def test_without_a_report_what_was_used_is_estimated_within_what_was_reserved(
    answer: bytes,
) -> None:
    request = read_live(CHAT, body(max_tokens=50))
    assert request.input_tokens <= tokens_used(request, answer) <= request.tokens


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_a_refusal_in_the_envelope_is_not_touched(status: int) -> None:
    error = b'{"error":{"message":"m","type":"t","param":null,"code":"c"},"more":1}'
    assert answer_of(Reply(status, error)).body == error


@pytest.mark.parametrize(
    "error",
    [
        b"",
        b"<html>",
        b'{"error":{"message":"m","code":7}}',
        b'{"error":{"message":7}}',
        b'{"message":"m"}',
        b'{"detail":[{"msg":"m"}]}',
        b"\xff" * 10,
        b"[" * 10_000,
    ],
)
def test_any_other_refusal_becomes_an_envelope(error: bytes) -> None:
    shown = json.loads(answer_of(Reply(422, error)).body)["error"]
    assert set(shown) == {"message", "type", "param", "code"}
    assert isinstance(shown["message"], str)
    assert isinstance(shown["code"], str | None)


def test_what_an_engine_says_in_nearly_the_envelope_is_kept_where_it_fits() -> None:
    error = b'{"error":{"message":"m","type":"BadRequestError","param":"n","code":400}}'
    shown = json.loads(answer_of(Reply(400, error)).body)["error"]
    assert shown == {"message": "m", "type": "BadRequestError", "param": "n", "code": None}
