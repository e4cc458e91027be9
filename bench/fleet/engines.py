"""Many simulated engines in one process: a port for each, and a count of what all were asked.

    python -m bench.fleet.engines --engines 32 --delay-ms 100

prints one JSON line with the ports, and serves until the pipe on its stdin closes. An engine takes
as long for one call as for many, so `window / delay` calls a second are its bound. GET /count on
any port answers how many calls all engines have answered, and how many were in flight at most on
one. A call is a POST: each worker GETs some pages of an engine that is new to it, to know its kind.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass

import uvloop

from bench.backend import Backend


@dataclass
class Counts:
    """Calls of all engines together."""

    answered: int = 0
    most_in_flight: int = 0

    def wire(self) -> bytes:
        """The answer to GET /count."""
        body = json.dumps({"answered": self.answered, "most_in_flight": self.most_in_flight})
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body.encode())
        )


@dataclass
class InFlight:
    """Calls at one engine."""

    now: int = 0


class Engine(Backend):
    """One connection to one engine."""

    def __init__(self, delay_s: float, at: InFlight, counts: Counts) -> None:
        super().__init__(delay_s, 0.0)
        self._at = at
        self._counts = counts
        self._is_count = False
        self._answering: asyncio.TimerHandle | None = None

    def connection_lost(self, error: Exception | None) -> None:
        """A call whose caller is gone is computed no further."""
        del error
        if self._answering is not None:
            self._answering.cancel()
            self._at.now -= 1

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._is_count = url == b"/count"

    def on_message_complete(self) -> None:
        if self._is_count:
            self._transport.write(self._counts.wire())
        elif self._parser.get_method() != b"POST":
            self._transport.write(self._wire)
        else:
            self._at.now += 1
            self._counts.most_in_flight = max(self._counts.most_in_flight, self._at.now)
            later = self._loop.call_later(self._delay_s, self._answer_late, self._wire)
            self._answering = later

    def _answer_late(self, wire: bytes) -> None:
        self._answering = None
        self._at.now -= 1
        if not self._transport.is_closing():
            self._counts.answered += 1
        super()._answer_late(wire)


async def serve(engines: int, delay_s: float) -> None:
    """Serves until stdin ends, so that no engine outlives the run that started it."""
    loop, counts, servers = asyncio.get_running_loop(), Counts(), []
    for _ in range(engines):
        at = InFlight()

        def made(at: InFlight = at) -> Engine:
            return Engine(delay_s, at, counts)

        servers.append(await loop.create_server(made, "127.0.0.1", 0, backlog=1024))
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps({"ports": ports}), flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engines", type=int, default=32)
    parser.add_argument("--delay-ms", type=float, default=100.0)
    args = parser.parse_args()
    uvloop.run(serve(args.engines, args.delay_ms / 1000))


if __name__ == "__main__":
    main()
