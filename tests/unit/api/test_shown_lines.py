"""What a page says of a result line, whatever its shape is."""

from typing import Any

import msgspec
import pytest

from lowtide.api.console.batches.shown_lines import TEXT_CHARS_MAX, shown_line
from lowtide.api.objects.lines import LineObject


def line(result: Any, request: Any = None) -> LineObject:
    raw = [
        None if each is None else msgspec.Raw(msgspec.json.encode(each))
        for each in (result, request)
    ]
    return LineObject(place=0, line=1, bytes=10, result=raw[0], request=raw[1])


def answered(body: Any) -> LineObject:
    return line({"custom_id": "a", "response": {"status_code": 200, "body": body}})


def test_a_chat_is_shown_as_its_messages() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:x"}}
    content = [{"type": "text", "text": "see"}, image]
    message = {"role": "assistant", "content": "yes"}
    body = {
        "choices": [{"message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1200, "completion_tokens": 3},
    }
    request = {"body": {"messages": [{"role": "user", "content": content}]}}
    shown = shown_line(line({"custom_id": "a", "response": {"body": body}}, request))
    assert shown.prompt == [{"role": "user", "text": "see\n[image: data:x]"}]
    assert shown.answer == [{"role": "assistant", "text": "yes"}]
    assert (shown.custom_id, shown.tokens, shown.finish) == ("a", "1,200 in, 3 out", "length")
    assert shown.finish_words == "cut off at its limit of output tokens"


def test_tool_calls_embeddings_completions_and_responses_are_shown() -> None:
    call = {"function": {"name": "f", "arguments": '{"x":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert shown_line(answered({"choices": [{"message": message}]})).answer == [
        {"role": "assistant", "text": '[tool call] f({"x":1})'}
    ]
    assert shown_line(answered({"data": [{"embedding": [3.0, 4.0]}]})).answer == [
        {"role": "embedding", "text": "2 dimensions, norm 5"}
    ]
    assert shown_line(answered({"choices": [{"text": "t"}]})).answer[0]["text"] == "t"
    output = [{"type": "message", "content": [{"type": "output_text", "text": "r"}]}]
    assert shown_line(answered({"output": output})).answer[0]["text"] == "r"


def test_an_error_is_a_sentence_with_its_code() -> None:
    failed = {
        "custom_id": "a",
        "response": None,
        "error": {"code": "batch_expired", "message": "late"},
    }
    assert shown_line(line(failed)).error == "batch_expired: late"
    body = {"error": {"code": 400, "message": "too long"}}
    assert shown_line(answered(body)).error == "too long"


def body_of(**fields: Any) -> Any:
    return {"response": {"body": fields}}


ODD: Any = [
    *(None, [], 3, "x", {"response": 1}, {"response": {"body": [1]}}, {"error": []}),
    {"custom_id": 5},
    body_of(choices=1, data={}, output="x", usage=[], error=7),
    body_of(choices=[None, 1, {"message": 2}, {"message": {"content": [1, None]}}]),
]


@pytest.mark.parametrize("value", ODD)
def test_a_line_of_any_shape_is_shown(value: Any) -> None:
    for request in (None, value, {"body": value}, {"body": {"messages": value}}):
        shown = shown_line(line(value, request))
        assert isinstance(shown.raw, str)


def test_long_texts_are_cut_and_say_how_long_they_are() -> None:
    text = shown_line(answered({"choices": [{"text": "x" * 5_000_000}]})).answer[0]["text"]
    assert len(text) < TEXT_CHARS_MAX + 50
    assert text.endswith("… (5,000,000 characters)")
