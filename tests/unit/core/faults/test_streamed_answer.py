"""core/faults/streamed_answer.py: a stream in, the answer that would have come whole out."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.faults.outcome import Attempt, NoReply, Reply
from lowtide.core.faults.streamed_answer import StreamedAnswer, is_plain
from lowtide.limits import REPLY_BYTES_MAX

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    return head | {"choices": choices} | more


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "logprobs": None, "finish_reason": finish}


def events(payloads: Iterable[dict[str, Any]], done: bool = True) -> bytes:
    lines = [json.dumps(payload).encode() for payload in payloads]
    return b"".join(b"data: %b\n\n" % line for line in [*lines, *([b"[DONE]"] if done else [])])


HELLO = [
    chunk([delta(role="assistant", content="")]),
    chunk([delta(content="hel")]),
    chunk([delta(content="lo")]),
    chunk([delta(finish="stop", content="")]),
    chunk([], usage=USAGE),
]


def finished(stream: bytes, status: int = 200) -> Attempt | None:
    answer = StreamedAnswer()
    answer.feed(stream)
    return answer.finish(status)


def body(stream: bytes) -> dict[str, Any]:
    reply = finished(stream)
    assert isinstance(reply, Reply)
    assert reply.status == 200
    reported: dict[str, Any] = json.loads(reply.body)
    return reported


def test_a_chat_is_what_it_would_have_been_at_once() -> None:
    assert body(events(HELLO)) == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_a_completion_is_text() -> None:
    parts = [
        {"index": 0, "text": "a", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": "b", "logprobs": None, "finish_reason": "length", "stop_reason": None},
    ]
    reported = body(
        events([chunk([part], object="text_completion") for part in parts] + HELLO[-1:])
    )
    assert reported["object"] == "chat.completion", "the last word on it counts"
    assert reported["choices"] == [
        {
            "index": 0,
            "text": "ab",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
        }
    ]


def test_reasoning_and_what_an_engine_adds_are_kept() -> None:
    stream = events(
        [
            chunk([delta(role="assistant", content=None, tool_calls=[])]),
            chunk([delta(reasoning_content="hm")]),
            chunk([delta(content="yes")]),
            chunk([delta(finish="stop") | {"stop_reason": 128009}]),
            chunk([], usage=USAGE, timings={"predicted_ms": 3.5}, system_fingerprint="b1"),
        ]
    )
    reported = body(stream)
    message = reported["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "yes")
    assert message["tool_calls"] is None
    assert reported["choices"][0]["stop_reason"] == 128009
    assert (reported["timings"], reported["system_fingerprint"]) == (
        {"predicted_ms": 3.5},
        "b1",
    )


@given(st.lists(st.text(), max_size=8), st.data())
def test_however_the_stream_is_cut_the_answer_is_the_same(
    texts: list[str], data: st.DataObject
) -> None:
    stream = events(
        [*(chunk([delta(content=text)]) for text in texts), HELLO[-2], HELLO[-1]]
    ).replace(b"\n\n", data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"])))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    answer = StreamedAnswer()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        answer.feed(stream[begin:end])
    reply = answer.finish(200)
    assert isinstance(reply, Reply)
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == "".join(texts)


def test_it_has_begun_with_the_first_token_and_not_with_the_role() -> None:
    answer = StreamedAnswer()
    answer.feed(events(HELLO[:1], done=False))
    assert not answer.has_begun
    answer.feed(events(HELLO[1:2], done=False))
    assert answer.has_begun


def test_an_answer_without_a_token_has_begun_when_it_ends() -> None:
    answer = StreamedAnswer()
    answer.feed(events([HELLO[0], HELLO[3]], done=False))
    assert answer.has_begun


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    for stream in (events(HELLO[:3], done=False), b"", events([], done=False)):
        reply = finished(stream)
        assert isinstance(reply, NoReply)
        assert reply.kind == "broken"


UNREADABLE = {
    "no usage": events(HELLO[:-1]),
    "no end of the answer": events(HELLO[:3]),
    "a tool is called": events([chunk([delta(tool_calls=[{"index": 0}])]), *HELLO]),
    "logprobs": events([chunk([delta(content="x") | {"logprobs": {"content": []}}]), *HELLO]),
    "not JSON": b"data: {oops\n\n" + events(HELLO),
    "not an object": b"data: [1]\n\n" + events(HELLO),
    "a choice that is none": events([chunk([3]), *HELLO]),  # type: ignore[list-item]
    "choices that are none": events([{"choices": 5}, *HELLO]),
    "a delta that is none": events([chunk([{"index": 0, "delta": "x"}]), *HELLO]),
}


@pytest.mark.parametrize("stream", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_told_whole_is_not_guessed_at(stream: bytes) -> None:
    assert finished(stream) is None


@pytest.mark.parametrize(
    ("code", "status"), [(400, 400), (503, 503), (200, 500), ("odd", 500), (None, 500)]
)
def test_an_error_amid_the_stream_is_the_reply(code: object, status: int) -> None:
    error = {"error": {"message": "no", "code": code}}
    reply = finished(events([*HELLO[:2], error]))
    assert isinstance(reply, Reply)
    assert (reply.status, json.loads(reply.body)) == (status, error)


def test_a_stream_without_end_is_noticed() -> None:
    answer = StreamedAnswer()
    answer.feed(b": keep-alive\n" * 10)
    assert not answer.is_oversize
    answer._bytes = REPLY_BYTES_MAX
    answer.feed(b"\n")
    assert answer.is_oversize


def test_only_requests_for_plain_text_are_streamed() -> None:
    assert is_plain(b'{"model":"m","messages":[],"max_tokens":5,"response_format":{}}')
    for field in ("n", "tools", "logprobs", "stream", "best_of", "echo", "new_in_2027"):
        assert not is_plain(b'{"model":"m","messages":[],"%b":1}' % field.encode())
    assert not is_plain(b"[]")
