"""An engine that does exactly what a test says: answers, stalls, lies, hangs up.

A real HTTP/1.1 server on 127.0.0.1 in the test's own event loop. Each request takes the next answer
of the script, and `otherwise` once the script is used up. An answer is a sequence of steps:

    bytes            write these, whatever they are
    float            wait this many seconds
    asyncio.Event    wait until the test sets it
    Cut.CLOSE        end the connection in good order (FIN)
    Cut.RESET        end it rudely (RST)
    Cut.HANG         do nothing until the client goes away

What is asked beside its /v1 (metrics, version, slots) takes nothing of the script: it is answered
from `pages`, else 404, and recorded in `polls`.

It records requests, and which of them the client abandoned, and lets a test wait for either: no
test needs to sleep. It never checks what it is told to say.
"""

import asyncio
import enum
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self, cast

import httptools
import msgspec

from testkit.patience import PATIENCE_S

WAIT_S: Final = PATIENCE_S
"""How long the `saw_` methods wait for a fact before the test fails."""


class Cut(enum.Enum):
    """Steps that end an answer; see the module's text."""

    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"


Step = bytes | float | asyncio.Event | Cut
Answer = Sequence[Step]


class SeenRequest(msgspec.Struct, frozen=True):
    """A complete request. Header names are in lower case; `connection` counts from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


def completion(text: str = "ok", model: str = "test-model") -> dict[str, Any]:
    """A chat completion as OpenAI shapes it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1767225600,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def reply(
    body: bytes | Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> bytes:
    """A well-formed reply with Content-Length; a mapping is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    return _head(status, fields | dict(headers or {})) + content


def chunked(parts: Iterable[bytes], status: int = 200) -> bytes:
    """A well-formed reply in chunks, one per part; parts must not be empty."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return _head(status, {"Transfer-Encoding": "chunked"}) + body + b"0\r\n\r\n"


def throttled(retry_after: str = "1") -> bytes:
    """A 429 that asks to be tried again after `retry_after`."""
    error = {"error": {"message": "no room", "type": "rate_limit"}}
    return reply(error, 429, {"Retry-After": retry_after})


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class ScriptedEngine:
    """Use as `async with ScriptedEngine() as engine:`; clients find it at `engine.url`."""

    def __init__(
        self,
        *answers: Answer,
        otherwise: Answer | None = None,
        on_connect: Answer = (),
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        models: Sequence[str] | None = None,
    ) -> None:
        """`on_connect` is played to each new connection before it has asked for anything. `models`:
        what /v1/models lists, beside the script; None: asking for them is a request like others.
        """
        self.otherwise: Answer = (reply(completion()),) if otherwise is None else otherwise
        self.on_connect: Answer = on_connect
        self.requests: list[SeenRequest] = []
        self.pages: dict[str, Answer] = {}
        """What is answered beside the script, by path."""
        if models is not None:
            self.pages["/v1/models"] = (reply({"data": [{"id": name} for name in models]}),)
        self.polls: list[SeenRequest] = []
        self.abandoned: list[SeenRequest] = []
        """Requests whose connection ended before the answer was written."""
        self.connections_opened = 0
        self.connections_peak = 0
        self.bytes_received = 0
        self._script: deque[Answer] = deque(answers)
        self._tls = tls
        self._host = host
        self._reads = True
        self._live: set[_ServerConnection] = set()
        self._changed: list[asyncio.Future[None]] = []
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """The base URL; the same before and after a `stop` and `start`."""
        scheme = "https" if self._tls else "http"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}/v1"

    @property
    def connections_open(self) -> int:
        return len(self._live)

    async def start(self) -> None:
        """Listen; on a free port the first time, on the same one afterwards."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _ServerConnection(self), self._host, self._port, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Die as a process does: stop listening, reset every connection."""
        if self._server is not None:
            self._server.close()
        self.cut_connections(Cut.RESET)
        await self.saw(lambda: not self._live)
        if self._server is not None:
            await self._server.wait_closed()
        self._server = None

    async def aclose(self) -> None:
        await self.stop()

    def script(self, *answers: Answer) -> None:
        """Append answers for the next requests, one each."""
        self._script.extend(answers)

    def cut_connections(self, how: Cut = Cut.CLOSE) -> None:
        """End every open connection, idle or not."""
        for connection in list(self._live):
            connection.cut(how)

    def stop_reading(self) -> None:
        """Let the kernel's buffers fill: what a client sends from now on is not taken."""
        self._reads = False
        for connection in self._live:
            connection.read(self._reads)

    def go_on_reading(self) -> None:
        self._reads = True
        for connection in self._live:
            connection.read(self._reads)

    async def saw(self, fact: Callable[[], bool]) -> None:
        """Wait until `fact` holds; it is asked again after each event on a connection."""
        async with asyncio.timeout(WAIT_S):
            while not fact():
                changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._changed.append(changed)
                await changed

    async def saw_requests(self, count: int) -> None:
        """Wait until `count` requests have come in, since the start."""
        await self.saw(lambda: len(self.requests) >= count)

    async def saw_abandoned(self, count: int) -> None:
        """Wait until the clients of `count` requests have gone without their answer."""
        await self.saw(lambda: len(self.abandoned) >= count)

    # ---- called by the connections ----

    def opened(self, connection: "_ServerConnection") -> int:
        self.connections_opened += 1
        self._live.add(connection)
        self.connections_peak = max(self.connections_peak, len(self._live))
        if not self._reads:
            # Not at once: uvloop begins to read only after it has announced the connection.
            asyncio.get_running_loop().call_soon(connection.read, False)
        self.notify()
        return self.connections_opened

    def lost(self, connection: "_ServerConnection") -> None:
        self._live.discard(connection)
        self.notify()

    def answer_to(self, request: SeenRequest) -> Answer:
        """A page where one is asked for, else what comes next."""
        is_page = request.path in self.pages or not request.path.startswith("/v1")
        if request.method != "GET" or not is_page:
            return self.next_answer(request)
        self.polls.append(request)
        self.notify()
        return self.pages.get(request.path, (reply({"error": "no such page"}, 404),))

    def next_answer(self, request: SeenRequest) -> Answer:
        self.requests.append(request)
        self.notify()
        return self._script.popleft() if self._script else self.otherwise

    def notify(self) -> None:
        changed, self._changed = self._changed, []
        for future in changed:
            if not future.done():
                future.set_result(None)


class _ServerConnection(asyncio.Protocol):
    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self._number = 0
        self._playing: asyncio.Task[None] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    # ---- for the engine ----

    def cut(self, how: Cut) -> None:
        if how is Cut.CLOSE:
            self._transport.close()
        elif how is Cut.RESET:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:  # else it is closed already
                # Lingering for no time at all is what makes the kernel send RST instead of FIN.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def read(self, wanted: bool) -> None:
        if self._transport.is_closing():
            return
        if wanted and not self._transport.is_reading():
            self._transport.resume_reading()
        elif not wanted and self._transport.is_reading():
            self._transport.pause_reading()

    # ---- called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._number = self._engine.opened(self)
        if self._engine.on_connect:
            self._play(self._engine.on_connect, None)

    def data_received(self, data: bytes) -> None:
        self._engine.bytes_received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()  # as a server would; a TLS greeting, for example

    def connection_lost(self, _: Exception | None) -> None:
        if self._playing is not None:
            self._playing.cancel()
        self._engine.lost(self)

    # ---- called by the parser ----

    def on_message_begin(self) -> None:
        self._headers = {}
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("ascii").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        request = SeenRequest(
            method=self._parser.get_method().decode("ascii"),
            path=self._path.decode("ascii"),
            headers=self._headers,
            body=bytes(self._body),
            connection=self._number,
        )
        self._play(self._engine.answer_to(request), request)

    # ---- inside ----

    def _play(self, answer: Answer, request: SeenRequest | None) -> None:
        self._playing = asyncio.get_running_loop().create_task(self._steps(answer, request))

    async def _steps(self, answer: Answer, request: SeenRequest | None) -> None:
        try:
            for step in answer:
                await self._step(step)
        except asyncio.CancelledError:
            if request is not None:
                self._engine.abandoned.append(request)
                self._engine.notify()
            raise

    async def _step(self, step: Step) -> None:
        match step:
            case bytes():
                self._transport.write(step)
            case asyncio.Event():
                await step.wait()
            case Cut.HANG:
                await asyncio.get_running_loop().create_future()
            case Cut():
                self.cut(step)
            case _:
                await asyncio.sleep(step)
