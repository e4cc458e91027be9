"""Events passing through: whole, unchanged, and with their usage read."""

import pytest

from lowtide.core.bodies.sse import EventStream, error_event
from lowtide.core.usage import Usage
from lowtide.limits import LIVE_EVENT_BYTES_MAX, LIVE_TAIL_BYTES

USAGE = b'"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}'


def passed(*blocks: bytes) -> EventStream:
    stream = EventStream()
    for block in blocks:
        stream.feed(block)
    stream.finish()
    return stream


def test_half_an_event_is_held_back_until_it_is_whole() -> None:
    stream = EventStream()
    assert stream.feed(b"data: a\n\ndata: b") == b"data: a\n\n"
    assert stream.feed(b"cd") == b""
    assert stream.feed(b"\n") == b""
    assert stream.feed(b"\ndata: e") == b"data: bcd\n\n"
    assert stream.finish() == b"data: e"
    assert stream.events == 2


def test_events_with_two_byte_line_ends_are_told_apart_too() -> None:
    stream = EventStream()
    assert stream.feed(b"data: a\r\n\r\ndata: b\r\n") == b"data: a\r\n\r\n"
    assert stream.feed(b"\r\n") == b"data: b\r\n\r\n"
    assert stream.events == 2


def test_an_event_without_end_is_passed_on_in_pieces() -> None:
    stream = EventStream()
    assert stream.feed(b"x" * LIVE_EVENT_BYTES_MAX) == b""
    assert len(stream.feed(b"x")) == LIVE_EVENT_BYTES_MAX + 1


@pytest.mark.parametrize(
    "tail",
    [
        [b"data: {%b}\n\n" % USAGE, b"data: [DONE]\n\n"],
        [b'data: {"choices":[],%b}\r\n\r\n' % USAGE],
        [b"data:{%b}\n\ndata: [DONE]\n\n" % USAGE],
        [b"data: {%b}" % USAGE],
        [b"data: {%b}\n\n" % USAGE, b'data: {"usage":null}\n\n', b"data: [DONE]\n\n"],
    ],
    ids=["chat", "crlf", "no space", "no end", "null after"],
)
def test_the_usage_of_a_stream_is_in_one_of_its_last_events(tail: list[bytes]) -> None:
    text = b'data: {"usage":null,"choices":[{"delta":{"content":"\\"usage\\""}}]}\n\n'
    assert passed(*[text] * 3, *tail).usage() == Usage(input_tokens=5, output_tokens=3)


def test_the_usage_of_a_response_is_in_the_response_that_its_last_event_wraps() -> None:
    event = (
        b'event: response.completed\ndata: {"type":"response.completed","response":'
        b'{"id":"r","usage":{"input_tokens":5,"output_tokens":3}}}\n\n'
    )
    assert passed(event).usage() == Usage(input_tokens=5, output_tokens=3)


def test_the_last_of_running_counts_is_the_one_that_counts() -> None:
    first = b'data: {"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
    assert passed(first, b"data: {%b}\n\n" % USAGE).usage() == Usage(5, 0, 3)


@pytest.mark.parametrize(
    "events",
    [b"", b"data: [DONE]\n\n", b'data: {"usage":7}\n\n', b'data: {"usage"\n\n', b": ping\n\n"],
)
def test_a_stream_that_reports_no_usage_has_none(events: bytes) -> None:
    assert passed(events).usage() is None


def test_only_the_end_of_a_long_stream_is_kept() -> None:
    stream = EventStream()
    event = b"data: %b\n\n" % (b"x" * 1_000)
    for _ in range(2_000):
        stream.feed(event)
    stream.feed(b"data: {%b}\n\n" % USAGE)
    assert stream._tail_bytes <= LIVE_TAIL_BYTES + len(event)
    assert stream.usage() is not None


def test_the_event_that_ends_a_broken_stream_is_json_on_one_line() -> None:
    event = error_event('the "engine"\nbroke', "engine_error")
    assert event.startswith(b'data: {"error":{"message":"the \\"engine\\"\\nbroke"')
    assert event.count(b"\n") == 2
