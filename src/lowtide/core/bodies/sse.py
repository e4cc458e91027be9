"""A stream of server-sent events passing through, cut at the ends of events.

The live API feeds blocks as they come and passes on what it gets back: the same bytes, but
never half an event, so that a stream that breaks can still end with an event that says so. On the
way it keeps the end of the stream, where engines report usage.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from lowtide.core.ascii_json import quote
from lowtide.core.usage import UNREADABLE, Usage, usage_of
from lowtide.limits import LIVE_EVENT_BYTES_MAX, LIVE_TAIL_BYTES

CONTENT_TYPE: Final = "text/event-stream"
_EVENTS_SEARCHED: Final = 8
"""How many of the last events are searched: usage is in the last one or, before
`[DONE]` and a summary, near it.
"""


class EventStream:
    """One stream. `events` counts those that have passed."""

    def __init__(self) -> None:
        self.events = 0
        self._pending = b""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def feed(self, block: bytes) -> bytes:
        """The bytes that complete events, out of what was held back and `block`; may be empty.

        An event of more than LIVE_EVENT_BYTES_MAX is not held back any longer.
        """
        data = self._pending + block if self._pending else block
        end = _end_of_last_event(data)
        if len(data) - end > LIVE_EVENT_BYTES_MAX:
            end = len(data)
        whole, self._pending = data[:end], data[end:]
        if whole:
            self.events += whole.count(b"\n\n") + whole.count(b"\r\n\r\n")
            self._keep(whole)
        return whole

    def finish(self) -> bytes:
        """What is still held back, once the stream has ended: an event that lacked its end."""
        rest, self._pending = self._pending, b""
        if rest:
            self._keep(rest)
        return rest

    def usage(self) -> Usage | None:
        """What the engine reported, in the shape of any of the endpoints; None if nothing."""
        for payload in self._last_payloads():
            if b'"usage"' in payload and (usage := _usage_in(payload)) is not None:
                return usage
        return None

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= LIVE_TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def _last_payloads(self) -> Iterator[bytes]:
        lines = b"".join(self._tail).splitlines()
        data = (line[5:].strip() for line in reversed(lines) if line.startswith(b"data:"))
        for _, payload in zip(range(_EVENTS_SEARCHED), data, strict=False):
            yield payload


class _Wrapped(msgspec.Struct):
    response: msgspec.Raw


def _usage_in(payload: bytes) -> Usage | None:
    """Top level for chat and completions; /responses wraps the whole response once more."""
    try:
        usage = usage_of(payload)
        if usage is None:
            usage = usage_of(bytes(msgspec.json.decode(payload, type=_Wrapped).response))
    except UNREADABLE:
        return None
    return usage


def _end_of_last_event(data: bytes) -> int:
    if data.endswith((b"\n\n", b"\r\n\r\n")):
        return len(data)
    lf, crlf = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)


def error_event(message: str, code: str) -> bytes:
    """An event that the SDKs raise as an error; no `[DONE]` follows it."""
    return b'data: {"error":{"message":%b,"type":"server_error","param":null,"code":%b}}\n\n' % (
        quote(message),
        quote(code),
    )
