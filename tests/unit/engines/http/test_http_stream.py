"""The buffer between an engine's socket and a live client: order, bound, end."""

import asyncio
from collections.abc import Callable

from lowtide.core.faults.outcome import NoReply
from lowtide.engines.http.stream import HttpReplyStream
from lowtide.limits import LIVE_BUFFER_BYTES

BROKEN = NoReply("broken", "cut")


def attached() -> tuple[HttpReplyStream, list[bool]]:
    """A stream whose head has come, and what it told its connection."""
    stream = HttpReplyStream(1.0)
    reported: list[bool] = []
    stream.attach(reported.append)
    stream.opened(200, b"text/event-stream", None)
    return stream, reported


async def test_what_waits_is_read_in_order_and_at_once() -> None:
    stream, reported = attached()
    for block in (b"a", b"b", b"c"):
        stream.fed(block)
    assert await stream.read() == b"abc"
    stream.ended(None)
    assert await stream.read() == b""
    assert reported == []


async def test_reading_stops_above_the_bound_and_goes_on_when_it_was_taken() -> None:
    stream, reported = attached()
    stream.fed(b"x" * LIVE_BUFFER_BYTES)
    assert (reported, stream.is_paused) == ([], False)
    stream.fed(b"y")
    stream.fed(b"z")  # what the socket had read already
    assert (reported, stream.is_paused) == ([True], True)
    assert len(await stream.read()) == LIVE_BUFFER_BYTES + 2  # type: ignore[arg-type]
    assert (reported, stream.is_paused) == ([True, False], False)


async def test_blocks_that_came_before_the_end_are_read_first() -> None:
    stream, _ = attached()
    stream.fed(b"a")
    stream.ended(BROKEN)
    assert await stream.read() == b"a"
    assert await stream.read() == BROKEN
    assert await stream.read() == BROKEN


async def test_a_reader_that_waits_is_woken_by_a_block_and_by_the_end() -> None:
    stream, _ = attached()
    wakes: list[tuple[Callable[[], None], bytes]] = [
        (lambda: stream.fed(b"a"), b"a"),
        (lambda: stream.ended(None), b""),
    ]
    for wake, expected in wakes:
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        assert not reading.done()
        wake()
        assert await reading == expected


async def test_a_reply_that_ends_before_its_head_is_no_reply() -> None:
    stream = HttpReplyStream(1.0)
    stream.ended(BROKEN)
    assert await stream.head() == BROKEN


async def test_the_first_end_is_the_one_that_counts() -> None:
    stream, _ = attached()
    stream.ended(None)
    stream.ended(BROKEN)
    assert await stream.read() == b""
