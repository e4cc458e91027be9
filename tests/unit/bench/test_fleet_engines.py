"""What the simulated engines of a fleet run count."""

import asyncio
import json
from typing import cast

from bench.fleet.engines import Counts, Engine, InFlight


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.has_data = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data
        self.has_data.set()

    def is_closing(self) -> bool:
        return False


def asked(counts: Counts, at: InFlight, request: bytes) -> tuple[Engine, Written]:
    engine, transport = Engine(0.0, at, counts), Written()
    engine.connection_made(cast(asyncio.BaseTransport, transport))
    engine.data_received(request)
    return engine, transport


async def test_pages_that_tell_an_engine_s_kind_are_no_calls() -> None:
    counts, at = Counts(), InFlight()
    for path in ("/metrics", "/props", "/version", "/v1/models"):
        _, transport = asked(counts, at, f"GET {path} HTTP/1.1\r\nhost: e\r\n\r\n".encode())
        assert transport.data.startswith(b"HTTP/1.1 ")
    assert (counts.answered, counts.most_in_flight, at.now) == (0, 0, 0)


async def test_calls_are_counted_when_they_are_answered() -> None:
    counts, at = Counts(), InFlight()
    call = b"POST /v1/chat/completions HTTP/1.1\r\nhost: e\r\ncontent-length: 2\r\n\r\n{}"
    _, first = asked(counts, at, call)
    ended, _ = asked(counts, at, call)
    assert (counts.answered, counts.most_in_flight, at.now) == (0, 2, 2)
    ended.connection_lost(None)
    await first.has_data.wait()
    assert (counts.answered, counts.most_in_flight, at.now) == (1, 2, 0)
    assert json.loads(counts.wire().partition(b"\r\n\r\n")[2])["answered"] == 1
