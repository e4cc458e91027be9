"""Single calls on their way into a batch and out of it."""

import json

import pytest

from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import FlexCall, answer_to, read_flex, read_result, with_fields

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"


def call(endpoint: str = CHAT, **fields: object) -> FlexCall:
    body = {"model": "m", "messages": [], "service_tier": "flex", **fields}
    found = read_flex(endpoint, json.dumps(body).encode())
    assert found is not None
    return found


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b'{"model":"m","service_tier":"auto","messages":"flex"}',
        b'{"model":"m","service_tier":null,"messages":"background"}',
        b'{"model":"m","background":true}',  # a chat has none
        b'{"model":"m","service_tier":"flex"',
        b'["service_tier","flex"]',
        b'{"model":5,"service_tier":"flex"}',
    ],
)
def test_other_calls_go_to_the_live_path(body: bytes) -> None:
    assert read_flex(CHAT, body) is None


def test_a_line_has_the_body_without_what_is_ours_on_one_line() -> None:
    body = (
        b'{\n "model": "m",\r\n "service_tier": "flex", "seed": 12345678901234567890,\n'
        b' "stream": false, "messages": [{"role": "user",\n "content": "h\xc3\xa9"}]}'
    )
    found = read_flex(CHAT, body)
    assert found is not None
    line = found.line(7)
    assert line.count(b"\n") == 1 and line.endswith(b"\n") and b"\r" not in line
    assert json.loads(line) == {
        "custom_id": "7",
        "method": "POST",
        "url": CHAT,
        "body": {
            "model": "m",
            "seed": 12345678901234567890,
            "messages": [{"role": "user", "content": "h\u00e9"}],
        },
    }


def test_a_background_response_needs_no_tier() -> None:
    found = read_flex(RESPONSES, b'{"model":"m","input":"x","background":true}')
    assert found is not None and found.background
    assert b"background" not in found.line(1)


@pytest.mark.parametrize(
    ("endpoint", "fields", "param"),
    [
        (RESPONSES, {"stream": True}, "stream"),
        ("/v1/completions", {"stream": True}, "stream"),
        (RESPONSES, {"background": True, "stream": True}, "stream"),
        (RESPONSES, {"background": True, "store": False}, "store"),
        (CHAT, {"model": None}, "model"),
    ],
)
def test_what_the_queue_cannot_do_is_refused_by_its_field(
    endpoint: str, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(LowtideError) as refused:
        call(endpoint, **fields)
    assert refused.value.param == param


def test_an_answer_keeps_its_bytes_and_says_its_tier() -> None:
    result = read_result(
        b'{"id":"x","custom_id":"3","response":{"status_code":200,"request_id":"x",'
        b'"body":{"n": 1.10, "service_tier": null}},"error":null}\n'
    )
    assert result.number == 3
    answer = answer_to(call(), result)
    assert (answer.status, answer.body) == (200, b'{"n":1.10,"service_tier":"flex"}')


def test_a_refusal_keeps_its_status_and_gets_the_envelope() -> None:
    result = read_result(
        b'{"id":"x","custom_id":"1","response":{"status_code":422,"request_id":"x",'
        b'"body":{"detail":"no"}},"error":null}\n'
    )
    answer = answer_to(call(), result)
    assert answer.status == 422
    assert json.loads(answer.body)["error"]["message"] == "no"


@pytest.mark.parametrize(
    ("code", "reported"), [("timeout", "engine_timeout"), ("x", "engine_error")]
)
def test_without_an_answer_the_call_fails(code: str, reported: str) -> None:
    line = {"id": "x", "custom_id": "1", "response": None, "error": {"code": code, "message": "y"}}
    with pytest.raises(LowtideError) as failed:
        answer_to(call(), read_result(json.dumps(line).encode()))
    assert failed.value.code == reported


def test_a_streamed_chat_has_its_tool_calls_and_its_end() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function"}],
    }
    body = {"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    line = {"custom_id": "1", "response": {"status_code": 200, "body": body}}
    answer = answer_to(call(stream=True), read_result(json.dumps(line).encode()))
    assert answer.content_type == "text/event-stream"
    first, last, done, rest = answer.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    delta = json.loads(first.removeprefix(b"data: "))["choices"][0]["delta"]
    assert delta["tool_calls"] == [{"index": 0, "id": "c", "type": "function"}]
    assert json.loads(last.removeprefix(b"data: "))["choices"][0]["finish_reason"] == "tool_calls"


def test_fields_that_are_set_keep_their_places() -> None:
    assert with_fields(b'{"a": 1, "b":2}', {"a": "x", "c": None}) == b'{"a":"x","b":2,"c":null}'


def streamed(body: bytes, **fields: object) -> list[bytes]:
    line = b'{"custom_id":"1","response":{"status_code":200,"body":%b}}' % body
    events = answer_to(call(stream=True, **fields), read_result(line)).body.split(b"\n\n")
    return [event.removeprefix(b"data: ") for event in events[:-2]]


def test_a_streamed_chat_has_what_the_engine_wrote_byte_for_byte() -> None:
    """No object is made for what is within a field: a logprobs of a million values is one copy."""
    body = (
        b'{"id":"a","created":1.0e0,"choices":[{"index":1e0,"logprobs":{"a":[1.10,2.50]},'
        b'"message":{"role":"assistant","content":"hi","refusal":null},"finish_reason":"stop"}],'
        b'"usage":{"total_tokens":3.0}}'
    )
    first, last, usage = streamed(body, stream_options={"include_usage": True})
    assert b'"logprobs":{"a":[1.10,2.50]}' in first
    assert b'"delta":{"role":"assistant","content":"hi"}' in first
    assert b'"index":1e0' in first and b'"index":1e0' in last
    assert b'"created":1.0e0' in usage and b'"usage":{"total_tokens":3.0}' in usage


@pytest.mark.parametrize(
    ("choices", "chunks"),
    [
        (b'[null,1,"x",{"index":0}]', 2),
        (b"null", 0),
        (b'"none"', 0),
        (b'[{"message":"text"}]', 2),
        (b'[{"message":{"tool_calls":"x"}}]', 2),
    ],
)
def test_odd_choices_are_streamed_as_far_as_they_go(choices: bytes, chunks: int) -> None:
    assert len(streamed(b'{"id":"a","choices":%b}' % choices)) == chunks
